"""A sampler's trace as a self-contained page: step through it, seeing when and how surely each token was written."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import jax
import numpy as np

from mdmjax.base import KEEP, Trace
from mdmjax.reports.theme import page


def trace_html(trace: Trace, strings: Sequence[str], *, title: str = "Sampler trace", summary: str = "") -> str:
    """The page of a trace. `strings[v]` is the text of token v < V; V shows as a mask, V + 1 (PAD) as nothing.

    Left and right arrows (or the slider, or the space bar) move through the denoiser calls; tokens are coloured by the
    call that wrote them or by its confidence, and tell both when pointed at.
    """
    trace = jax.tree.map(np.asarray, trace)
    rows = [_row(jax.tree.map(lambda leaf, b=b: leaf[:, b], trace)) for b in range(trace.tokens.shape[1])]
    used = [v for v in np.unique(trace.tokens).tolist() if v < len(strings)]
    data = {"mask": len(strings), "strings": {v: strings[v] for v in used}, "rows": rows}
    # Inside <script> the text ends at the first "</script": no "<" is left to begin one.
    payload = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    options = "".join(f"<option value={b}>{b + 1}</option>" for b in range(len(rows)))
    body = f"""<header><h1>{escape(title)}</h1>{f'<p class="lead">{escape(summary)}</p>' if summary else ""}</header>
<div class="card controls">
<button id="back" title="one call back (left arrow)">◀</button>
<button id="play" title="play, pause (space)">▶ play</button>
<button id="on" title="one call on (right arrow)">▶</button>
<input id="call" type="range" min="0" max="0" aria-label="denoiser call">
<label>row <select id="row">{options}</select></label>
<label>colour <select id="colour"><option>call</option><option>confidence</option></select></label>
</div>
<p id="status" class="muted" aria-live="polite"></p>
<pre id="canvas" class="card"></pre>
<p class="legend muted"><span id="low"></span><span class="scale"></span><span id="high"></span>
<span class="given">given</span><span class="now">written now</span><span class="mask">mask</span></p>
<script id="data" type="application/json">{payload}</script>
<script>{_SCRIPT}</script>"""
    return page(title, body, _STYLE)


def _row(trace: Trace) -> dict[str, Any]:
    """A row's start, and of each call only what changed: [positions, tokens, confidences, operations, step, t]."""
    calls = []
    for c in np.flatnonzero(trace.steps >= 0):  # afterwards the row stands still
        at = np.flatnonzero((trace.tokens[c] != trace.tokens[c + 1]) | (trace.operations[c] != KEEP))
        confidence = np.nan_to_num(trace.confidence[c][at].astype(float)).round(4)
        change = [at, trace.tokens[c + 1][at], confidence, trace.operations[c][at]]
        calls.append([*(part.tolist() for part in change), int(trace.steps[c]), round(float(trace.times[c]), 4)])
    return {"start": trace.tokens[0].tolist(), "calls": calls}


_STYLE = """
.controls { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-top: 1.2rem;
  position: sticky; top: 0; }
.controls input { flex: 1 1 14rem; accent-color: var(--accent); }
button, select { font: inherit; color: inherit; background: var(--page); border: 1px solid var(--rule);
  border-radius: 6px; padding: .15rem .6rem; cursor: pointer; }
#status { margin: .7rem .1rem; font-variant-numeric: tabular-nums; }
#canvas { font-size: .95rem; line-height: 1.75; min-height: 8rem; }
#canvas span { border-radius: 3px; padding: .1em 0; }
.mask { color: var(--muted); opacity: .55; }
.now { box-shadow: 0 0 0 1.5px var(--accent); border-radius: 3px; }
.gone { box-shadow: 0 0 0 1.5px #d0342c; }
.given { text-decoration: underline dotted; text-underline-offset: .25em; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem .8rem; align-items: center; margin-top: .8rem; font-size: .85rem; }
.scale { width: 9rem; height: .7rem; border-radius: 4px;
  background: linear-gradient(90deg, hsl(275 75% 55% / .45), hsl(215 75% 55% / .45), hsl(155 75% 55% / .45),
    hsl(95 75% 55% / .45), hsl(35 75% 55% / .45)); }
"""

_SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const get = id => document.getElementById(id);
const NAMES = ["kept", "unmasked", "remasked", "inserted", "deleted"];
const SHOWN = { "\n": "↵\n", "\t": "⇥\t" };
let timer = null, spans = [];

const colour = share => `hsl(${275 - 240 * share} 75% 55% / .33)`;
const text = id => id === data.mask ? "·" : id > data.mask ? "" : data.strings[id].replace(/[\n\t]/g, c => SHOWN[c]);

function state(row, count) {  // the canvas after `count` calls, and what last wrote each position
  const { start, calls } = data.rows[row];
  const tokens = start.slice(), wrote = start.map(() => null);
  calls.slice(0, count).forEach(([at, ids, sure, what, step], c) =>
    at.forEach((i, n) => { tokens[i] = ids[n]; wrote[i] = { call: c + 1, step, sure: sure[n], what: what[n] }; }));
  return { tokens, wrote };
}

function show() {
  const row = +get("row").value, by = get("colour").value, calls = data.rows[row].calls, last = calls.length;
  get("call").max = last;
  const now = +get("call").value, { tokens, wrote } = state(row, now);
  if (spans.length !== tokens.length) {
    get("canvas").replaceChildren(...spans = tokens.map(() => document.createElement("span")));
  }
  let masks = 0, changed = 0;
  tokens.forEach((id, i) => {
    const span = spans[i], w = wrote[i], hidden = id === data.mask, fresh = w && w.call === now;
    masks += hidden; changed += fresh ? 1 : 0;
    span.textContent = text(id);
    span.className = hidden ? (fresh ? "mask gone" : "mask") : fresh ? "now" : w ? "" : "given";
    span.style.background = hidden || !w ? "" : colour(by === "call" ? (w.call - 1) / Math.max(1, last - 1) : w.sure);
    const source = w ? `${NAMES[w.what]} by call ${w.call} (step ${w.step}), confidence ${w.sure.toFixed(3)}`
                     : hidden ? "never written" : "given";
    span.title = `position ${i}: ${hidden ? "mask" : JSON.stringify(text(id))}, ${source}`;
  });
  const at = now ? ` (step ${calls[now - 1][4]}, t = ${calls[now - 1][5]})` : "";
  get("status").textContent = `call ${now} of ${last}${at} · ${changed} changed · ${masks} of ${tokens.length} masked`;
  get("low").textContent = by === "call" ? "call 1" : "confidence 0";
  get("high").textContent = by === "call" ? `call ${last}` : "1";
}

function move(to) {
  get("call").value = to;
  show();
}

function play() {
  const slider = get("call");
  if (timer) { clearInterval(timer); timer = null; }
  else {
    if (+slider.value === +slider.max) move(0);
    timer = setInterval(() => +slider.value < +slider.max ? move(+slider.value + 1) : play(),
                        Math.max(30, Math.min(400, 8000 / slider.max)));
  }
  get("play").textContent = timer ? "⏸ pause" : "▶ play";
}

get("back").onclick = () => move(+get("call").value - 1);
get("on").onclick = () => move(+get("call").value + 1);
get("play").onclick = play;
get("call").oninput = get("row").onchange = get("colour").onchange = show;
document.onkeydown = event => {
  if (event.target.tagName === "SELECT" || event.altKey || event.ctrlKey || event.metaKey) return;
  const slider = get("call");
  const to = { ArrowLeft: +slider.value - 1, ArrowRight: +slider.value + 1, Home: 0, End: +slider.max }[event.key];
  if (to !== undefined) { event.preventDefault(); move(to); }
  if (event.key === " ") { event.preventDefault(); play(); }
};
const asked = new URLSearchParams(location.hash.slice(1));  // trace.html#row=0&call=12
if (asked.has("row")) get("row").value = asked.get("row");
show();  // sets the slider's range
move(asked.has("call") ? asked.get("call") : get("call").max);
"""

"""The look and the behaviour of a trace's page: what does not depend on the trace."""

BODY = """<div class="card controls" role="group" aria-label="playback">
<button id="back" aria-label="one call back" title="one call back (left arrow)">◀</button>
<button id="play" title="play, pause (space)">▶ play</button>
<button id="on" aria-label="one call on" title="one call on (right arrow)">▶</button>
<input id="call" type="range" min="0" max="0" aria-label="denoiser call">
<label>row <select id="row"><!--rows--></select></label>
<label>colour <select id="colour"><option value="call">when: call</option><option value="what">what: operation</option>
<option value="confidence">confidence</option></select></label>
</div>
<p id="status" class="muted" role="status"></p>
<section class="card" aria-label="tokens"><pre id="canvas"></pre></section>
<p id="token" class="muted" aria-live="polite"></p>
<p class="legend muted"><span id="ramp"><span id="low"></span><span class="scale"></span><span id="high"></span></span>
<span id="kinds"></span><span class="given">given</span><span class="now">written now</span>
<span class="mask remasked">· remasked now</span><span class="mask inserted">+ inserted now</span>
<span class="deleted">deleted now</span><span class="mask">· mask</span></p>
<h2 id="order">What was last written, and when</h2>
<figure aria-labelledby="order"><div class="map"><canvas id="map" role="img"></canvas><i id="line"></i></div>
<figcaption id="axes"></figcaption></figure>
<p class="keys muted"><kbd>←</kbd> <kbd>→</kbd> call, <kbd>Home</kbd> <kbd>End</kbd> first and last,
<kbd>Page Up</kbd> <kbd>Page Down</kbd> row, <kbd>space</kbd> play, <kbd>c</kbd> colour,
<kbd>p</kbd> <kbd>n</kbd> follow the previous or next token, <kbd>Esc</kbd> none</p>"""

STYLE = """
:root { --tint: .36; }
@media (prefers-color-scheme: dark) { :root { --tint: .5; } }
.controls { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-top: 1.2rem;
  position: sticky; top: 0; z-index: 1; }
.controls input { flex: 1 1 12rem; min-width: 0; accent-color: var(--accent); }
button, select { font: inherit; color: inherit; background: var(--page); border: 1px solid var(--rule);
  border-radius: 6px; padding: .15rem .6rem; cursor: pointer; }
:focus-visible { outline: 2.5px solid var(--accent); outline-offset: 2px; }
#status, #token { margin: .7rem .1rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
#canvas { font-size: .95rem; line-height: 1.75; min-height: 5rem; }
#canvas span { border-radius: 3px; padding: .1em 0; cursor: pointer; }
#canvas .picked { background: var(--ink) !important; color: var(--page) !important; }
.mask { color: var(--muted); }
.now { box-shadow: 0 0 0 1.5px var(--accent); border-radius: 3px; }
.remasked { outline: 1.5px dashed #d8504a; outline-offset: -1px; }
.inserted { outline: 1.5px solid #2f9e63; outline-offset: -1px; }
.deleted { color: #d8504a; text-decoration: line-through 1.5px; }
.given { text-decoration: underline dotted; text-underline-offset: .25em; }
.legend, #ramp, #kinds { display: flex; flex-wrap: wrap; gap: .4rem .9rem; align-items: center; }
.legend { font-size: .85rem; }
#kinds { color: var(--ink); }
.legend [hidden] { display: none !important; }
.legend > span, #kinds > span { border-radius: 3px; padding: 0 .25em; }
.scale { width: 9rem; height: .7rem; border-radius: 4px; }
.map { position: relative; border: 1px solid var(--rule); background: var(--card); }
#map { display: block; width: 100%; image-rendering: pixelated; cursor: crosshair; }
#line { position: absolute; left: 0; right: 0; border-top: 1.5px solid var(--ink); pointer-events: none; }
figcaption, .keys { font-size: .85rem; margin-top: .4rem; }
.keys { margin-top: 1.4rem; line-height: 1.9; }
kbd { font: inherit; border: 1px solid var(--rule); border-radius: 4px; padding: 0 .35em; background: var(--card); }
"""

SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const get = id => document.getElementById(id);
const [KEEP, UNMASK, REMASK, INSERT, DELETE, CUT] = [0, 1, 2, 3, 4, 5];
const DID = ["changed to", "written as", "remasked", "inserted", "deleted", "pushed off the full canvas"];
const SHOWN = { "\n": "↵\n", "\t": "⇥\t" };
// Shades: a ramp for calls and confidences, then kinds.
const RAMP = 64, NONE = -1, GIVEN = 64, WRITTEN = 65, AGAIN = 66, PLACED = 67, REMASKED = 68, GROWN = 69, PICKED = 70;
const KINDS = { [WRITTEN]: "written", [AGAIN]: "written again", [PLACED]: "written where inserted",
                [REMASKED]: "remasked", [GROWN]: "inserted mask" };
const HUES = { [GIVEN]: "210 8% 60%", [WRITTEN]: "208 80% 52%", [AGAIN]: "32 90% 52%", [PLACED]: "150 60% 40%",
               [REMASKED]: "0 75% 60%", [GROWN]: "150 35% 65%" };
// What the page shows: `row` of the data, coloured `by`, in the state `shown`, with the slot `picked` marked.
let row = null, by = "", shown = null, picked = null, spans = [], drawn = "", timer = null;

const now = () => +get("call").value;
const text = id => id === data.mask ? "·" : id > data.mask ? "" : data.strings[id].replace(/[\n\t]/g, c => SHOWN[c]);
const quoted = id => id === data.mask ? "mask" : id > data.mask ? "padding" : JSON.stringify(data.strings[id]);
const lost = w => w !== undefined && w.what >= DELETE;

function css(shade, alpha) {
  const share = shade / (RAMP - 1);
  return shade === NONE ? "" : `hsl(${HUES[shade] || `${275 - 240 * share} 75% ${48 + 10 * share}%`} / ${alpha})`;
}

// The row after each of its calls, one object that changes. `order` are the slots, left to right; `all` has those just
// lost as well; tokens[slot] is there now, and wrote[slot] what last made it so, a list that goes back to the start.
function* states({ start, calls }) {
  const s = { call: 0, order: start.map((_, i) => i), tokens: start.slice(), wrote: [] };
  s.all = s.order;
  yield s;
  for (const [at, ids, sure, what, step, t, order] of calls) {
    s.call++;
    at.forEach((slot, n) => {
      s.tokens[slot] = ids[n];
      s.wrote[slot] = { call: s.call, id: ids[n], sure: sure[n], what: what[n], before: s.wrote[slot] };
    });
    s.all = order || s.order;
    s.order = order ? order.filter(slot => !lost(s.wrote[slot])) : s.order;
    yield s;
  }
}

function again(slot, w) {  // was a token here before this one?
  const { start } = row;
  for (w = w.before; w; w = w.before) if (w.what <= UNMASK) return true;
  return slot < start.length && start[slot] !== data.mask;
}

function shade(s, slot) {
  const w = s.wrote[slot], id = s.tokens[slot], { start, calls } = row;
  if (id > data.mask) return NONE;
  if (id === data.mask) return by !== "what" || !w ? NONE : w.what === INSERT ? GROWN : REMASKED;
  if (!w) return GIVEN;
  if (by === "what") return again(slot, w) ? AGAIN : slot >= start.length ? PLACED : WRITTEN;
  return Math.round((RAMP - 1) * (by === "call" ? (w.call - 1) / Math.max(1, calls.length - 1) : w.sure));
}

function story(slot) {  // all that became of it so far
  const s = shown, { start } = row, parts = [], place = s.order.indexOf(slot);
  for (let w = s.wrote[slot]; w; w = w.before) {
    const named = w.what <= UNMASK || (w.what === INSERT && w.id !== data.mask);
    const token = named ? ` ${quoted(w.id)}${w.what === INSERT ? "" : ` (${w.sure.toFixed(3)})`}` : "";
    parts.unshift(`${DID[w.what]}${token} by call ${w.call}`);
  }
  if (slot < start.length) {
    parts.unshift(start[slot] === data.mask ? "masked at the start" : `given ${quoted(start[slot])}`);
  }
  const here = place < 0 ? "not in the row" : `position ${place}, ${quoted(s.tokens[slot])}`;
  return `${here}: ${parts.join("; ") || "inserted later"}`;
}

function read() {
  row = data.rows[+get("row").value];
  by = get("colour").value;
  get("call").max = row.calls.length;
}

function show() {
  read();
  const { calls } = row, last = calls.length, call = now();
  for (shown of states(row)) if (shown.call === call) break;
  const s = shown, count = { 0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0 };
  while (spans.length > s.all.length) spans.pop().remove();
  while (spans.length < s.all.length) spans.push(get("canvas").appendChild(document.createElement("span")));
  s.all.forEach((slot, i) => {
    const span = spans[i], w = s.wrote[slot], id = s.tokens[slot], fresh = w && s.call && w.call === s.call;
    const mask = id === data.mask, marks = ["now", "now", "remasked", "inserted", "deleted", "deleted"];
    if (fresh) count[w.what]++;
    span.place = slot;
    span.textContent = fresh && w.what === INSERT && mask ? "+" : text(id);
    span.className = [mask ? "mask" : w ? "" : "given", fresh ? marks[w.what] : "", slot === picked ? "picked" : ""]
      .filter(Boolean).join(" ");
    const tint = lost(w) || shade(s, slot) === GIVEN ? "" : css(shade(s, slot), "var(--tint)");
    span.style.background = tint;
    span.style.color = mask && tint ? "inherit" : "";
  });
  const masks = s.order.filter(slot => s.tokens[slot] === data.mask).length;
  const step = s.call ? ` (step ${calls[s.call - 1][4]}, t = ${calls[s.call - 1][5]})` : "";
  const done = ["changed", "written", "remasked", "inserted", "deleted", "pushed off"]
    .map((name, what) => count[what] ? `${count[what]} ${name}` : "").filter(Boolean).join(", ");
  get("status").textContent =
    `call ${s.call} of ${last}${step} · ${done || "nothing changed"} · ${masks} of ${s.order.length} masked`;
  get("call").setAttribute("aria-valuetext", `call ${s.call} of ${last}`);
  get("token").textContent = picked === null ? "p, n or a click follow a token through the calls" : story(picked);
  get("low").textContent = by === "call" ? "call 1" : "confidence 0";
  get("high").textContent = by === "call" ? `call ${last}` : "1";
  get("ramp").hidden = by === "what";
  get("kinds").hidden = by !== "what";
  get("line").style.top = `${100 * (s.call + 0.5) / (last + 1)}%`;
  const wanted = [get("row").value, by, picked].join();
  if (drawn !== wanted) { drawn = wanted; draw(); }
}

function draw() {  // a line of pixels for the row after each call
  const map = get("map"), { calls, width } = row, lines = calls.length + 1;
  const ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  for (let i = 0; i <= PICKED; i++) {
    ink.fillStyle = i === PICKED ? getComputedStyle(document.body).color : css(i, i === GIVEN ? 0.35 : 0.85);
    ink.fillRect(i, 0, 1, 1);
  }
  const palette = new Uint32Array(ink.getImageData(0, 0, PICKED + 1, 1).data.buffer);
  map.width = Math.max(1, Math.min(width, 2048));
  map.height = Math.min(lines, 1024);
  map.style.height = `${Math.max(96, Math.min(420, 10 * lines))}px`;
  const image = map.getContext("2d").createImageData(map.width, map.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (const s of states(row)) {
    const y = Math.floor(s.call * map.height / lines) * map.width;
    pixels.fill(0, y, y + map.width);
    s.order.forEach((slot, i) => {
      const colour = slot === picked ? PICKED : shade(s, slot);
      if (colour !== NONE) pixels[y + Math.floor(i * map.width / width)] = palette[colour];
    });
  }
  map.getContext("2d").putImageData(image, 0, 0);
  get("axes").textContent = `Across: position 0 to ${width - 1}. Down: the row after call 0 to ${lines - 1}. ` +
    `Colour: as above, given tokens are grey${by === "what" ? "" : ", masks are blank"}.`;
  map.setAttribute("aria-label", get("axes").textContent);
}

function move(to) {
  get("call").value = to;
  show();
}

function change(select, step) {
  const length = select.options.length;
  select.selectedIndex = select.id === "row" ? Math.max(0, Math.min(length - 1, select.selectedIndex + step))
                                             : (select.selectedIndex + step) % length;
  select.onchange();
}

function pick(slot) {
  picked = slot;
  show();
}

function follow(step) {
  const { order } = shown, place = order.indexOf(picked);
  const next = place < 0 ? (step > 0 ? 0 : -1) : place + step;
  if (order.length) pick(order[(next + order.length) % order.length]);
}

function play() {
  const slider = get("call");
  if (timer) { clearInterval(timer); timer = null; }
  else {
    if (now() === +slider.max) move(0);
    const pause = Math.max(30, Math.min(400, 8000 / slider.max));
    timer = setInterval(() => now() < +slider.max ? move(now() + 1) : play(), pause);
  }
  get("status").setAttribute("aria-live", timer ? "off" : "polite");  // a reader is not told of every frame
  get("play").textContent = timer ? "⏸ pause" : "▶ play";
}

get("back").onclick = () => move(now() - 1);
get("on").onclick = () => move(now() + 1);
get("play").onclick = play;
get("call").oninput = get("colour").onchange = show;
get("row").onchange = () => pick(null);
get("canvas").onclick = ({ target }) => { if (target.place >= 0) pick(target.place === picked ? null : target.place); };
get("canvas").onmouseover = ({ target }) => { if (target.place >= 0) target.title = story(target.place); };
get("map").onclick = event => {
  const { width, height } = get("map").getBoundingClientRect(), { calls, width: length } = row;
  move(Math.floor(event.offsetY / height * (calls.length + 1)));
  const slot = shown.order[Math.floor(event.offsetX / width * length)];
  pick(slot === undefined ? null : slot);
};
const KEYS = {
  ArrowLeft: () => move(now() - 1), ArrowRight: () => move(now() + 1),
  Home: () => move(0), End: () => move(get("call").max),
  PageUp: () => change(get("row"), -1), PageDown: () => change(get("row"), 1), c: () => change(get("colour"), 1),
  p: () => follow(-1), n: () => follow(1), Escape: () => pick(null), " ": play,
};
document.onkeydown = event => {
  const { tagName } = event.target, act = KEYS[event.key];
  if (!act || tagName === "SELECT" || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === " " && tagName === "BUTTON") return;  // it presses the button
  event.preventDefault();
  act();
};
for (const [shade, name] of Object.entries(KINDS)) {
  const span = get("kinds").appendChild(document.createElement("span"));
  span.textContent = name;
  span.style.background = css(+shade, "var(--tint)");
}
document.querySelector(".scale").style.background =
  `linear-gradient(90deg, ${[0, 16, 32, 48, 63].map(i => css(i, 0.6)).join()})`;

function readAddress() {  // trace.html#row=0&call=12&colour=what
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name of ["row", "colour"]) {
    if ([...get(name).options].some(option => option.value === asked.get(name))) get(name).value = asked.get(name);
  }
  read();
  picked = null;
  move(asked.has("call") ? asked.get("call") : get("call").max);
}
window.onhashchange = readAddress;
matchMedia("(prefers-color-scheme: dark)").onchange = () => { drawn = ""; show(); };
readAddress();
"""

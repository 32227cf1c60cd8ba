"""A sampler's trace as a self-contained page: step through it and see when, how and how surely a token was written."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import jax
import numpy as np

from mdmjax.base import DELETE, Trace
from mdmjax.reports import viewer
from mdmjax.reports.history import provenance
from mdmjax.reports.theme import page

CUT = DELETE + 1  # what the page calls a position that was pushed beyond a full canvas


def trace_html(
    trace: Trace, strings: Sequence[str], *, title: str = "Sampler trace", summary: str = "", limit: int = 20_000_000
) -> str:
    """The page of a trace. `strings[v]` is the text of token v < V; V shows as a mask, V + 1 (PAD) as nothing.

    Its keys move through the denoiser calls, the rows and the tokens; `#row=1&call=12&colour=what` behind its address
    opens it there (row 1 is the second). It needs no server and no network.

    Size: 15 to 30 bytes for each (row, call, position) that the call writes, masks, inserts or deletes, and up to 6
    more for each position of a row at each call that inserts or deletes in it; what stands still costs nothing.
    ValueError where the data have more than `limit` bytes, for a trace without rows, for tokens beyond V + 1, and
    where `provenance` raises it.
    """
    trace = jax.tree.map(np.asarray, trace)
    vocab, count = len(strings), trace.tokens.shape[1]
    if not count:
        raise ValueError("the trace has no rows")
    if not 0 <= trace.tokens.min() <= trace.tokens.max() <= vocab + 1:
        wrong = trace.tokens.min() if trace.tokens.min() < 0 else trace.tokens.max()
        raise ValueError(f"the trace has token {wrong}, and strings for 0..{vocab - 1}, so that {vocab} is the mask")
    rows: list[str] = []
    size = 0
    for b in range(count):
        rows.append(_json(_row(trace, b)))
        size += len(rows[-1])
        if size > limit:
            fewer = f"leave some out, as jax.tree.map(lambda x: x[:, :{b}], trace) does" if b else "cut it into parts"
            raise ValueError(f"{b + 1} of {count} rows alone make {size} bytes, and the limit is {limit}: {fewer}")
    texts = _json({v: strings[v] for v in np.unique(trace.tokens).tolist() if v < vocab})
    # Inside <script> the text ends at the first "</script": no "<" is left to begin one.
    payload = f'{{"mask":{vocab},"strings":{texts},"rows":[{",".join(rows)}]}}'.replace("<", "\\u003c")
    options = "".join(f"<option value={b}>{b + 1}</option>" for b in range(count))
    body = f"""<header><h1>{escape(title)}</h1>{f'<p class="lead">{escape(summary)}</p>' if summary else ""}</header>
{viewer.BODY.replace("<!--rows-->", options)}
<script id="data" type="application/json">{payload}</script>
<script>{viewer.SCRIPT}</script>"""
    return page(title, body, viewer.STYLE)


def _json(value) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _row(trace: Trace, row: int) -> dict[str, Any]:
    """A row's start, and of each call what changed: [slots, tokens, confidences, operations, step, t], all sparse.

    A call that inserts or deletes has a seventh part: the slots of the row in order, those inserted or lost by it too.
    """
    past, tokens, operations = provenance(trace, row), trace.tokens[:, row], trace.operations[:, row]
    calls = []
    for n, c in enumerate(past.calls):
        before, after = past.slots[n], past.slots[n + 1]
        at = np.flatnonzero(past.written[n + 1] == n + 1)
        lost = np.flatnonzero((before >= 0) & ~np.isin(before, after))
        changes = [
            [*after[at].tolist(), *before[lost].tolist()],
            [*tokens[c + 1][at].tolist(), *tokens[c][lost].tolist()],
            [*past.confidence[n + 1][at].round(4).tolist(), *[0.0] * len(lost)],
            [*past.operations[n + 1][at].tolist(), *np.where(operations[c][lost] == DELETE, DELETE, CUT).tolist()],
            int(trace.steps[c, row]),
            round(float(trace.times[c, row]), 4),
        ]
        if lost.size or not np.array_equal(before >= 0, after >= 0):
            order = past.orders[n]
            seen = np.isin(order, before) | np.isin(order, after)  # what a full canvas had no room for was never there
            changes.append(order[seen].tolist())
        calls.append(changes)
    width = int((past.slots >= 0).sum(1).max())
    return {"start": tokens[0][past.slots[0] >= 0].tolist(), "calls": calls, "width": width}

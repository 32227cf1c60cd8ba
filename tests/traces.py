"""Random traces that insert and delete."""

import numpy as np

from mdmjax.base import DELETE, INSERT, KEEP, REMASK, UNMASK, Trace

V = 5
MASK, PAD = V, V + 1


def edited(rng, calls, size):
    """A random trace of one row made on lists of cells, and those lists: each cell knows what last became of it."""
    fresh = iter(range(10**6))
    row = [dict(slot=next(fresh), token=int(rng.integers(V + 1)), written=0, did=KEEP, sure=0.0) for _ in range(3)]
    trace = dict(tokens=[], confidence=[], operations=[], inserted=[])
    states, orders = [[dict(cell) for cell in row]], []
    for call in range(1, calls + 1):
        trace["tokens"].append([cell["token"] for cell in row])
        done, sure, behind, after, order = [], [], [], [], []
        for cell in row:
            operation = rng.choice([KEEP, UNMASK, REMASK, INSERT, DELETE], p=[0.5, 0.2, 0.1, 0.1, 0.1])
            confidence = round(float(rng.random()), 3) if operation == UNMASK else 0.0
            order.append(cell["slot"])
            if operation in (UNMASK, REMASK):
                token = int(rng.integers(V)) if operation == UNMASK else MASK
                cell = dict(cell, token=token, written=call, did=operation, sure=confidence)
            if operation != DELETE:
                after.append(cell)
            count = int(rng.choice([0, 1, 2], p=[0.8, 0.15, 0.05]))
            for _ in range(count):
                token = MASK if rng.random() < 0.7 else int(rng.integers(V))  # edit flows insert tokens
                after.append(dict(slot=next(fresh), token=token, written=call, did=INSERT, sure=0.0))
                order.append(after[-1]["slot"])
            done, sure, behind = [*done, operation], [*sure, confidence], [*behind, count]
        row = after[:size]  # what does not fit is lost
        for name, part in (("operations", done), ("confidence", sure), ("inserted", behind)):
            trace[name].append(part)
        states.append([dict(cell) for cell in row])
        orders.append(order)
    trace["tokens"].append([cell["token"] for cell in row])

    def padded(rows, fill, dtype=int):
        return np.array([[*row, *[fill] * (size - len(row))] for row in rows], dtype)[:, None]

    steps = np.arange(calls)[:, None]
    tokens, confidence = padded(trace["tokens"], PAD), padded(trace["confidence"], 0.7, float)
    operations, inserted = padded(trace["operations"], UNMASK), padded(trace["inserted"], 4)
    lengths = np.array([len(state) for state in states])[:, None]
    return Trace(tokens, confidence, operations, steps, steps / calls, inserted, lengths), states, orders

"""Where the tokens of a trace come from: what last changed each, also where insertions and deletions move it."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from mdmjax.base import DELETE, INSERT, KEEP, REMASK, UNMASK, Trace


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The history of one row: C calls served it, so it has C1 = C + 1 states.

    A slot is a place that a token or a mask keeps for as long as it lives, wherever it is moved. The slots of the start
    are 0, 1, ... in order; those inserted go on from there, call by call and from left to right. Beyond the row's
    length everything is -1, and the confidence 0.
    """

    calls: Int[np.ndarray, "C"]  # the slice of the trace that holds each call
    slots: Int[np.ndarray, "C1 L"]  # the slot at each position
    written: Int[np.ndarray, "C1 L"]  # the call, from 1, that last wrote, masked or inserted it; 0: as at the start
    operations: Int[np.ndarray, "C1 L"]  # what that call did: UNMASK, REMASK or INSERT (KEEP if it did not say)
    confidence: Float[np.ndarray, "C1 L"]  # and how surely
    orders: tuple[Int[np.ndarray, "_"], ...]  # of each call: the slots before it and those it inserts, in order


def provenance(trace: Trace, row: int) -> Provenance:
    """Follows the tokens of a row through its states: four integers or floats for each state and position.

    A position that is kept moves to (kept positions before it) + (insertions before it). ValueError for a trace that
    inserts or deletes and has no `lengths`, or whose `lengths` are not those that its operations lead to.
    """
    tokens, confidence, operations, steps = (
        np.asarray(part)[:, row] for part in (trace.tokens, trace.confidence, trace.operations, trace.steps)
    )
    size = tokens.shape[1]
    inserted = np.zeros_like(operations) if trace.inserted is None else np.asarray(trace.inserted)[:, row]
    if trace.lengths is None and (inserted.any() or (operations == DELETE).any()):
        raise ValueError("the trace inserts or deletes and has no lengths: give it lengths [T + 1, B]")
    lengths = np.full(len(tokens), size) if trace.lengths is None else np.asarray(trace.lengths)[:, row]

    calls = np.flatnonzero(steps >= 0)  # afterwards the row stands still
    slots, written, done = (np.full((len(calls) + 1, size), -1, np.int32) for _ in range(3))
    sure = np.zeros(slots.shape)
    slots[0, : lengths[0]] = np.arange(lengths[0])
    written[0, : lengths[0]], done[0, : lengths[0]] = 0, KEEP
    orders, fresh = [], lengths[0]
    for n, c in enumerate(calls):
        before, after = lengths[c], lengths[c + 1]
        behind = inserted[c, :before]
        home = np.arange(before) + np.cumsum(behind) - behind  # the place of each old position among old and new
        source = np.full(before + behind.sum(), -1)
        source[home] = np.arange(before)
        new = source < 0
        order = np.where(new, fresh + np.cumsum(new) - 1, slots[n, source])
        stays = np.ones(len(order), bool)
        stays[home] = operations[c, :before] != DELETE
        if min(stays.sum(), size) != after:
            raise ValueError(f"row {row}, call {c} leads to {stays.sum()} tokens, and lengths[{c + 1}] is {after}")
        fresh += new.sum()
        orders.append(order)

        slots[n + 1, :after] = order[stays][:after]
        source, new = source[stays][:after], new[stays][:after]
        operation = np.where(new, INSERT, operations[c, source])
        operation[(operation == INSERT) & ~new] = KEEP
        touched = new | np.isin(operation, (UNMASK, REMASK)) | (tokens[c + 1, :after] != tokens[c, source])
        written[n + 1, :after] = np.where(touched, n + 1, written[n, source])
        done[n + 1, :after] = np.where(touched, operation, done[n, source])
        certainty = np.where(new, 0, np.nan_to_num(confidence[c, source].astype(float)))
        sure[n + 1, :after] = np.where(touched, certainty, sure[n, source])
    return Provenance(calls, slots, written, done, sure, tuple(orders))

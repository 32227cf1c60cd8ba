"""Exact output laws of the samplers, for a table denoiser: the twins of `mdmjax.sampling`, in float64 on the host.

A sampler is a product of transitions between the S = (V+1)^L partially masked sequences (`mdmjax.analysis.tables`); its
law is the start state times the product. Cost S^2 a step: for S up to a few hundred. Laws have the shape [V] * L.
"""

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Array, Float

from mdmjax.analysis.tables import all_states

Table = Float[Array, "S L V"] | Float[np.ndarray, "S L V"]
Law = Float[np.ndarray, "..."]


def first_hitting_law(table: Table, start: Sequence[int] | None = None) -> Law:
    """One token a step, the position uniform among the masks: the average over all orders of revealing.

    `start` [L] is the sequence that is completed, the mask being V; all masks if not given. So for all laws below.
    """
    reveal, count, masks = _reveals(table)
    step = np.where(count == 1, reveal, 0) / np.maximum(masks, 1)[:, None] + _finished(masks)
    return _law(table, start, itertools.repeat(step, table.shape[1]))


def left_to_right_law(table: Table, start: Sequence[int] | None = None) -> Law:
    """One token a step, always the leftmost mask."""
    reveal, count, masks = _reveals(table)
    states = all_states(*table.shape[1:])
    hidden = states == table.shape[2]
    first = hidden & (np.cumsum(hidden, 1) == 1)
    allowed = (count == 1) & ((hidden[:, None] & ~hidden[None]) <= first[:, None]).all(2)
    return _law(table, start, itertools.repeat(np.where(allowed, reveal, 0) + _finished(masks), table.shape[1]))


def ancestral_law(
    table: Table, hidden: Sequence[float] | Float[np.ndarray, "T1"], start: Sequence[int] | None = None
) -> Law:
    """The T-step reverse chain: at step k each mask is revealed with probability 1 - hidden[k+1] / hidden[k].

    `hidden` [T+1] is 1 - alpha on the grid, from 1 down to 0. All tokens of a step are drawn from the state before it.
    """
    reveal, count, masks = _reveals(table)
    stay = np.maximum(masks[:, None] - count, 0)
    return _law(table, start, (reveal * u**count * (1 - u) ** stay for u in step_hazards(hidden)))


def step_hazards(hidden: Sequence[float] | Float[np.ndarray, "T1"]) -> Float[np.ndarray, "T"]:
    """u_k = 1 - hidden[k+1] / hidden[k]; 1 where hidden[k] = 0 and nothing is left to reveal."""
    hidden = np.asarray(hidden, np.float64)
    return 1 - hidden[1:] / np.where(hidden[:-1] > 0, hidden[:-1], 1)


def random_count_law(table: Table, counts: Sequence[int], start: Sequence[int] | None = None) -> Law:
    """Step k reveals counts[k] of the masks, chosen uniformly. The counts add up to the masks of the start."""
    reveal, count, masks = _reveals(table)
    ways = np.array([[math.comb(m, k) for k in range(masks.max() + 1)] for m in masks])
    return _law(table, start, (np.where(count == k, reveal, 0) / np.maximum(ways[:, [k]], 1) for k in counts))


def confidence_law(table: Table, counts: Sequence[int], start: Sequence[int] | None = None, *, tie: float) -> Law:
    """Step k draws a token at every mask and keeps the counts[k] most probable ones.

    Of equal ones it keeps the leftmost; neighbours in the order of size whose ratio is at least 1 - `tie` are equal.
    """
    length, vocab = table.shape[1:]
    states, p = all_states(length, vocab), _softmax(table)
    places = (vocab + 1) ** np.arange(length)[::-1]

    def transition(k: int) -> np.ndarray:
        step = np.zeros((len(states), len(states)))
        for s, state in enumerate(states):
            masks = np.flatnonzero(state == vocab)
            if len(masks) < k:
                continue  # not reached
            for drawn in itertools.product(range(vocab), repeat=len(masks)):
                confidence = p[s, masks, drawn]
                order = np.argsort(-confidence, kind="stable")
                smaller = confidence[order[1:]] < (1 - tie) * confidence[order[:-1]]
                kept = order[np.lexsort((order, np.cumsum([0, *smaller])))][:k]
                after = state.copy()
                after[masks[kept]] = np.array(drawn)[kept]
                step[s, after @ places] += confidence.prod()
        return step

    return _law(table, start, (transition(k) for k in counts))


def total_variation(p: Law, q: Law) -> float:
    """Half the L1 distance of two laws, in [0, 1]."""
    return float(np.abs(p - q).sum() / 2)


def _softmax(table: Table) -> np.ndarray:
    logits = np.asarray(table, np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def _reveals(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(probability [S, S] that state s turns into s' given which masks are revealed, how many those are, masks [S])."""
    length, vocab = table.shape[1:]
    states, p = all_states(length, vocab), _softmax(table)
    reveal, count = np.ones((len(states),) * 2), np.zeros((len(states),) * 2, int)
    for i in range(length):
        before, after = states[:, i][:, None], states[:, i][None]
        shown = (before == vocab) & (after != vocab)
        tokens = p[:, i][:, np.minimum(states[:, i], vocab - 1)]
        reveal *= np.where(shown, tokens, before == after)
        count += shown
    return reveal, np.where(reveal > 0, count, 0), (states == vocab).sum(1)


def _finished(masks: np.ndarray) -> np.ndarray:
    return np.diag((masks == 0).astype(float))


def _law(table: Table, start: Sequence[int] | None, transitions: Iterable[np.ndarray]) -> Law:
    length, vocab = table.shape[1:]
    start = (vocab,) * length if start is None else tuple(start)
    if len(start) != length or not all(0 <= x <= vocab for x in start):
        raise ValueError(f"start {start}: must be {length} tokens in 0..{vocab}, the mask being {vocab}")
    law = np.zeros((vocab + 1,) * length)
    law[start] = 1
    law = law.ravel()
    for transition in transitions:
        law = law @ transition
    return law.reshape((vocab + 1,) * length)[(slice(vocab),) * length]

"""Every planner of the library, for the tests that all must pass, with its exact law at L = 4 where it has one.

The laws of heuristics are those of small references that are written here anew: rules on what was drawn, in float64.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdmjax.analysis import planner_laws as chains
from mdmjax.analysis import sampler_laws as laws
from mdmjax.analysis.tables import random_table
from mdmjax.base import Planner
from mdmjax.process import Cosine, Linear, OnGrid, SineSquared
from mdmjax.sampling import (
    Ancestral,
    Blocks,
    Cap,
    Confidence,
    DrawnOrder,
    Factor,
    FirstHitting,
    InformedCorrector,
    LeftToRight,
    Loop,
    PathPlanning,
    PredictorCorrector,
    RandomCount,
    ReMDM,
    Rescale,
    Threshold,
    scores,
)

V, L = 3, 4
TABLE = np.asarray(random_table(jax.random.key(4), L, V))
ALL, PROMPTED = (V,) * L, (V, 1, V, V)
WEIGHTS = (1.5, -2.0, 0.0, 0.5)
LOOP = Loop(0.7, 0.2, 0.6)


class Case(NamedTuple):
    planner: Planner
    law: Callable | None = None  # law(start) at L = 4, for TABLE
    mask_one: bool = False  # the denoiser must be `MaskOne`
    takes_back: bool = False  # tokens change after they were written
    time: Callable | None = None  # time(step, masks of the start), given to the denoiser


def hidden(steps):
    """1 - alpha of the sine squared schedule on its grid."""
    return np.sin(np.pi / 2 * np.arange(steps, -1, -1) / steps) ** 2


# ---- references: rules of planners that look at what was drawn


def surest(state, score, count):
    """The `count` masks of greatest score, of equal ones the leftmost."""
    masks = [i for i in range(L) if state[i] == V]
    return sorted(masks, key=lambda i: (-score[i], i))[:count]


def reveal(state, drawn, chosen):
    return [drawn[i] if i in chosen else state[i] for i in range(L)]


def probability(drawn, p):
    return [p[i, drawn[i]] if drawn[i] < V else 0.0 for i in range(L)]


def by_score(counts, score=probability):
    """Step k reveals counts[k] positions, the surest by score(drawn, p)."""
    return [
        chains.proposals(TABLE, lambda state, drawn, p, k=k: reveal(state, drawn, surest(state, score(drawn, p), k)))
        for k in counts
    ]


def margin(drawn, p):
    top = np.sort(p, 1)
    return top[:, -1] - top[:, -2]


def negative_entropy(drawn, p):
    return (p * np.log(p)).sum(1)


def eager(number):
    """As many of the surest as `number(their probabilities, in descending order)`, at least one, up to L times."""

    def rule(state, drawn, p):
        score = probability(drawn, p)
        order = surest(state, score, L)
        return reveal(state, drawn, order[: max(1, number([score[i] for i in order]))])

    return [chains.proposals(TABLE, rule)] * L


def over(threshold):
    return lambda c: sum(x >= threshold for x in c)


def within(factor):
    return lambda c: max((n for n in range(1, len(c) + 1) if (n + 1) * (1 - c[n - 1]) < factor), default=0)


JUDGE = jax.nn.log_softmax(random_table(jax.random.key(5), L, V))


def judge(tokens):
    """log p of each token by another table, which sees itself there; padding reads as token 0."""
    tokens = jnp.where(tokens > V, 0, tokens)
    rows = JUDGE[(tokens * (V + 1) ** jnp.arange(L)[::-1][None]).sum(1)]
    return jnp.take_along_axis(rows, jnp.minimum(tokens, V - 1)[..., None], 2)[..., 0]


def path(kept, start, eta, judged=False):
    """Step k keeps the kept[k] best: log p of a drawn token, eta log p of one that is there; eta inf: those last.

    Judged: that of a token by the other table, where all drawn ones stand.
    """
    free = [i for i in range(L) if start[i] == V]

    def value(state, drawn, p, i):
        if state[i] == V:
            return 0, math.log(p[i, drawn[i]])
        if judged:
            full = [d if x == V else x for d, x in zip(drawn, state, strict=True)]
            return 0, eta * float(JUDGE[np.ravel_multi_index(full, (V + 1,) * L), i, state[i]])
        return (-1, math.log(p[i, state[i]])) if eta == math.inf else (0, eta * math.log(p[i, state[i]]))

    def rule(state, drawn, p, k):
        if V not in state:
            return state
        best = sorted(free, key=lambda i: (*(-x for x in value(state, drawn, p, i)), i))[:k]
        return [(drawn[i] if i in best else V) if i in free else state[i] for i in range(L)]

    return [chains.proposals(TABLE, functools.partial(rule, k=k)) for k in kept]


def remdm(start, alphas, sigma, by_confidence=False):
    """Steps along `alphas` with masking rates sigma(k, largest), the rates of revealing by the formula of the paper."""
    kernels = []
    for k, (a, b) in enumerate(zip(alphas[:-1], alphas[1:], strict=True)):
        s = sigma(k, min(1, (1 - b) / a) if a else 1) if a else 0.0
        r = (b - (1 - (0 if by_confidence else s)) * a) / (1 - a)
        kernels.append(chains.remasking(TABLE, start, s, min(r, 1.0), by_confidence))
    return kernels


def orders(start, weights):
    """One position a step, drawn by weight among the masks."""
    chosen = lambda state: chains.plackett_luce_sets({i: weights[i] for i in range(L) if state[i] == V}, 1)
    return [chains.at_once(TABLE, chosen)] * start.count(V)


def corrected(start, count, temperature):
    """From the left, and a sweep after each."""
    left = chains.at_once(TABLE, lambda state: [((state.index(V),), 1.0)])
    return [left, chains.informed_sweep(TABLE, start, count, temperature)] * start.count(V)


def corrected_blocks(start):
    """Two blocks of two positions, each filled at once and then swept by itself."""
    kernels = []
    for block in ((0, 1), (2, 3)):
        masks = tuple(i for i in block if start[i] == V)
        inside = tuple(V if i in masks else 0 for i in range(L))
        fill = chains.at_once(TABLE, lambda state, masks=masks: [(masks, 1.0)])
        kernels += [fill, chains.informed_sweep(TABLE, inside, 1, 1.0)] if masks else []
    return kernels


def remdm_blocks(start):
    """Two blocks of two positions, each filled and taken back by itself, in three steps."""
    kernels = []
    for block in ((0, 1), (2, 3)):
        inside = tuple(start[i] if i in block else 0 for i in range(L))
        whole = remdm(inside, [0, 1 / 3, 2 / 3, 1], lambda k, most: min(0.6, most)) if V in inside else []
        kernels += [functools.partial(only, block, kernel) for kernel in whole]
    return kernels


def only(block, kernel, state):
    """What the kernel, in which positions are independent, does in the block alone."""
    return [(tuple(new[i] if i in block else state[i] for i in range(L)), p) for new, p in kernel(state)]


def one_by_one_in_blocks(start):
    """Two blocks of two positions, each from its surest on."""

    def rule(state, drawn, p, block):
        masks, score = [i for i in block if state[i] == V], probability(drawn, p)
        return reveal(state, drawn, [max(masks, key=lambda i: (score[i], -i))])

    blocks = [block for block in ((0, 1), (2, 3)) for i in block if start[i] == V]
    return [chains.proposals(TABLE, functools.partial(rule, block=block)) for block in blocks]


def of(kernels):
    """The law of kernels(start)."""
    return lambda start: chains.chain_law(TABLE, kernels(start), start)


def confident(start):
    """By confidence a state also has the probabilities of its tokens when they were written."""
    steps = remdm(start, [0, 1 / 3, 2 / 3, 1], lambda k, most: most, True)
    return chains.chain_law(TABLE, steps, (*start, *[0.0] * L))


def split(total, steps):
    return np.diff(np.round(total * np.arange(steps + 1) / steps)).astype(int).tolist()


LINEAR = [k / 4 for k in range(5)]
SWEPT = [0, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 1]  # three steps, and two sweeps after each but the last
LOOPED = [0, 0.4, 0.6, 0.6, 0.6, 1]  # five steps: alpha rises, stands, and rises


def open_of(start):
    return start.count(V)


def on_grid(steps):
    """1 - k / T."""
    return lambda step, masks: 1 - step / steps


def by_share(step, masks):
    """Where the cosine schedule has the share of masks that there is, one position a step."""
    return np.arcsin(np.clip(1 - step / np.maximum(masks, 1), 0, 1)) / (np.pi / 2)


CASES: dict[str, Case] = {
    "first-hitting": Case(FirstHitting(Cosine()), lambda s: laws.first_hitting_law(TABLE, s)),
    "left to right": Case(LeftToRight(Cosine()), lambda s: laws.left_to_right_law(TABLE, s), time=by_share),
    "drawn order": Case(DrawnOrder(WEIGHTS, Cosine()), of(lambda s: orders(s, np.exp(WEIGHTS)))),
    "ancestral, few steps": Case(
        Ancestral(SineSquared(), 3), lambda s: laws.ancestral_law(TABLE, hidden(3), s), time=on_grid(3)
    ),
    "ancestral, many steps": Case(Ancestral(SineSquared(), 1000), time=on_grid(1000)),
    "random count": Case(RandomCount(Linear(), 3), lambda s: laws.random_count_law(TABLE, split(open_of(s), 3), s)),
    "given counts": Case(
        RandomCount(OnGrid.budget((1, 0, 3)), 3), lambda s: laws.random_count_law(TABLE, (1, 0, open_of(s) - 1), s)
    ),
    "confidence": Case(Confidence(Linear(), 3), of(lambda s: by_score(split(open_of(s), 3))), time=on_grid(3)),
    "confidence, many steps": Case(
        Confidence(Cosine(), 50), of(lambda s: by_score([1] * open_of(s))), time=on_grid(50)
    ),
    "margin": Case(Confidence(Linear(), 3, score=scores.margin), of(lambda s: by_score(split(open_of(s), 3), margin))),
    "entropy": Case(
        Confidence(Linear(), 3, score=scores.negative_entropy),
        of(lambda s: by_score(split(open_of(s), 3), negative_entropy)),
    ),
    "threshold": Case(Threshold(0.5, Cosine()), of(lambda s: eager(over(0.5)))),
    "factor": Case(Factor(1.5), of(lambda s: eager(within(1.5)))),
    "path planning": Case(
        PathPlanning(Linear(), 3, 1.5), of(lambda s: path(np.cumsum(split(open_of(s), 3)), s, 1.5)), takes_back=True
    ),
    "path planning, judged": Case(
        PathPlanning(Linear(), 3, 1.5, judge=judge),
        of(lambda s: path(np.cumsum(split(open_of(s), 3)), s, 1.5, judged=True)),
        takes_back=True,
    ),
    "path planning, eta 0": Case(PathPlanning(Linear(), 3, 0.0), of(lambda s: by_score(split(open_of(s), 3)))),
    "path planning, eta inf": Case(
        PathPlanning(Linear(), 3, math.inf),
        of(lambda s: path(np.cumsum(split(open_of(s), 3)), s, math.inf)),
        takes_back=True,
    ),
    "remdm, cap": Case(
        ReMDM(Linear(), 4, Cap(0.4)), of(lambda s: remdm(s, LINEAR, lambda k, m: min(0.4, m))), takes_back=True
    ),
    "remdm, rescale": Case(
        ReMDM(Linear(), 4, Rescale(0.7)), of(lambda s: remdm(s, LINEAR, lambda k, m: 0.7 * m)), takes_back=True
    ),
    "remdm, no rate": Case(
        ReMDM(SineSquared(), 3, Cap(0.0)), lambda s: laws.ancestral_law(TABLE, hidden(3), s), takes_back=True
    ),
    "remdm, by confidence": Case(ReMDM(Linear(), 3, Cap(1.0), by_confidence=True), confident, takes_back=True),
    "remdm, loop": Case(
        ReMDM(Linear(), 5, Cap(0.5), loop=LOOP),
        of(lambda s: remdm(s, LOOPED, lambda k, m: min(0.5, m) if k in (2, 3) else 0.0)),
        takes_back=True,
    ),
    "predictor, corrector": Case(
        PredictorCorrector(Linear(), 3, 2, Cap(0.3)),
        of(lambda s: remdm(s, SWEPT, lambda k, m: min(0.3, m) if k % 3 else 0.0)),
        takes_back=True,
    ),
    "informed corrector": Case(
        InformedCorrector(LeftToRight(), 2, temperature=0.7),
        of(lambda s: corrected(s, 2, 0.7)),
        mask_one=True,
        takes_back=True,
    ),
    "blocks": Case(Blocks(Confidence(Linear(), 2), 2), of(one_by_one_in_blocks)),
    "blocks of informed": Case(
        Blocks(InformedCorrector(Confidence(Linear(), 1)), 2), of(corrected_blocks), mask_one=True, takes_back=True
    ),
    "blocks of remdm": Case(Blocks(ReMDM(Linear(), 3, Cap(0.6)), 2), of(remdm_blocks), takes_back=True),
}

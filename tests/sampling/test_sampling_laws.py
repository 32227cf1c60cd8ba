"""The engine against the exact law of each planner by enumeration: V = 3, L = 3 (and 4), random denoiser tables.

Chi-square of 200,000 rows sampled in one jitted call against the law of `mdmjax.analysis.sampler_laws`, with fixed
keys; p > 1e-4 is asked for.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mdmjax.analysis import sampler_laws as laws
from mdmjax.analysis.tables import random_table, table_denoiser
from mdmjax.process import Linear, SineSquared
from mdmjax.sampling import (
    Ancestral,
    Blocks,
    Confidence,
    DrawnOrder,
    FirstHitting,
    LeftToRight,
    RandomCount,
    TokenDraw,
    sample,
)

V, N, P_MIN = 3, 200_000, 1e-4
TABLES = {length: np.asarray(random_table(jax.random.key(length), length, V)) for length in (3, 4)}
ALL, PROMPTED = (V, V, V), (V, 1, V)


def hidden(name, steps):
    t = np.arange(steps, -1, -1) / steps
    return {"linear": t, "sine squared": np.sin(np.pi / 2 * t) ** 2}[name]


@functools.partial(jax.jit, static_argnames=("planner", "options"))
def count(key, tokens, planner, options):
    length = tokens.shape[1]
    out = sample(table_denoiser(TABLES[length]), planner, tokens, vocab=V, key=key, **dict(options)).tokens
    return jnp.bincount((out * jnp.asarray(V ** np.arange(length)[::-1])[None]).sum(1), length=V**length)


def counts(planner, start, options=(), seed=0):
    """How often each of the V^L sequences comes out."""
    return np.asarray(count(jax.random.key(seed), jnp.tile(jnp.array(start)[None], (N, 1)), planner, options))


def check(planner, law, start=ALL, options=()):
    law = law.ravel()
    observed = counts(planner, start, options)
    assert observed[law == 0].sum() == 0
    assert stats.chisquare(observed[law > 0], law[law > 0] * N).pvalue > P_MIN


confidence_law = functools.partial(laws.confidence_law, tie=Confidence(Linear(), 1).tie)

CASES = {
    "first-hitting": (FirstHitting(), laws.first_hitting_law, ()),
    "left to right": (LeftToRight(), laws.left_to_right_law, ()),
    "drawn order, equal weights": (DrawnOrder((0.0, 0.0, 0.0)), laws.first_hitting_law, ()),
    "ancestral T=4": (Ancestral(Linear(), 4), laws.ancestral_law, (hidden("linear", 4),)),
    "ancestral T=5": (Ancestral(SineSquared(), 5), laws.ancestral_law, (hidden("sine squared", 5),)),
    "ancestral T=4096": (Ancestral(SineSquared(), 4096), laws.ancestral_law, (hidden("sine squared", 4096),)),
    "random count": (RandomCount(Linear(), 2), laws.random_count_law, ([2, 1],)),
    "confidence": (Confidence(Linear(), 2), confidence_law, ([2, 1],)),
}


@pytest.mark.parametrize("case", CASES)
def test_law(case):
    planner, law, arguments = CASES[case]
    check(planner, law(TABLES[3], *arguments))


def test_law_given_a_prompt():
    planner, law, arguments = CASES["ancestral T=4"]
    check(planner, law(TABLES[3], *arguments, PROMPTED), PROMPTED)


def test_law_at_length_four():
    check(Confidence(SineSquared(), 2), confidence_law(TABLES[4], [2, 2]), (V,) * 4)


def test_law_of_blocks():
    """Two positions at once, then the other two given them."""
    p = np.exp(TABLES[4].astype(np.float64)).reshape((V + 1,) * 4 + (4, V))
    p /= p.sum(-1, keepdims=True)
    law = np.einsum("a,b,abc,abd->abcd", *p[V, V, V, V, :2], p[:V, :V, V, V, 2], p[:V, :V, V, V, 3])
    check(Blocks(RandomCount(Linear(), 1), 2), law, (V,) * 4)


def test_law_with_few_positions_asked_and_the_fallback():
    """capacity 1: the readout is asked at one position, and at all of them by the fallback where a row needs more."""
    check(Ancestral(Linear(), 4), laws.ancestral_law(TABLES[3], hidden("linear", 4)), ALL, (("capacity", 1),))


def test_law_with_temperature_and_top_p():
    logits = TABLES[3].astype(np.float64) / 0.7
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    order = np.argsort(-p, -1)
    mass_before = np.cumsum(np.take_along_axis(p, order, -1), -1) - np.take_along_axis(p, order, -1)
    kept = np.take_along_axis(mass_before < 0.8, np.argsort(order, -1), -1)
    with np.errstate(divide="ignore"):
        cut = np.where(kept, logits, -np.inf)
    draw = (("draw", TokenDraw(temperature=0.7, top_p=0.8)),)
    check(FirstHitting(), laws.first_hitting_law(cut), ALL, draw)


def test_the_check_can_fail():
    """Ancestral sampling in 4 steps is not first-hitting: the same chi-square tells them apart at once."""
    observed = counts(Ancestral(Linear(), 4), ALL)
    law = laws.first_hitting_law(TABLES[3]).ravel()
    assert stats.chisquare(observed, law * N).pvalue < 1e-9

"""The engine against the exact law of each planner by enumeration: V = 3, L = 4 (and 3), random denoiser tables.

Chi-square of 40,000 rows sampled in one jitted call against the laws of two starts, with fixed keys; p > 1e-4 is asked
for.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planner_cases import CASES, TABLE
from scipy import stats

from mdmjax.analysis import sampler_laws as laws
from mdmjax.analysis.tables import all_states, random_table, table_denoiser, true_conditionals
from mdmjax.process import Linear, SineSquared
from mdmjax.sampling import (
    Ancestral,
    Blocks,
    FirstHitting,
    Guided,
    InformedCorrector,
    LeftToRight,
    MaskOne,
    RandomCount,
    TokenDraw,
    sample,
)

V, N, P_MIN = 3, 40_000, 1e-4
TABLES = {3: np.asarray(random_table(jax.random.key(3), 3, V)), 4: TABLE}
ALL, PROMPTED = (V,) * 3, (V, 1, V)


def hidden(name, steps):
    t = np.arange(steps, -1, -1) / steps
    return {"linear": t, "sine squared": np.sin(np.pi / 2 * t) ** 2}[name]


@functools.partial(jax.jit, static_argnames=("planner", "options"))
def count(key, tokens, planner, options):
    """How often each of the V^L sequences comes out: of the first half of the rows, and of the second."""
    length, options = tokens.shape[1], dict(options)
    denoiser = options.pop("around", lambda denoiser: denoiser)(table_denoiser(TABLES[length]))
    planner = CASES[planner].planner if isinstance(planner, str) else planner
    out = sample(denoiser, planner, tokens, vocab=V, key=key, **options).tokens
    cells = (out * jnp.asarray(V ** np.arange(length)[::-1])[None]).sum(1).reshape(2, -1)
    return jax.vmap(functools.partial(jnp.bincount, length=V**length))(cells)


def counts(planner, starts, options=(), rows=N):
    """[2, V^L]: how often each sequence comes out of each of two starts, by half of the rows each."""
    tokens = jnp.repeat(jnp.array(starts), rows // 2, axis=0)
    return np.asarray(count(jax.random.key(0), tokens, planner, options))


def check(planner, laws, starts=(ALL, ALL), options=(), rows=N):
    for observed, law in zip(counts(planner, starts, options, rows), laws, strict=True):
        law = law.ravel()
        assert observed[law == 0].sum() == 0
        assert stats.chisquare(observed[law > 0], law[law > 0] * rows / 2).pvalue > P_MIN


def mask_one(denoiser):
    return MaskOne(denoiser, V)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.law])
def test_law(name):
    """From all masks, and of what a prompt leaves open."""
    case, starts = CASES[name], ((V,) * 4, (V, 1, V, V))
    check(name, [case.law(s) for s in starts], starts, (("around", mask_one),) if case.mask_one else ())


def test_law_of_many_steps():
    check(Ancestral(SineSquared(), 4096), [laws.ancestral_law(TABLES[3], hidden("sine squared", 4096))] * 2)


def test_law_of_blocks():
    """Two positions at once, then the other two given them."""
    p = np.exp(TABLES[4].astype(np.float64)).reshape((V + 1,) * 4 + (4, V))
    p /= p.sum(-1, keepdims=True)
    law = np.einsum("a,b,abc,abd->abcd", *p[V, V, V, V, :2], p[:V, :V, V, V, 2], p[:V, :V, V, V, 3])
    check(Blocks(RandomCount(Linear(), 1), 2), [law] * 2, ((V,) * 4,) * 2)


def test_law_with_few_positions_asked_and_the_fallback():
    """capacity 1: the readout is asked at one position, and at all of them by the fallback where a row needs more."""
    law = laws.ancestral_law(TABLES[3], hidden("linear", 4))
    check(Ancestral(Linear(), 4), [law] * 2, options=(("capacity", 1),))


def test_law_with_temperature_and_top_p():
    logits = TABLES[3].astype(np.float64) / 0.7
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    order = np.argsort(-p, -1)
    mass_before = np.cumsum(np.take_along_axis(p, order, -1), -1) - np.take_along_axis(p, order, -1)
    kept = np.take_along_axis(mass_before < 0.8, np.argsort(order, -1), -1)
    with np.errstate(divide="ignore"):
        cut = np.where(kept, logits, -np.inf)
    draw = (("draw", TokenDraw(temperature=0.7, top_p=0.8)),)
    check(FirstHitting(), [laws.first_hitting_law(cut)] * 2, options=draw)


def test_the_check_can_fail():
    """Ancestral sampling in 4 steps is not first-hitting: the same chi-square tells them apart at once."""
    observed = counts(Ancestral(Linear(), 4), (ALL, ALL)).sum(0)
    law = laws.first_hitting_law(TABLES[3]).ravel()
    assert stats.chisquare(observed, law * N).pvalue < 1e-9


# ---- denoisers made of others


def guided(denoiser):
    return Guided(denoiser, jnp.array([PROMPTED]) != V, V, 0.8)


def test_law_of_guidance():
    """(1 + w) conditional - w unconditional, the unconditional logits being those without the prompt."""
    states = all_states(3, V)
    places = (V + 1) ** np.arange(3)[::-1]
    free = TABLES[3][np.where(np.array(PROMPTED)[None] != V, V, states) @ places]
    law = laws.ancestral_law(1.8 * TABLES[3].astype(np.float64) - 0.8 * free, hidden("linear", 4), PROMPTED)
    check(Ancestral(Linear(), 4), [law] * 2, (PROMPTED, PROMPTED), (("around", guided),))


def test_gibbs_sweeps_keep_a_joint_law():
    """Temperature inf, one token a sweep: random-scan Gibbs, which leaves the joint law of exact conditionals alone."""
    joint = np.asarray(jax.random.dirichlet(jax.random.key(7), jnp.full(27, 0.7)), np.float64).reshape(3, 3, 3)
    joint = np.maximum(joint, 1e-6) / np.maximum(joint, 1e-6).sum()
    exact = lambda denoiser: MaskOne(table_denoiser(true_conditionals(joint).astype(np.float32)), V)
    check(InformedCorrector(LeftToRight(), 1, 3, np.inf), [joint] * 2, options=(("around", exact),))

"""The engine against exact laws by enumeration: V = 3, L = 3, random denoiser tables. Those of each planner are in
`test_conformance`.

Chi-square of 40,000 rows sampled in one jitted call without a trace, against the laws of two starts, with fixed keys;
p > 1e-4 is asked for.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mdmjax.analysis import sampler_laws as laws
from mdmjax.analysis.tables import all_states, random_table, table_denoiser, true_conditionals
from mdmjax.process import Linear, SineSquared
from mdmjax.sampling import (
    Ancestral,
    FirstHitting,
    Guided,
    InformedCorrector,
    LeftToRight,
    MaskOne,
    TokenDraw,
    sample,
)

V, N, P_MIN = 3, 40_000, 1e-4
TABLE = np.asarray(random_table(jax.random.key(3), 3, V))
ALL, PROMPTED = (V,) * 3, (V, 1, V)


def hidden(name, steps):
    t = np.arange(steps, -1, -1) / steps
    return {"linear": t, "sine squared": np.sin(np.pi / 2 * t) ** 2}[name]


@functools.partial(jax.jit, static_argnames=("planner", "options"))
def count(key, tokens, planner, options):
    """How often each of the V^L sequences comes out: of the first half of the rows, and of the second."""
    options = dict(options)
    denoiser = options.pop("around", lambda denoiser, tokens: denoiser)(table_denoiser(TABLE), tokens)
    out = sample(denoiser, planner, tokens, vocab=V, key=key, **options).tokens
    cells = (out * jnp.asarray(V ** np.arange(3)[::-1])[None]).sum(1).reshape(2, -1)
    return jax.vmap(functools.partial(jnp.bincount, length=V**3))(cells)


def counts(planner, starts, options=(), rows=N):
    """[2, V^L]: how often each sequence comes out of each of two starts, by half of the rows each."""
    tokens = jnp.repeat(jnp.array(starts), rows // 2, axis=0)
    return np.asarray(count(jax.random.key(0), tokens, planner, options))


def check(planner, laws, starts=(ALL, ALL), options=(), rows=N):
    for observed, law in zip(counts(planner, starts, options, rows), laws, strict=True):
        law = law.ravel()
        assert observed[law == 0].sum() == 0
        assert stats.chisquare(observed[law > 0], law[law > 0] * rows / 2).pvalue > P_MIN


def test_law_of_many_steps():
    check(Ancestral(SineSquared(), 4096), [laws.ancestral_law(TABLE, hidden("sine squared", 4096))] * 2)


def test_law_with_temperature_and_top_p():
    logits = TABLE.astype(np.float64) / 0.7
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    order = np.argsort(-p, -1)
    mass_before = np.cumsum(np.take_along_axis(p, order, -1), -1) - np.take_along_axis(p, order, -1)
    kept = np.take_along_axis(mass_before < 0.8, np.argsort(order, -1), -1)
    with np.errstate(divide="ignore"):
        cut = np.where(kept, logits, -np.inf)
    draw = (("draw", TokenDraw(temperature=0.7, top_p=0.8)),)
    check(FirstHitting(), [laws.first_hitting_law(cut)] * 2, options=draw)


# ---- denoisers made of others


def guided(denoiser, tokens):
    return Guided(denoiser, tokens != V, V, 0.8)


FEW = Ancestral(Linear(), 4), (ALL, PROMPTED), (("capacity", 1), ("around", guided))


def test_law_of_guidance_with_few_positions_asked_and_the_fallback():
    """(1 + w) conditional - w unconditional, the unconditional logits being those without the prompt: where there is
    none, the law of the denoiser itself.

    capacity 1: the readout is asked at one position, and at all of them by the fallback where a row needs more.
    """
    states = all_states(3, V)
    places = (V + 1) ** np.arange(3)[::-1]
    free = TABLE[np.where(np.array(PROMPTED)[None] != V, V, states) @ places]
    law = laws.ancestral_law(1.8 * TABLE.astype(np.float64) - 0.8 * free, hidden("linear", 4), PROMPTED)
    planner, starts, options = FEW
    check(planner, [laws.ancestral_law(TABLE, hidden("linear", 4)), law], starts, options)


def test_the_check_can_fail():
    """Ancestral sampling in 4 steps is not first-hitting: the same chi-square tells them apart at once."""
    observed = counts(*FEW)[0]
    law = laws.first_hitting_law(TABLE).ravel()
    assert stats.chisquare(observed, law * N / 2).pvalue < 1e-9


def test_gibbs_sweeps_keep_a_joint_law():
    """Temperature inf, one token a sweep: random-scan Gibbs, which leaves the joint law of exact conditionals alone."""
    joint = np.asarray(jax.random.dirichlet(jax.random.key(7), jnp.full(27, 0.7)), np.float64).reshape(3, 3, 3)
    joint = np.maximum(joint, 1e-6) / np.maximum(joint, 1e-6).sum()
    exact = lambda denoiser, tokens: MaskOne(table_denoiser(true_conditionals(joint).astype(np.float32)), V)
    check(InformedCorrector(LeftToRight(), 1, 3, np.inf), [joint] * 2, options=(("around", exact),), rows=N // 2)

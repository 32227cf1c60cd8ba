"""Planners by themselves: marginals and paths of chains that take tokens back, scores, thresholds, budgets."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planner_cases import TABLE, L, V

from mdmjax.analysis import cheapest_counts, costs, information_curve, optimal_counts
from mdmjax.analysis.tables import all_states, table_denoiser
from mdmjax.base import REMASK
from mdmjax.process import Cosine, Linear, OnGrid, PositionPowers, SineSquared
from mdmjax.reports import trace_html
from mdmjax.sampling import (
    Ancestral,
    Blocks,
    Cap,
    Factor,
    Guided,
    InformedCorrector,
    LeftToRight,
    Loop,
    MaskOne,
    PathPlanning,
    PredictorCorrector,
    RandomCount,
    ReMDM,
    Rescale,
    Threshold,
    sample,
    scores,
)
from mdmjax.sampling.wrappers import passes

KEY = jax.random.key(0)


# ---- marginals


CHAINS = [
    ReMDM(Cosine(), 7, Cap(0.3)),
    ReMDM(SineSquared(), 7, Rescale(1.0)),
    ReMDM(Linear(), 12, Cap(1.0), loop=Loop()),
    PredictorCorrector(SineSquared(), 5, 2, Cap(1.0)),
    ReMDM(PositionPowers(jnp.array([0.5, -1.0, 0.0])), 6, Rescale(0.8)),
]


@pytest.mark.parametrize("planner", CHAINS, ids=lambda p: type(p).__name__ + type(p.sigma).__name__)
def test_visible_has_probability_alpha_at_every_step(planner, x64):
    """The chain of one position, exactly: visible is lost with probability sigma, a mask is revealed with r."""
    run = jax.jit(lambda: (*planner.rates(), planner.schedule.alpha(planner.path().t)))
    sigma, reveal, alpha = map(np.asarray, run())
    visible = np.zeros_like(alpha[0])
    assert ((sigma >= 0) & (sigma <= 1) & (reveal >= 0) & (reveal <= 1)).all() and (sigma > 0).any()
    for k in range(len(sigma)):
        visible = visible * (1 - sigma[k]) + (1 - visible) * reveal[k]
        np.testing.assert_allclose(visible, alpha[k + 1], atol=1e-12)
    np.testing.assert_allclose(visible, 1, atol=1e-12)


def test_rates_in_float32_keep_their_digits_at_both_ends():
    """At 4096 steps, where alpha and 1 - alpha differ from step to step by less than float32 has at 1."""
    planner = ReMDM(SineSquared(), 4096, Cap(1e-5))
    found = [np.asarray(x, np.float64) for x in jax.jit(lambda: planner.rates())()]
    with jax.enable_x64(True):
        exact = [np.asarray(x) for x in jax.jit(lambda: planner.rates())()]
    np.testing.assert_allclose(found[0], exact[0], rtol=1e-5)
    np.testing.assert_allclose(found[1][:-1], exact[1][:-1], rtol=2e-3)


def test_the_path_of_a_loop_and_of_sweeps():
    loop = ReMDM(Linear(), 20, Cap(0.1), loop=Loop()).path()
    t = np.asarray(loop.t)
    assert t[0] == 1 and t[-1] == 0 and (np.diff(t) <= 0).all()
    np.testing.assert_allclose(t[9:20], 0.1, atol=1e-6)  # from 0.55 to 0.05 of the steps
    np.testing.assert_array_equal(np.flatnonzero(loop.back), np.arange(9, 19))
    path = PredictorCorrector(Linear(), 3, 2).path()
    np.testing.assert_allclose(path.t, [1, 2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3, 0], atol=1e-6)
    assert path.step.tolist() == [0, 0, 0, 1, 1, 1, 2] and path.back.tolist() == [False, True, True] * 2 + [False]


@pytest.mark.parametrize(
    "around",
    [
        InformedCorrector,
        lambda planner: Blocks(InformedCorrector(planner), L),
        lambda planner: InformedCorrector(Blocks(planner, L)),
    ],
    ids=["corrector", "in a block", "of a block"],
)
def test_a_corrector_hears_the_judge_of_its_planner(around):
    """Which written tokens are taken back: here the first alone. What a sweep draws anew is none of its business."""
    doubts = lambda tokens: jnp.where(jnp.arange(L)[None] == 0, -99.0, jnp.zeros(tokens.shape))
    masks, model = jnp.full((64, L), V), MaskOne(table_denoiser(TABLE), V)
    run = lambda eta, judge: sample(
        model, around(PathPlanning(Linear(), L, eta, judge=judge)), masks, vocab=V, key=KEY, trace=True
    )
    plain, judged, *without = jax.jit(lambda: (run(1.0, None), run(1.0, doubts), run(0.0, None), run(0.0, doubts)))()
    back = lambda found: (found.trace.operations == REMASK).any((0, 1)).tolist()
    assert back(judged) == [True, False, False, False] and any(back(plain)[1:])
    assert (without[0].tokens == without[1].tokens).all()
    assert without[1].passes == without[0].passes + without[0].calls


# ---- scores


SCORES = [scores.probability, scores.log_probability, scores.margin, scores.negative_entropy, scores.advantage]
scored = jax.jit(lambda logits, token: [score(logits, token) for score in SCORES])


@pytest.mark.parametrize("logits", [[0.3, 2.0, -1.0, 1.9], [0.0, 0.0, 0.0, 0.0], [1.0, -np.inf, 0.0, 0.5]], ids=str)
def test_scores_by_their_formulas(logits):
    p = np.exp(np.array(logits)) / np.exp(np.array(logits)).sum()
    given, top = jnp.array(logits, jnp.float32), np.sort(p)[::-1]
    for token in (0, 3):
        found = dict(zip(SCORES, map(float, scored(given, jnp.int32(token))), strict=True))
        np.testing.assert_allclose(found[scores.probability], p[token], rtol=1e-5)
        np.testing.assert_allclose(found[scores.log_probability], np.log(p[token]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[scores.margin], top[0] - top[1], atol=1e-6)
        positive = p[p > 0]
        np.testing.assert_allclose(found[scores.negative_entropy], (positive * np.log(positive)).sum(), rtol=1e-5)
        np.testing.assert_allclose(found[scores.advantage], np.log(p[token] / np.delete(p, token).max()), atol=1e-6)


# ---- thresholds


def test_thresholds_of_zero_and_one():
    masks = jnp.full((3, L), V)
    run = jax.jit(lambda: [sample(table_denoiser(TABLE), Threshold(x), masks, vocab=V, key=KEY) for x in (0.0, 1.0)])
    at_once, one_by_one = run()
    assert at_once.row_calls.tolist() == [1] * 3 and one_by_one.row_calls.tolist() == [L] * 3


def test_factor_takes_the_largest_number():
    """Not the first at which the rule fails: 3 (1 - .75) < 0.8 where 2 (1 - .5) would not be, were it asked of two."""
    confidence = jnp.array([0.75, 0.1, 0.9, 0.75])

    @jax.jit
    def run():
        planner, open = Factor(1.01), jnp.ones(4, bool)
        turn = planner.turn(state := planner.init(KEY, open), open)
        return [x.choose(state, turn, confidence)[0] for x in (planner, Factor(0.0))]

    some, one = run()
    assert some.tolist() == [1, 0, 1, 1]  # 2 (.1), 3 (.25), 4 (.25) are below 1.01, 5 (.9) is not
    assert one.tolist() == [0, 0, 1, 0]


# ---- denoisers made of others


def test_mask_one_is_the_conditional_of_each_position():
    model, states = table_denoiser(TABLE), all_states(L, V)
    logits = np.asarray(jax.jit(MaskOne(model, V))(jnp.asarray(states)))
    places = (V + 1) ** np.arange(L)[::-1]
    for i in range(L):
        alone = states + (V - states[:, i])[:, None] * (np.arange(L) == i)[None]
        np.testing.assert_allclose(logits[:, i], TABLE[alone @ places, i], rtol=1e-6)
    some = jnp.array([[2, 0]] * len(states))
    of_some = jax.jit(lambda x: MaskOne(model, V)(x, at=some))(jnp.asarray(states))
    np.testing.assert_allclose(of_some, logits[:, [2, 0]], rtol=1e-6)


def test_forward_passes_are_counted():
    """A guided call makes two, one that masks positions one at a time as many as positions are asked."""
    tokens = jnp.array([[3, 3, 1, 3], [3, 0, 3, 2]])
    model = table_denoiser(TABLE)
    guided = Guided(model, tokens != V, V, 0.5)
    single, both = MaskOne(model, V), Guided(MaskOne(model, V), guided.given, V)
    of = [[passes(denoiser, asked) for asked in (1, 3)] for denoiser in (model, guided, single, both)]
    assert of == [[1, 1], [2, 2], [1, 3], [2, 6]] and passes(MaskOne(guided, V), 3) == 6
    each = jax.jit(
        lambda: [
            sample(denoiser, LeftToRight(), tokens, vocab=V, key=KEY)[:5] for denoiser in (model, guided, single, both)
        ]
    )()
    assert [int(x[1]) for x in each] == [3] * 4 and [int(x[4]) for x in each] == [3, 6, 3, 6]
    few = jax.jit(lambda: sample(MaskOne(model, V), Ancestral(Linear(), 2), tokens, vocab=V, key=KEY, capacity=3))()
    assert 3 * int(few.calls) <= int(few.passes) <= L * int(few.calls)


def test_guidance_of_nothing_and_of_impossible_tokens():
    tokens, table = jnp.array([[3, 1, 3, 3]]), TABLE.copy()
    table[:, :, 2] = -np.inf
    model = table_denoiser(table)
    of = lambda weight: jax.nn.log_softmax(Guided(model, tokens != V, V, weight)(tokens))
    alone = lambda x: jax.nn.log_softmax(model(x))
    none, against, more, plain, free = jax.jit(
        lambda: (of(0.0), of(-1.0), of(2.0), alone(tokens), alone(jnp.full_like(tokens, V)))
    )()
    np.testing.assert_allclose(none, plain, atol=1e-6)
    np.testing.assert_allclose(against, free, atol=1e-6)
    assert np.isneginf(more[..., 2]).all() and np.isfinite(more[..., :2]).all()


def test_guidance_where_one_of_two_says_impossible():
    """The other is not heard, unless nothing would be left; and no weight is the denoiser itself, in one pass."""
    gone = -np.inf
    told = jnp.array([[0.0, gone, 1.0, 2.0], [gone, 1.0, gone, 0.0]])
    free = jnp.array([[0.5, 0.0, gone, 1.0], [3.0, gone, 0.0, gone]])
    model = lambda tokens, t=None, *, at=None: jnp.where((tokens == 4).all(), free, told)[None]
    tokens = jnp.array([[1, 4]])
    guided = {w: Guided(model, tokens != 4, 4, w) for w in (0.0, 1.0, -0.5, -1.0)}
    found = jax.jit(lambda: {w: denoiser(tokens)[0] for w, denoiser in guided.items()})()
    np.testing.assert_array_equal(found[0.0], told)
    for w, first in {1.0: [-0.5, gone, gone, 3.0], -0.5: [0.25, gone, gone, 1.5], -1.0: [0.5, gone, gone, 1.0]}.items():
        np.testing.assert_allclose(found[w], [first, told[1]], atol=1e-6)
    assert [passes(guided[w], 3) for w in (0.0, 1.0)] == [1, 2]


# ---- budgets


def test_counts_from_costs_by_dynamic_programming():
    """Against all splits; the budget of an information curve is that of its costs; and a planner reveals just those."""
    rng = np.random.default_rng(0)
    table = np.triu(rng.random((6, 6)))[:, ::-1]  # cost(m, k) for m + k <= 5
    splits = [(a, b, 5 - a - b) for a in range(6) for b in range(6 - a)]
    total = lambda counts: sum(table[sum(counts[:j]), k] for j, k in enumerate(counts))
    counts, cost = cheapest_counts(table, 3)
    assert total(counts) == pytest.approx(cost) == pytest.approx(min(map(total, splits)))
    curve = information_curve(rng.dirichlet(np.ones(16)).reshape(2, 2, 2, 2))
    np.testing.assert_array_equal(cheapest_counts(costs(curve), 2)[0], optimal_counts(curve, 2)[0])
    budget = OnGrid.budget((1, 0, 3))
    masks = jnp.full((5, L), V)
    out = jax.jit(lambda: sample(table_denoiser(TABLE), RandomCount(budget, 3), masks, vocab=V, key=KEY, trace=True))()
    assert (out.trace.operations == 1).sum(2).tolist() == [[1] * 5, [3] * 5, [0] * 5]


# ---- traces


def test_a_trace_that_takes_tokens_back_renders():
    tokens = jnp.full((2, L), V).at[0, 1].set(2)
    planner = ReMDM(Linear(), 8, Rescale(1.0))
    trace = jax.jit(lambda: sample(table_denoiser(TABLE), planner, tokens, vocab=V, key=KEY, trace=True).trace)()
    taken = int((trace.operations == 2).sum())
    page = trace_html(trace, ["a", "b", "c"])
    assert taken > 0 and page.startswith("<!doctype html>")


# ---- bad values


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Threshold(1.5), r"Threshold\(threshold=1.5\): threshold must be in \[0, 1\]"),
        (lambda: Threshold(math.nan), "threshold=nan"),
        (lambda: Threshold(tie=1.0), r"Threshold\(tie=1.0\): tie must be in \[0, 1\)"),
        (lambda: Factor(-1.0), r"Factor\(factor=-1.0\): factor must be >= 0"),
        (lambda: Cap(1.1), r"Cap\(eta=1.1\): eta must be in \[0, 1\]"),
        (lambda: Rescale(-0.1), r"Rescale\(eta=-0.1\)"),
        (lambda: Loop(0.2, 0.3), r"Loop\(start=0.2, stop=0.3\): 0 < stop < start < 1 is needed"),
        (lambda: Loop(alpha=1.0), r"Loop\(alpha=1.0\)"),
        (lambda: ReMDM(Linear(), 0), r"ReMDM\(steps=0\): steps must be >= 1"),
        (lambda: PredictorCorrector(Linear(), 2, -1), r"sweeps=-1\): sweeps must be >= 0"),
        (lambda: PathPlanning(Linear(), 2, -1.0), r"PathPlanning\(eta=-1.0\): eta must be >= 0"),
        (lambda: PathPlanning(Linear(), 0), r"PathPlanning\(steps=0\)"),
        (lambda: InformedCorrector(LeftToRight(), 0), r"InformedCorrector\(count=0\): count must be >= 1"),
        (lambda: InformedCorrector(LeftToRight(), sweeps=0), r"sweeps=0"),
        (lambda: InformedCorrector(LeftToRight(), temperature=-1.0), r"temperature=-1.0\): temperature must be >= 0"),
        (
            lambda: Guided(None, jnp.ones((1, 1), bool), 3, -2.0),
            r"Guided\(weight=-2.0\): weight must be finite and >= -1",
        ),
        (lambda: cheapest_counts(np.zeros((2, 2)), 0), "steps=0: must be >= 1"),
        (lambda: cheapest_counts(np.zeros((2, 3)), 1), r"costs \[2, 3\]: must be"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()

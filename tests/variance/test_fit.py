"""Statistics of training and the fit of its law, on the small problem whose variance is known."""

import dataclasses
import math

import exact_toy
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mdmjax import variance
from mdmjax.objectives import MaskedDiffusion
from mdmjax.process import Continuous, Delimiters, ExactCount, Importance, PowerRate, log_edges, mirror, single, use_key
from mdmjax.training import Step, init_state
from mdmjax.training.state import DRAWS

pytestmark = pytest.mark.usefixtures("x64")

EPS = 0.05
L, V = exact_toy.LENGTH, exact_toy.VOCAB


def params():
    return {"W": jnp.asarray(exact_toy.toy(0).weights)}


def bind(params):
    """The denoiser of the small problem: log-linear in the tokens that are seen."""

    def denoiser(tokens, t=None, *, at=None):
        features = jax.nn.one_hot(tokens, V + 1, dtype=params["W"].dtype).reshape(len(tokens), -1)
        features = jnp.concatenate([features, jnp.ones((len(tokens), 1), features.dtype)], axis=1)
        return jnp.einsum("ivf,bf->biv", params["W"], features)

    return denoiser


def rows(n):
    """Rows drawn with the probabilities of the problem."""
    t = exact_toy.toy(0)
    return jnp.asarray(t.rows[np.random.default_rng(1).choice(6, n, p=t.p)])


LAWS = {
    "base": (lambda: Continuous(t_min=EPS), lambda: variance.rate_law(L, EPS)),
    "mirror": (lambda: Continuous(t_min=EPS, ways=mirror), lambda: variance.mirror_pair(variance.rate_law(L, EPS))),
    "power": (lambda: Importance(PowerRate(EPS, 0.5)), lambda: variance.rate_law(L, EPS, lambda r: r**-0.5)),
    "count": (ExactCount, lambda: variance.count_law(L)),
    "mirrored counts": (lambda: ExactCount(ways=mirror), lambda: variance.mirror_pair(variance.count_law(L))),
}


@pytest.mark.parametrize("name", LAWS)
def test_laws_have_the_parts_that_enumeration_says(name):
    """Of loss and gradient: the estimates from many examples within 4.5 of their own errors, which are small."""
    law, exact = (make() for make in LAWS[name])
    t, n = exact_toy.toy(0), 1500
    statistic = variance.DrawStatistic(bind, law, V, {"all": "."})
    run = jax.jit(
        lambda p, x, ids: variance.nested(
            lambda *draw: statistic(p, *draw), {"tokens": x}, ids, jax.random.key(0), rates=2, masks=2
        )
    )
    moments = run(params(), rows(n), jnp.arange(n))
    found = variance.parts(moments, sums={"gradient": ["all"]})
    for group, table in (("loss", t.loss), ("gradient", t.gradient)):
        truth = variance.decompose(table, exact, t.p)
        for estimate, value in zip(found[group], (truth.pattern, truth.rate, truth.data, truth.total), strict=True):
            assert abs(estimate.mean - value) < 4.5 * estimate.standard_error
        assert found[group].total.standard_error < 0.15 * truth.total
    mean = variance.means(moments, "loss", "nats/token")
    assert abs(mean.mean - variance.decompose(t.loss, exact, t.p).mean) < 4.5 * mean.standard_error
    assert moments.facts["losses"].shape == (n, 2, 2, 2 if "mirror" in name else 1)
    empty, weight = moments.facts["empty"], moments.facts["weight"]
    assert (weight > 0).all() and ((empty.mean() > 0.02) if "count" not in name else (empty == 0).all())


def test_a_network_that_draws_nothing_has_data_noise_alone():
    causal = lambda params: lambda tokens, t=None, *, at=None: bind(params)(tokens * 0)  # sees nothing
    statistic = variance.DrawStatistic(causal, None, V, {"all": "."})
    moments = variance.nested(
        lambda *draw: statistic(params(), *draw),
        {"tokens": rows(40)},
        jnp.arange(40),
        jax.random.key(0),
        rates=2,
        masks=2,
    )
    for parts in variance.parts(moments).values():
        assert parts.pattern.mean == pytest.approx(0, abs=1e-12) and parts.rate.mean == pytest.approx(0, abs=1e-12)
        assert parts.data.mean == pytest.approx(parts.total.mean, abs=1e-12) and parts.data.mean > 0.01


@pytest.mark.parametrize("ways", [single, mirror])
@pytest.mark.parametrize("of_rows, table", [(variance.loss_squares, "loss"), (variance.gradient_squares, "gradient")])
def test_moments_of_the_bins(ways, of_rows, table):
    """E[|Z|^2 | r in a bin] by draws, and from the enumeration of the same bins."""
    t, n, masks = exact_toy.toy(0), 1200, 12
    law = variance.rate_law(L, EPS, bins=4)
    pair = variance.mirror_pair(law) if ways is mirror else law
    moment = variance.second_moment(getattr(t, table), pair, t.p) / (1 - EPS) ** 2  # weights 1 / r
    exact = np.bincount(law.bins, law.probabilities * moment) / np.bincount(law.bins, law.probabilities)
    tokens, edges = rows(n), jnp.asarray(log_edges(EPS, 4))
    squares = of_rows(bind, params(), tokens, jnp.ones((n, L), bool), L, vocab=V)
    found = jax.jit(
        lambda key: variance.bin_moments(
            squares, jnp.arange(n), jnp.ones((n, L), bool), key, edges, masks=masks, ways=ways
        )
    )(jax.random.key(0))
    np.testing.assert_allclose(found, exact, rtol=0.1)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_fitted_law_is_near_the_best_one(gradient):
    """The total variance under the fit is within 3 % of the best density on these bins, and well below uniform's."""
    t = exact_toy.toy(0)
    table = t.gradient if gradient else t.loss
    refit = variance.Refit(V, rows=200, masks=30, share=0.02, gradient=gradient)
    start = variance.starting_law(EPS, 8)
    law = jax.jit(lambda b, k: refit(bind, params(), b, k, start))(
        {"tokens": rows(256), "ids": jnp.arange(256)}, jax.random.key(0)
    )
    exact = variance.rate_law(L, EPS, bins=8)
    moment = variance.second_moment(table, exact, t.p)
    best = exact.reweighted(variance.optimal_density(moment, exact, binned=True))
    nodes = np.asarray(exact.rates)
    fitted = exact.reweighted(np.asarray(law.density.density(jnp.asarray(nodes))))
    uniform, found, least = (variance.decompose(table, x, t.p).total for x in (exact, fitted, best))
    assert least <= found < 1.03 * least < 0.95 * uniform
    assert np.asarray(law.density.density(jnp.asarray(nodes))).min() >= 0.02
    assert jax.tree.structure(law) == jax.tree.structure(start)


def test_a_run_fits_its_law_now_and_then():
    """At steps 0, 3, 6; between them the law stands still, and the step draws from it. A resumed run has it."""
    optimizer = optax.sgd(0.5)
    law = variance.starting_law(EPS, 4)
    refit = variance.Refit(V, rows=4, masks=4)
    step = Step(bind, MaskedDiffusion(V), optimizer, lambda step: 0.5, size=8, refit=refit, refit_every=3)
    fresh = lambda: init_state(lambda key: params(), optimizer, jax.random.key(0), law)
    batch = {"tokens": rows(8), "ids": jnp.arange(8)}
    take, states = jax.jit(step), [fresh()]
    for _ in range(7):
        states.append(take(states[-1], batch)[0])
    masses = [np.asarray(state.law.density.mass) for state in states]
    changed = [not np.array_equal(a, b) for a, b in zip(masses, masses[1:], strict=False)]
    assert changed == [True, False, False, True, False, False, True]
    again = take(jax.tree.map(jnp.copy, states[4]), batch)[0]
    jax.tree.map(np.testing.assert_array_equal, again.params, states[5].params)
    # the loss is that of the objective with the fitted law
    fixed = dataclasses.replace(step, objective=MaskedDiffusion(V, states[2].law), refit=None)
    plain = dataclasses.replace(states[2], law=None)
    assert float(jax.jit(lambda *x: fixed(*x))(plain, batch)[1]["loss"]) == pytest.approx(
        float(take(states[2], batch)[1]["loss"])
    )


def test_the_fit_is_of_what_training_adds_up():
    """Rows of unequal length: the nats of a batch are divided by its tokens, so no row is divided by its own number.

    With the length as a part of the example, the variance of what a row adds is within 3 % of the least on these bins.
    """
    t, longest = exact_toy.toy(0), np.array([1, 4, 1, 4, 1, 4])  # tokens that are eligible, the first ones
    counts = exact_toy.all_masks(L)[:, None] & (np.arange(L) < longest[:, None])  # [M, 6, L]
    bits = 2 ** np.arange(L)[::-1]
    table = t.losses[np.arange(6)[None], counts @ bits].sum(2).T  # [6, M]: what is hidden and not eligible is visible
    exact = variance.rate_law(L, EPS, bins=8)
    moment = variance.second_moment(table, exact, t.p)
    least = variance.decompose(table, exact.reweighted(variance.optimal_density(moment, exact, binned=True)), t.p).total

    which = np.random.default_rng(1).choice(6, 256, p=t.p)
    eligible = jnp.asarray(np.arange(L) < longest[which][:, None])
    batch = {"tokens": jnp.asarray(t.rows[which]), "ids": jnp.arange(256), "eligible": eligible}
    refit = variance.Refit(V, rows=256, masks=40, share=0.02)
    law = jax.jit(lambda b, k: refit(bind, params(), b, k, variance.starting_law(EPS, 8)))(batch, jax.random.key(0))
    fitted = exact.reweighted(np.asarray(law.density.density(jnp.asarray(exact.rates))))
    assert least <= variance.decompose(table, fitted, t.p).total < 1.03 * least


def test_rows_of_unequal_length_are_divided_by_one_number():
    """`size` in place of a row's own tokens: the loss of each draw is that of the row times its tokens."""
    eligible = jnp.asarray(np.arange(L) < np.array([1, 3, 4])[:, None])
    example = {"tokens": rows(3), "eligible": eligible}
    own, common = (variance.DrawStatistic(bind, ExactCount(), V, size=size) for size in (None, 2.0))
    run = lambda statistic: jax.jit(
        lambda: jax.vmap(lambda e, i: statistic(params(), e, i, *jax.random.split(jax.random.key(5)))[1]["loss"])(
            example, jnp.arange(3)
        )
    )()
    np.testing.assert_allclose(run(common) * 2.0, run(own) * jnp.array([1, 3, 4]), rtol=1e-12)

    batch = variance.BatchStatistic(bind, ExactCount(), V)
    step = Step(bind, MaskedDiffusion(V, ExactCount()), optax.sgd(0.0), lambda step: 0.0, size=3)
    state = init_state(lambda key: params(), optax.sgd(0.0), jax.random.key(0))
    key = use_key(state.key, 0, DRAWS)
    found = jax.jit(lambda: batch(params(), example, key)["loss"])()
    metrics = jax.jit(step)(state, example | {"ids": jnp.arange(3)})[1]
    assert float(found) == pytest.approx(float(metrics["loss"]), rel=1e-12)


def test_tokens_hidden_more_often_have_the_same_mean_in_a_draw():
    """The parts of ISAD with the full ratio: its mean is that of the base law."""
    n, means = 3000, []
    for law in (Continuous(t_min=EPS), Delimiters(EPS, 0.2, often=(0,))):
        statistic = variance.DrawStatistic(bind, law, V)
        moments = jax.jit(
            lambda x, statistic=statistic: variance.nested(
                lambda *draw: statistic(params(), *draw), {"tokens": x}, jnp.arange(n), jax.random.key(0),
                rates=2, masks=2,
            )
        )(rows(n))  # fmt: skip
        means.append(variance.means(moments, "loss", "nats/token"))
    t = exact_toy.toy(0)
    truth = variance.decompose(t.loss, variance.rate_law(L, EPS), t.p).mean
    for mean in means:
        assert abs(mean.mean - truth) < 4.5 * mean.standard_error < 0.3 * truth


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: variance.Refit(V, rows=0), "rows=0.*>= 1"),
        (lambda: variance.Refit(V, share=0.0), r"share=0.0.*\(0, 1\]"),
        (lambda: variance.grouped({"a": jnp.ones(2)}, {"b": "nothing"}), "no parameter has a path"),
        (lambda: variance.grouped({"a": jnp.ones(2)}, {"loss": "."}), "loss is no name"),
        (lambda: variance.starting_law(1.5), r"eps=1.5.*\(0, 1\)"),
    ],
)
def test_what_will_not_do(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_groups_are_disjoint():
    tree = {"embed": {"kernel": jnp.zeros(3)}, "block": {"up": jnp.ones(2), "embed": jnp.ones(1)}}
    groups = variance.grouped(tree, {"embeddings": "embed", "rest": "."})
    assert [sum(leaf.size for leaf in leaves) for leaves in groups.values()] == [4, 2]
    assert math.isclose(sum(float(x.sum()) for x in groups["rest"]), 2)

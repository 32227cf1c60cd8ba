"""Nested analysis of variance: unbiased against exact parts, error bars that cover, and what must not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.variance import anova

pytestmark = pytest.mark.usefixtures("x64")

X, R, M, P = 4, 3, 5, 3  # examples, rates, masks and components of a law given by a table
TABLE = np.random.default_rng(0).gamma(1.0, size=(X, R, M, P))


def exact():
    """A, B, C, for the vector and for its first component, of uniform x, r and m."""
    parts = []
    for z in (TABLE, TABLE[..., :1]):
        a = z.var(2).sum(-1).mean()
        b = z.mean(2).var(1).sum(-1).mean()
        c = z.mean((1, 2)).var(0).sum()
        assert a + b + c == pytest.approx(z.reshape(-1, z.shape[-1]).var(0).sum())
        parts.append([a, b, c, a + b + c])
    return dict(vector=parts[0], loss=parts[1])


def statistic(example, i, key_rate, key_mask):
    """Rates and masks are drawn uniformly; an example is a number of the table."""
    r, m = jax.random.randint(key_rate, (), 0, R), jax.random.randint(key_mask, (), 0, M)
    z = jnp.asarray(TABLE)[example, r, m]
    return {"rate": r}, {"vector": {"head": z[:1], "tail": z[1:]}, "loss": z[0]}


def run(key, examples=6, rates=3, masks=2, **how):
    x = jax.random.randint(jax.random.fold_in(key, 1), (examples,), 0, X)
    return anova.nested(statistic, x, jnp.arange(examples), key, rates=rates, masks=masks, **how)


@functools.cache
def repeated(repeats, examples, rates=3, masks=2):
    moments = jax.jit(jax.vmap(lambda key: run(key, examples, rates, masks)))(
        jax.random.split(jax.random.key(0), repeats)
    )
    moments = jax.tree.map(np.asarray, moments)
    return [anova.parts(jax.tree.map(lambda x, i=i: x[i], moments)) for i in range(repeats)]


@pytest.mark.parametrize("name", ["vector", "loss"])
def test_the_parts_are_unbiased(name):
    """The mean of 1,000 small designs is the truth, within four standard errors; parts below 0 are left so."""
    found = np.array([[part.mean for part in p[name]] for p in repeated(1000, 6)])
    error = found.std(0) / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - exact()[name]) < 4 * error).all()
    assert (found[:, 1] < 0).any() and (found[:, 2] < 0).any()


def test_the_error_bars_cover():
    """Of 300 designs of 40 examples the truth is within two jackknife errors in about 95 %, whatever the part."""
    truth = np.array(exact()["vector"])
    parts = [p["vector"] for p in repeated(300, 40)]
    inside = np.array([[abs(e.mean - t) < 2 * e.standard_error for e, t in zip(p, truth, strict=True)] for p in parts])
    assert (inside.mean(0) > 0.88).all() and (inside.mean(0) < 0.995).all()


def test_the_jackknife_is_that_of_leaving_out_an_example():
    """Recomputed from scratch without each example, for a vector kept whole and for one that is sketched."""
    moments = run(jax.random.key(3), examples=7)
    whole = anova.parts(moments)["vector"]
    left = []
    for i in range(7):
        keep = np.delete(np.arange(7), i)
        by_example = jax.tree.map(lambda x, keep=keep: np.asarray(x)[keep], list(moments[:5]))
        total = dict(vector=moments.sketches[keep, 1].sum(0), loss=moments.sketches[keep, 0].sum(0))
        left.append([part.mean for part in anova.parts(anova.Moments(*by_example, total))["vector"]])
    error = np.sqrt(6 / 7 * ((np.array(left) - np.mean(left, 0)) ** 2).sum(0))
    np.testing.assert_allclose([part.standard_error for part in whole], error, rtol=1e-9)


def test_sketches_keep_products():
    """<sketch(u), sketch(v)> is <u, v> where the vectors fit, and near it where they do not."""
    u, v = jax.random.normal(jax.random.key(0), (2, 5000))
    v = v + u
    sketch = lambda x, size: anova._sketches({"g": {"a": x[:70].reshape(7, 10), "b": x[70:]}}, size)[0]
    assert sketch(u, 6000) @ sketch(v, 6000) == pytest.approx(float(u @ v), rel=1e-12)
    near = sketch(u, 500) @ sketch(v, 500)
    assert near != pytest.approx(float(u @ v), rel=1e-9) and near == pytest.approx(float(u @ v), rel=0.2)


def test_groups_add_up():
    """The whole gradient of two disjoint groups is that of one group with both; error bars too."""

    def split(example, i, key_rate, key_mask):
        facts, groups = statistic(example, i, key_rate, key_mask)
        return facts, {"z": groups["vector"]["head"], "a": groups["vector"]["tail"]}

    key, x, ids = jax.random.key(5), jnp.arange(6) % X, jnp.arange(6)
    both = anova.parts(anova.nested(split, x, ids, key, rates=2, masks=2), sums={"all": ["a", "z"]})["all"]
    one = anova.parts(anova.nested(statistic, x, ids, key, rates=2, masks=2))["vector"]
    for ours, expected in zip(both, one, strict=True):
        assert ours.mean == pytest.approx(expected.mean) and ours.standard_error == pytest.approx(
            expected.standard_error
        )


def test_examples_may_be_shared_out():
    """Over eight devices of a pmap, and one call after the other: the same moments as in one call."""
    key, x, ids = jax.random.key(0), jnp.arange(16) % X, jnp.arange(100, 116)
    call = lambda x, ids: anova.nested(statistic, x, ids, key, rates=2, masks=3)
    whole = jax.jit(call)(x, ids)
    mapped = jax.pmap(call)(x.reshape(8, 2), ids.reshape(8, 2))
    shares = [jax.tree.map(lambda a, i=i: jnp.asarray(np.asarray(a)[i]), mapped) for i in range(8)]
    later = [jax.jit(call)(x[a : a + 8], ids[a : a + 8]) for a in (0, 8)]
    for found in (shares, later):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), anova.joined(found), whole)


def test_what_draws_nothing_has_the_noise_of_the_data_alone():
    def fixed(example, i, key_rate, key_mask):
        return {}, {"loss": jnp.asarray(TABLE)[example, 0, 0, 0]}

    x = jnp.arange(X)
    moments = anova.nested(fixed, x, x, jax.random.key(0), rates=2, masks=2)
    parts = anova.parts(moments, {"loss": "nats^2"})["loss"]
    assert parts.pattern.mean == parts.rate.mean == 0 and parts.pattern.standard_error == 0
    assert parts.data.mean == pytest.approx(TABLE[:, 0, 0, 0].var(ddof=1)) == parts.total.mean
    mean = anova.means(moments, "loss", "nats")
    assert mean.mean == pytest.approx(TABLE[:, 0, 0, 0].mean()) and mean.unit == "nats" and parts.data.unit == "nats^2"


def test_two_examples_have_no_error_bar():
    parts = anova.parts(run(jax.random.key(0), examples=2))["loss"]
    assert np.isfinite(parts.total.mean) and np.isnan(parts.total.standard_error)


@pytest.mark.parametrize("wrong", ["examples", "rates", "masks"])
def test_there_is_no_variance_of_one(wrong):
    with pytest.raises(ValueError, match=f"{wrong}=1: at least 2 are needed"):
        anova.parts(run(jax.random.key(0), **{wrong: 1}))

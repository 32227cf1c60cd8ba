"""Every law by enumeration, in float64: the mean of its estimate, over all masks and a quadrature of the rate."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.analysis import all_masks, continuous_bound, random_table, table_denoiser
from mdmjax.objectives import MaskedDiffusion, negative_elbo
from mdmjax.process import (
    Clipped,
    Complementary,
    Continuous,
    Copies,
    Cosine,
    Delimiters,
    Discrete,
    ExactCount,
    Importance,
    Linear,
    Spread,
    Strata,
    Union,
    iid,
    mirror,
    single,
    systematic,
)
from mdmjax.process.draws import Rates

pytestmark = pytest.mark.usefixtures("x64")

V, L, EPS = 3, 3, 0.05
NODES, WIDTHS = np.polynomial.legendre.leggauss(60)
ROW = (2, 0, 1)


def denoiser():
    return table_denoiser(random_table(jax.random.key(0), L, V, 2.0))


def loss(masks):
    """S(m): the sum of the losses of what m hides, [M]."""
    masks, x = jnp.asarray(masks), jnp.array(ROW)
    logits = denoiser()(jnp.where(masks, V, x[None]), None)
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.broadcast_to(x, masks.shape)[..., None], 2)[..., 0]
    return np.asarray(jnp.where(masks, nats, 0).sum(1))


def truth(low=0.0, high=1.0):
    """int_low^high (dr / r) E[S | r]."""
    r = (low + (high - low) * (NODES + 1) / 2)[:, None]
    sizes = all_masks(L).sum(1)
    p = r**sizes * (1 - r) ** (L - sizes)
    return ((high - low) * WIDTHS / 2) @ (p / r) @ loss(all_masks(L))


@dataclasses.dataclass(frozen=True)
class Ramp:
    """A density with a closed form: p(r) proportional to 3 - 2 (r - eps) / (1 - eps)."""

    eps: float = EPS

    def density(self, r):
        return (3 - 2 * (r - self.eps) / (1 - self.eps)) / 2

    def from_cdf(self, u):
        return self.eps + (1 - self.eps) * (3 - jnp.sqrt(9 - 8 * u)) / 2


def nodes(key, ids, batch):
    """Rows are the nodes of a quadrature of the rate."""
    row = Spread(jnp.zeros_like(ids), 1, None, ids)
    return type("Nodes", (), dict(uniform=lambda self: jnp.asarray((NODES + 1) / 2), groups=row.groups))()


def mean(law):
    """E[estimate], by all cells of the numbers from which masks are made."""
    law = dataclasses.replace(law, spread=nodes)
    pair, n = getattr(law, "ways", single) is mirror, len(NODES)
    ids, eligible, x = jnp.arange(n), jnp.ones((n, L), bool), jnp.broadcast_to(jnp.array(ROW), (n, L))
    rates = law.rates(jax.random.key(0), ids, eligible, batch=n)
    r = np.asarray(rates.value)
    # U falls below both of r and 1 - r, between the two, or above both; a single mask has the first two as one if r is
    # the larger, which the cells do not mind
    low, high = np.minimum(r, 1 - r), np.maximum(r, 1 - r)
    middle = jnp.asarray([low / 2, (low + high) / 2, (high + 1) / 2])  # [3, n]
    size = np.stack([low, high - low, 1 - high])
    total = 0
    for cell in itertools.product(range(3), repeat=L):
        u = middle[jnp.array(cell)].T  # [n, L]
        places = lambda key, length, u=u: u[jax.random.key_data(key)[-1]][None]
        ways = (lambda key, length, f=places: jnp.concatenate([f(key, length), 1 - f(key, length)])) if pair else places
        draws = hidden(law, ways, ids, eligible, rates)
        k = len(draws.ids) // n
        repeated = lambda a, k=k: jnp.repeat(a, k, axis=0)
        nats = np.asarray(negative_elbo(denoiser(), repeated(x), draws, vocab=V).nats).reshape(n, k).mean(1)
        total += (WIDTHS / 2 * size[list(cell)].prod(0) * nats).sum()
    return total


def hidden(law, ways, ids, eligible, rates):
    """`law.hide` with these ways; the key of a row is its number."""
    from mdmjax.process import draws as module

    with pytest.MonkeyPatch.context() as patch:
        numbers = lambda key, use, ids: jax.random.wrap_key_data(
            jnp.stack([jnp.zeros_like(ids), ids], 1).astype("uint32")
        )
        patch.setattr(module, "row_keys", numbers)
        patch.setattr("mdmjax.process.importance.single", ways)
        if hasattr(law, "ways"):
            law = dataclasses.replace(law, ways=ways)
        return law.hide(jax.random.key(0), ids, eligible, rates)


@pytest.mark.parametrize(
    "law, low, high, factor",
    [
        (Continuous(Linear(), t_min=EPS), EPS, 1, 1),
        (Continuous(Cosine(), t_min=EPS), math.sin(math.pi * EPS / 2), 1, 1),
        (Continuous(Linear(), t_min=EPS, ways=mirror), EPS, 1, 1),
        (Importance(Ramp()), EPS, 1, 1),
        (Importance(Ramp(), schedule=Cosine(), ways=mirror), EPS, 1, 1),
        (Complementary(EPS), EPS, 1 - EPS, 1),
        (Clipped(0.3, 0.8), 0.3, 0.8, 2),
        (Clipped(0.3, 0.8, ways=mirror), 0.3, 0.8, 2),
    ],
    ids=lambda x: type(x).__name__ if dataclasses.is_dataclass(x) else "",
)
def test_the_mean_is_the_bound_between_two_rates(law, low, high, factor):
    """All but `Clipped` estimate the bound itself, but for the ends that they say."""
    assert mean(law) == pytest.approx(factor * truth(low, high), abs=1e-9)
    if factor == 1:
        assert mean(law) == pytest.approx(float(continuous_bound(denoiser(), jnp.array(ROW), V)), rel=0.2)


def test_a_capped_weight_is_biased_where_it_acts():
    """The weight relative to the base law is min(1 / p, cap), and the mean lacks what that takes away."""
    ids, eligible = jnp.arange(len(NODES)), jnp.ones((len(NODES), L), bool)
    of = lambda cap: Importance(Ramp(), nodes, max_weight=cap)
    drawn = lambda law: law.rates(jax.random.key(0), ids, eligible, batch=len(ids))
    r, free = drawn(of(None)).value, drawn(of(None)).weights
    np.testing.assert_allclose(
        drawn(of(1.5)).weights * r / (1 - EPS), np.minimum(1 / Ramp().density(r), 1.5), rtol=1e-12
    )
    np.testing.assert_array_equal(of(1.5).clamped(r), 1 / Ramp().density(r) > 1.5)
    assert 0.2 < of(1.5).clamped(r).mean() < 0.5
    np.testing.assert_array_equal(drawn(of(1e6)).weights, free)
    assert not of(None).clamped(r).any() and not of(2.0).clamped(r[:-1]).any()
    # p = 2/3 at the rate below: above it, p 1.5 of what there is
    start = EPS + (1 - EPS) * (3 - 4 / 3) / 2
    inside = start + (1 - start) * (NODES + 1) / 2
    sizes = all_masks(L).sum(1)
    each = (inside[:, None] ** (sizes - 1.0) * (1 - inside[:, None]) ** (L - sizes)) @ loss(all_masks(L))
    lost = ((1 - start) * WIDTHS / 2) @ ((1 - 1.5 * np.asarray(Ramp().density(inside))) * each)
    assert mean(of(1.5)) == pytest.approx(truth(EPS) - lost, rel=1e-3) and lost > 0.01 * truth(EPS)


@pytest.mark.parametrize("ways", [single, mirror])
def test_exact_counts_have_the_whole_bound(ways):
    """All orders of the places, all counts."""
    law = ExactCount(iid, ways=ways)
    n, total = math.factorial(L), 0
    ids, eligible = jnp.arange(n), jnp.ones((n, L), bool)
    orders = jnp.asarray(np.array(list(itertools.permutations(range(L)))) / L + 0.1)
    places = lambda key, length: orders[jax.random.key_data(key)[-1]][None]
    both = (
        (lambda key, length: jnp.concatenate([places(key, length), 1 - places(key, length)]))
        if ways is mirror
        else places
    )
    for count in range(1, L + 1):
        rates = law.rates(jax.random.key(0), ids, eligible, batch=n)
        rates = rates._replace(value=jnp.full(n, count), weights=jnp.full(n, L / count))
        draws = hidden(law, both, ids, eligible, rates)
        assert (draws.masks.sum(1) == count).all()
        x = jnp.broadcast_to(jnp.array(ROW), draws.masks.shape)
        total += float(negative_elbo(denoiser(), x, draws, vocab=V).nats.mean()) / L
    assert total == pytest.approx(float(continuous_bound(denoiser(), jnp.array(ROW), V)), abs=1e-9)


@pytest.mark.parametrize("context, target, tokenwise", [(False, 5.0, 5.0), (True, 8.0, 8.675)])
def test_tokens_hidden_more_often(context, target, tokenwise):
    """A row of four at r = .4, its last token hidden at .7: losses c_i, or c_i (1 + (|m| - 1) / 2)."""
    c, r, q = np.array([2, 1, 1.5, 0.5]), 0.4, np.array([0.4, 0.4, 0.4, 0.7])
    masks = all_masks(4)
    p = np.where(masks, q, 1 - q).prod(1)
    losses = np.where(masks, c, 0) * ((1 + (masks.sum(1) - 1) / 2)[:, None] if context else 1)
    n = len(masks)
    given = jnp.full(n, r), jnp.broadcast_to(jnp.asarray(q), (n, 4)), jnp.asarray(masks), jnp.ones((n, 4), bool)
    whole = Delimiters(eps=0.25).weights(*given) / 0.75
    each = Delimiters(eps=0.25, likelihood=False).weights(*given) / 0.75
    assert p @ (np.asarray(whole) * losses.sum(1)) == pytest.approx(target, abs=1e-12)
    assert p @ (np.asarray(each) * losses).sum(1) == pytest.approx(tokenwise, abs=1e-12)


def test_tokens_hidden_more_often_have_the_mean_of_the_bound():
    """Drawn: rates, masks and weights, within four standard errors; and the share of hidden tokens."""
    n = 60_000
    often = jnp.broadcast_to(jnp.array([False, True, False]), (n, L))
    draws = Delimiters(EPS, 0.2, spread=iid).draw(
        jax.random.key(0), jnp.arange(n), jnp.ones((n, L), bool), batch=n, often=often
    )
    x = jnp.broadcast_to(jnp.array(ROW), (n, L))
    nats = np.asarray(jax.jit(lambda d: negative_elbo(denoiser(), x, d, vocab=V).nats)(draws))
    assert abs(nats.mean() - truth(EPS)) < 4 * nats.std() / math.sqrt(n)
    r = EPS + (1 - EPS) * (NODES + 1) / 2
    share = (WIDTHS / 2) @ np.minimum(r + 0.2, (1 + r) / 2)
    assert draws.masks.mean(0) == pytest.approx([(1 + EPS) / 2, share, (1 + EPS) / 2], abs=0.01)


def test_a_row_hidden_in_several_ways_is_their_mean():
    """The objective's terms are those of the ways, one after the other; what is scored counts all."""
    tokens = jnp.array([ROW, ROW[::-1]])
    batch = {"tokens": tokens, "ids": jnp.arange(2)}
    for law in (ExactCount(ways=Copies(3)), Continuous(ways=mirror), Complementary(0.1)):
        terms = jax.jit(lambda b, law=law: MaskedDiffusion(V, law)(denoiser(), b, jax.random.key(1), 2))(batch)
        draws = law.draw(jax.random.key(1), batch["ids"], jnp.ones((2, L), bool), batch=2)
        k = len(draws.ids) // 2
        np.testing.assert_array_equal(draws.ids, np.repeat([0, 1], k))
        np.testing.assert_array_equal(draws.groups, np.repeat(draws.groups[::k], k))
        each = negative_elbo(denoiser(), jnp.repeat(tokens, k, axis=0), draws, vocab=V)
        np.testing.assert_allclose(terms.nats, each.nats.reshape(2, k).mean(1), rtol=1e-12)
        np.testing.assert_array_equal(terms.scored, each.scored.reshape(2, k).sum(1))
        np.testing.assert_array_equal(terms.tokens, [L, L])


def test_the_two_masks_of_a_mirror():
    """Marginals r, P(both) = max(0, 2r - 1), P(any) = min(1, 2r), Cov = -min(r, 1 - r)^2; places are u and 1 - u."""
    n = 200_000
    for r in (0.1, 0.5, 0.7):
        places = np.asarray(jax.vmap(lambda k: mirror(k, 1))(jax.random.split(jax.random.key(0), n)))[..., 0]
        np.testing.assert_allclose(places.sum(1), 1, rtol=1e-6)
        first, second = (places < r).T
        both, any_, near = (first & second).mean(), (first | second).mean(), 4.5 * 0.5 / math.sqrt(n)
        assert first.mean() == pytest.approx(r, abs=near) and second.mean() == pytest.approx(r, abs=near)
        assert both == pytest.approx(max(0, 2 * r - 1), abs=near) and any_ == pytest.approx(min(1, 2 * r), abs=near)
        assert both - first.mean() * second.mean() == pytest.approx(-(min(r, 1 - r) ** 2), abs=near)


@pytest.mark.parametrize("count, batch", [(5, 32), (6, 32), (4, 3), (1, 8)])
def test_strata_hold_as_many_rates_as_they_should(count, batch):
    """Floor or ceiling of n / S in each, n in all, n / S on average; every row uniform by itself."""
    spread = jax.vmap(lambda i: Strata(count)(jax.random.key(2), i, batch).uniform())
    u = np.asarray(jax.jit(spread)(jnp.arange(400 * batch).reshape(400, batch)))
    counts = np.stack([np.bincount(np.ceil(row * count - 1e-9).astype(int) - 1, minlength=count) for row in u])
    assert (counts.sum(1) == batch).all() and set(np.unique(counts)) <= {batch // count, -(-batch // count)}
    np.testing.assert_allclose(counts.mean(0), batch / count, atol=0.15)
    assert np.abs(u.mean(0) - 0.5).max() < 4.5 * math.sqrt(1 / 12 / 400)


def test_strata_vary_less_than_independent_rates():
    """The mean of 1 / (0.1 + t) over 32 rows: 0.1046 if independent, 0.0205 in 6 strata, 0.0067 systematic."""
    for spread, expected in ((iid, 0.1046), (Strata(6), 0.0205), (systematic, 0.0067)):
        batch = lambda key, spread=spread: (1 / (0.1 + spread(key, jnp.arange(32), 32).uniform())).mean()
        found = jax.jit(jax.vmap(batch))(jax.random.split(jax.random.key(0), 20_000))
        assert found.var() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("r", [0.1, 0.5, 0.7])
def test_every_token_of_a_union_counts_alike(r):
    """Enumerated over what u < r and 1 - u < r say of a token: E[w1 m1 + w2 m2] / 2 = 1 - eps whatever r is.

    And the mean is that of the bound for any losses of any masks, in whatever way those depend on what else is hidden.
    """
    cuts = np.unique([0, r, 1 - r, 1])
    cells = [(b - a, (a + b) / 2) for a, b in zip(cuts, cuts[1:], strict=False)]
    p, u = np.array(list(itertools.product(cells, repeat=3))).transpose(2, 0, 1)  # [cells^3, 3 tokens]
    p, n = p.prod(1), len(p)
    rates = Rates(jnp.full(n, r), jnp.ones(n), jnp.full(n, r), jnp.arange(n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdmjax.process.draws._places", lambda *_: jnp.asarray(np.stack([u, 1 - u], 1), jnp.float32))
        draws = Union(eps=0.25).hide(jax.random.key(0), jnp.arange(n), jnp.ones((n, 3), bool), rates)
    masks, weights = (np.asarray(x).reshape(n, 2, 3) for x in (draws.masks, draws.weights))
    np.testing.assert_allclose(masks.mean(1).T @ p, r, rtol=1e-6)
    np.testing.assert_allclose((weights * masks).mean(1).T @ p, 0.75, rtol=1e-6)
    table = np.random.default_rng(0).gamma(1.0, size=(8, 3)) * all_masks(3)
    losses = table[masks @ np.array([4, 2, 1])]
    target = 0.75 / r * (losses[:, 0].sum(1) @ p)
    assert (weights * losses).sum(2).mean(1) @ p == pytest.approx(target, rel=1e-6)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Clipped(0.5, 0.4), "low < high"),
        (lambda: Complementary(0.5), r"in \(0, 1/2\)"),
        (lambda: Delimiters(extra=0.0), r"in \(0, 1\)"),
        (lambda: Importance(Ramp(), max_weight=0.5), "max_weight=0.5.*at least 1"),
        (lambda: Copies(0), "count must be >= 1"),
        (lambda: Strata(0), "count must be >= 1"),
    ],
)
def test_laws_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_discrete_law_hides_in_pairs_too():
    draws = Discrete(4, ways=mirror).draw(jax.random.key(0), jnp.arange(8), jnp.ones((8, 5), bool), batch=8)
    assert draws.masks.shape == (16, 5) and (draws.t[::2] == draws.t[1::2]).all()

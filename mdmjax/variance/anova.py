"""The variance of one draw of training, split by nested analysis of variance: for any network, law and statistic.

Z is what one draw gives (a loss, a gradient); x is the example, r the rate, m the mask. Total variance twice:

    Var Z = A + B + C,   A = E_x E_r Var(Z | x, r)         masking pattern
                         B = E_x Var_r(E[Z | x, r])        masking rate
                         C = Var_x E[Z | x]                data

(arXiv 2511.18159; of a vector, the trace of its covariance.) From N examples, R independent rates of each and M masks
of each of those, with s2 the variance that divides by one less than the number,

    A_x = mean_r s2_m(Z),   B_x = s2_r(mean_m Z) - A_x / M,   C = s2_x(mean_rm Z) - mean_x(B_x / R + A_x / (R M)),

A and B the means over x: unbiased, so B and C may come out negative, and are left so. Error bars are from leaving out
one example after the other (jackknife).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from mdmjax.base import Estimate


class Moments(NamedTuple):
    """What `nested` keeps of N examples, R rates and M masks, for each of G groups of components, sorted by name."""

    facts: dict[str, Float[Array, "N R M ..."]]  # what the statistic says of each of its draws besides: their rate, say
    squares: Float[Array, "N R M G"]  # |Z|^2
    of_rates: Float[Array, "N R G"]  # |mean_m Z|^2
    of_examples: Float[Array, "N G"]  # |mean_rm Z|^2
    sketches: Float[Array, "N G k"]  # of mean_rm Z: products of two are those of the vectors, on average
    total: dict[str, Any]  # sum_x mean_rm Z, by group


class EstimatedParts(NamedTuple):
    """A, B, C and their sum, with standard errors."""

    pattern: Estimate  # A
    rate: Estimate  # B
    data: Estimate  # C
    total: Estimate


def nested(
    statistic: Callable,
    examples: Any,
    ids: Int[Array, "N"],
    key: Key[Array, ""],
    *,
    rates: int,
    masks: int,
    sketch: int = 256,
) -> Moments:
    """R = `rates` draws of the rate for each example, M = `masks` masks for each of them, one statistic at a time.

    `statistic(example, id, key of the rate, key of the mask) -> (facts, {group: pytree})`: facts are a dict of numbers
    that are kept as they are, the groups any vectors. Sequential: memory is four times that of the statistic, whatever
    N, R and M are, and `sketch` numbers an example and group. N R M statistics are computed. A function for jit, or for
    vmap, pmap or shard_map with the examples shared out. ValueError for fewer than 2 masks or rates: there is no
    variance of one.
    """
    _at_least_two(masks=masks, rates=rates)
    shape = jax.eval_shape(lambda e, i, k: statistic(e, i, k, k)[1], *_first(examples, ids), key)
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
    add = lambda a, b: jax.tree.map(jnp.add, a, b)

    def of_example(total, example):
        row, i = example
        keys = jax.random.split(jax.random.fold_in(key, i), rates)

        def of_rate(total, key):
            key_rate, key_masks = jax.random.split(key)

            def of_mask(total, key_mask):
                facts, z = statistic(row, i, key_rate, key_mask)
                return add(total, z), (facts, _squares(z))

            z, (facts, squares) = jax.lax.scan(of_mask, nothing, jax.random.split(key_masks, masks))
            z = jax.tree.map(lambda x: x / masks, z)
            return add(total, z), (facts, squares, _squares(z))

        z, by_rate = jax.lax.scan(of_rate, nothing, keys)
        z = jax.tree.map(lambda x: x / rates, z)
        return add(total, z), (*by_rate, _squares(z), _sketches(z, sketch))

    total, by_example = jax.lax.scan(of_example, nothing, (examples, ids))
    return Moments(*by_example, total)


def parts(
    moments: Moments, units: Mapping[str, str] | None = None, sums: Mapping[str, Sequence[str]] | None = None
) -> dict[str, EstimatedParts]:
    """The decomposition of every group, in `units` of its square. Jackknife over the examples: nan for two of them.

    `sums` names further groups, each of several disjoint ones: the whole gradient, say, of its parts. ValueError for
    fewer than 2 examples.
    """
    _at_least_two(examples=len(moments.squares))
    m = jax.tree.map(lambda x: np.asarray(x, np.float64), moments)
    n, r, k, _ = m.squares.shape
    names = sorted(m.total)
    squares, of_rates, of_examples, total, along = _with_sums(m, sums)
    a = ((squares.sum(2) - k * of_rates) / (k - 1)).mean(1)  # A_x
    b = (of_rates.sum(1) - r * of_examples) / (r - 1) - a / k  # B_x
    noise = b / r + a / (r * k)

    def assemble(size, a, b, squares, of_total, noise):
        data = (squares - of_total / size) / (size - 1) - noise
        return np.stack([a, b, data, a + b + data])

    whole = assemble(n, a.mean(0), b.mean(0), of_examples.sum(0), total, noise.mean(0))
    error = np.full_like(whole, np.nan)
    if n > 2:
        without = lambda x: (x.sum(0) - x) / (n - 1)
        left = assemble(
            n - 1, without(a), without(b), of_examples.sum(0) - of_examples, total - 2 * along + of_examples,
            without(noise),
        )  # fmt: skip
        error = np.sqrt((n - 1) / n * ((left - left.mean(1, keepdims=True)) ** 2).sum(1))
    what = f"nested analysis of variance, {n} examples x {r} rates x {k} masks, jackknife over examples"
    estimate = lambda i, g, unit: Estimate(float(whole[i, g]), float(error[i, g]), unit, n, what)
    unit = (units or {}).get
    every = [*names, *(sums or {})]
    return {name: EstimatedParts(*(estimate(i, g, unit(name, "")) for i in range(4))) for g, name in enumerate(every)}


def joined(moments: Sequence[Moments]) -> Moments:
    """Moments of different examples as one: what the devices of a pmap, or calls one after the other, have found."""
    *by_example, total = zip(*moments, strict=True)
    together = [jax.tree.map(lambda *x: jnp.concatenate(x), *part) for part in by_example]
    return Moments(*together, jax.tree.map(lambda *x: sum(x), *total))


def replicated(statistic: Callable, keys: Key[Array, "K"], *, sketch: int = 256) -> Moments:
    """K independent values of `statistic(key) -> {group: pytree}`, of a whole batch say; for `spread_of`."""
    shape = jax.eval_shape(statistic, keys[0])
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)

    def one(total, key):
        z = statistic(key)
        return jax.tree.map(jnp.add, total, z), (_squares(z), _sketches(z, sketch))

    total, (squares, sketches) = jax.lax.scan(one, nothing, keys)
    return Moments({}, squares[:, None, None], squares[:, None], squares, sketches, total)


def spread_of(
    moments: Moments, units: Mapping[str, str] | None = None, sums: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Estimate]:
    """Var Z of every group from `replicated` values: (sum |Z|^2 - K |mean|^2) / (K - 1).

    The error is a jackknife over them, nan for two. ValueError for one.
    """
    m = jax.tree.map(lambda x: np.asarray(x, np.float64), moments)
    names, n = sorted(m.total), len(m.of_examples)
    _at_least_two(replicates=n)
    squares, total, along = _with_sums(m, sums)[2:]
    value = (squares.sum(0) - total / n) / (n - 1)
    error = np.full_like(value, np.nan)
    if n > 2:
        left = (squares.sum(0) - squares - (total - 2 * along + squares) / (n - 1)) / (n - 2)
        error = np.sqrt((n - 1) / n * ((left - left.mean(0)) ** 2).sum(0))
    unit = (units or {}).get
    what = f"variance of {n} replicates, jackknife"
    every = [*names, *(sums or {})]
    return {name: Estimate(float(value[g]), float(error[g]), unit(name, ""), n, what) for g, name in enumerate(every)}


def means(moments: Moments, group: str, unit: str) -> Estimate:
    """The mean of a group of one component, and its standard error over the examples."""
    z = np.asarray(moments.sketches, np.float64)[:, sorted(moments.total).index(group)].sum(1)
    error = z.std(ddof=1) / np.sqrt(len(z))
    return Estimate(float(z.mean()), float(error), unit, len(z), f"mean over {len(z)} examples")


def _with_sums(m: Moments, sums: Mapping[str, Sequence[str]] | None) -> tuple[np.ndarray, ...]:
    """Squares of draws, rates, examples and of the total, and the products of the examples with the total."""
    names = sorted(m.total)
    total = np.array([sum((leaf**2).sum() for leaf in jax.tree.leaves(m.total[name])) for name in names])
    along = (m.sketches * m.sketches.sum(0)).sum(2)  # [N, G]
    found = m.squares, m.of_rates, m.of_examples, total, along
    for members in (sums or {}).values():  # squares and products of disjoint components add up
        at = [names.index(member) for member in members]
        found = tuple(np.concatenate([x, x[..., at].sum(-1, keepdims=True)], -1) for x in found)
    return found


def _at_least_two(**counts: int) -> None:
    for name, count in counts.items():
        if count < 2:
            raise ValueError(f"{name}={count}: at least 2 are needed, for there is no variance of one")


def _first(examples, ids):
    return jax.tree.map(lambda x: x[0], (examples, ids))


def _squares(groups: dict[str, Any]) -> Float[Array, "G"]:
    square = lambda tree: sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree))
    return jnp.stack([square(groups[name]) for name in sorted(groups)])


def _sketches(groups: dict[str, Any], size: int) -> Float[Array, "G k"]:
    """Components with random signs, every `size`-th of them added: E<sketch(u), sketch(v)> = <u, v>.

    A vector of at most `size` components is kept as it is, up to signs that cancel.
    """

    def sketch(tree):
        leaves = [leaf.ravel() for leaf in jax.tree.leaves(tree)]
        count, start, found = sum(leaf.size for leaf in leaves), 0, jnp.zeros(size, leaves[0].dtype)
        key = jax.random.key(count)
        for number, leaf in enumerate(leaves):  # one after the other: a copy of the whole vector is never made
            signs = jax.random.rademacher(jax.random.fold_in(key, number), leaf.shape, leaf.dtype)
            end = start + leaf.size
            found += jnp.pad(leaf * signs if count > size else leaf, (start, -end % size)).reshape(-1, size).sum(0)
            start = end % size
        return found

    return jnp.stack([sketch(groups[name]) for name in sorted(groups)])

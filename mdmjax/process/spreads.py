"""How the rates of a batch are spread, and the keys of its rows.

Randomness belongs to the example: a row's draw depends on (key, its global id) and, where rows share an offset on
purpose, on (key, the number of its batch). It does not depend on the number of devices, processes or micro-batches.
Batch number n is made of the ids n * batch .. (n + 1) * batch - 1.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

# Uses of the key of a draw: the first two by batch, the others by example.
_SHIFT, _OFFSET, _RATES, MASKS, _ALSO = range(5)


def use_key(key: Key[Array, ""], step: int | Int[Array, ""], use: int) -> Key[Array, ""]:
    """The key of one use of randomness at one step of a run. Does not consume `key`."""
    return jax.random.fold_in(jax.random.fold_in(key, step), use)


def example_keys(key: Key[Array, ""], ids: Int[Array, "B"]) -> Key[Array, "B"]:
    """One key per example, from its global id."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)


class Spread(NamedTuple):
    """How the rates of a batch are spread: row b is in stratum `stratum[b]` of `strata`, its place given by its key."""

    stratum: Int[Array, "B"]
    strata: int
    keys: Key[Array, "B"]
    groups: Int[Array, "B"]  # rows whose rates are not independent share a group

    def uniform(self) -> Float[Array, "B"]:
        """u in (0, 1], each row uniform by itself."""
        place = 1 - jax.vmap(jax.random.uniform)(self.keys)
        return (self.stratum + place) / self.strata

    def integers(self, size: Int[Array, "B"]) -> Int[Array, "B"]:
        """Uniform on 0..size-1, each row by itself; in integers, so that a full set of strata meets all alike."""
        place = jax.vmap(lambda k, n: jax.random.randint(k, (), 0, n))(self.keys, size)
        return (self.stratum * size + place) // self.strata


def iid(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """Independent rates."""
    return Spread(jnp.zeros_like(ids), 1, row_keys(key, _RATES, ids), ids)


def stratified(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """One rate in each of `batch` equal strata, independent inside it. A row's rank in its batch is id mod batch."""
    return Spread(_shifted(key, ids, batch), batch, row_keys(key, _RATES, ids), ids // batch)


def systematic(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
    """One offset for each batch: its rates are an equally spaced grid, shifted. A row's rank is id mod batch."""
    return stratified(key, ids, batch)._replace(keys=row_keys(key, _OFFSET, ids // batch))


@dataclasses.dataclass(frozen=True)
class Strata:
    """`count` equal strata for a batch of n rows: n // count rates in each, and the n mod count others in as many
    strata, chosen at random ("StraTS" of arXiv 2511.18159, there with count = sqrt(n) by default).

    The strata go round the rows by a shift that is random by batch, so each row is uniform by itself. ValueError for
    count < 1.
    """

    count: int

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"Strata(count={self.count}): count must be >= 1")

    def __call__(self, key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Spread:
        each = batch // self.count
        place = _shifted(key, ids, batch)
        chosen = lambda key: jax.random.permutation(jax.random.fold_in(key, 1), self.count)
        other = jax.vmap(lambda key, n: chosen(key)[n])(
            row_keys(key, _SHIFT, ids // batch), (place - each * self.count) % self.count
        )
        strata = jnp.where(place < each * self.count, place // max(each, 1), other)
        return Spread(strata, self.count, row_keys(key, _RATES, ids), ids // batch)


def _shifted(key: Key[Array, ""], ids: Int[Array, "B"], batch: int) -> Int[Array, "B"]:
    """A place in 0..batch-1 for each row of a batch, each uniform by itself; consecutive rows are far apart."""
    shift = jax.vmap(lambda k: jax.random.randint(k, (), 0, batch))(row_keys(key, _SHIFT, ids // batch))
    return (jnp.asarray(_balanced_order(batch))[ids % batch] + shift) % batch


def row_keys(key: Key[Array, ""], use: int, ids: Int[Array, "B"]) -> Key[Array, "B"]:
    """The keys of one use of a draw: by example, or by batch where `ids` are numbers of batches."""
    return example_keys(jax.random.fold_in(key, use), ids)


def also_eligible(
    key: Key[Array, ""], ids: Int[Array, "B"], among: Bool[Array, "B L"], share: float
) -> Bool[Array, "B L"]:
    """Each of the positions `among` by itself with probability `share`; `key`, that of the draw, is not consumed."""
    places = jax.vmap(lambda k: jax.random.uniform(k, among.shape[1:]))(row_keys(key, _ALSO, ids))
    return (places < share) & among


def _balanced_order(n: int) -> np.ndarray:
    """The van der Corput order of 0..n-1, in which consecutive rows are far apart in rate.

    For n and g powers of two, rows k g .. k g + g - 1 are an evenly spaced grid by themselves: a device's or a
    micro-batch's share of a batch hides about half of its tokens, which bounds the work on a share. For other sizes the
    mean rate of such rows may be off by up to about 1.6 / g.
    """
    bits = max(1, (n - 1).bit_length())
    reversed_bits = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(n)]
    return np.argsort(np.argsort(reversed_bits)).astype(np.int32)

"""Several draws of the same rows: how many rates, and how many masks for each of them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from mdmjax.base import Draws
from mdmjax.process.draws import Law
from mdmjax.process.spreads import example_keys


@dataclasses.dataclass(frozen=True)
class Allocation:
    """`rates` rates of each row and `masks` masks for each rate: n = rates x masks draws, whose mean is the estimate.

    With V_t = Var_r E[Z | r] and V_y = E_r Var(Z | r) of a single draw Z, independent rates and masks give

        Var(mean) = V_t / rates + V_y / (rates x masks)

    (arXiv 2505.19223, section 3), least for a given n where every mask has a rate of its own. ValueError for a number
    below 1.
    """

    rates: int = 8
    masks: int = 1

    def __post_init__(self):
        if self.rates < 1 or self.masks < 1:
            raise ValueError(f"Allocation(rates={self.rates}, masks={self.masks}): both must be at least 1")

    @property
    def draws(self) -> int:
        """n."""
        return self.rates * self.masks

    def draw(
        self,
        law: Law,
        key: Key[Array, ""],
        ids: Int[Array, "B"],
        eligible: Bool[Array, "B L"],
        *,
        rates_of: Int[Array, "B"] | None = None,
    ) -> Draws:
        """n draws of each of the rows `ids` by the law, arrays with a leading axis n (n K for a law of K ways).

        The rates of a row are spread over its own draws (`law.spread`): systematic ones are equally spaced. Its
        randomness is that of fold_in(key, its id) alone, so it depends neither on the other rows nor on their number.
        `groups` tells rows apart, and inside a row what is independent. Rows with the same number in `rates_of` (`ids`
        if not given) draw their rates with the same key. `key` is only folded.
        """
        n = self.draws

        def of_row(key, rates_key, row_id, eligible):
            rows = jnp.broadcast_to(eligible, (n, *eligible.shape))
            rates = law.rates(rates_key, jnp.arange(self.rates), rows[: self.rates], batch=self.rates)
            each = jax.tree.map(lambda x: jnp.repeat(x, self.masks), rates)
            made = law.hide(key, jnp.arange(n), rows, each)
            return dataclasses.replace(made, ids=jnp.full_like(made.ids, row_id), groups=row_id * n + made.groups)

        keys = [example_keys(key, x) for x in (ids, ids if rates_of is None else rates_of)]
        return jax.vmap(of_row, out_axes=1)(*keys, ids, eligible)

"""A baseline of the logged loss by mask rate: the number varies less, what is trained does not know of it.

Rows that are hidden more have another loss; what the rows of a batch have of that by chance is taken off the loss that
is logged (the EMA of arXiv 2511.18159). The draws do not depend on the parameters, so nothing of it has a gradient.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mdmjax.objectives import Terms

_RIDGE = 1e-6  # (nats/token)^2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Baseline:
    """Moving means of the loss in K bins of a row's masked share, equal in width; a state as a run keeps it.

    With l_k the loss per token of the rows of bin k, f_k their share of the batch's tokens, and b, p moving means of l
    and f (of bins with rows), each from the batches before,

        adjusted = loss - c sum_k f_k (b_k - e),   e = sum_k p_k b_k,   c = Cov / (Var + 1e-6)

    where Cov and Var are moving means of sum_k f_k (l_k - e) (b_k - e) and sum_k f_k (b_k - e)^2, or c is given. Moving
    means are m + rate (x - m), the first 1 / rate of them plain means. (The authors' loss - c b has another mean.)

    The mean of one adjusted loss given the past is not that of the loss: it is off by c sum_k (p_k - q_k) b_k, q being
    the shares that the law has. But sum_t (f - p) = (p_T - p_0) / rate whatever is drawn, so with b and c at rest
    the mean over T steps is off by O(1 / (rate T)). As b and c move with the draws of p, a term of the order of the
    rate can stay. A law that changes (a refit) moves the number for some 1 / rate steps. Where rates are spread evenly
    over a batch, f hardly varies, and there is little to take off.
    """

    means: Float[Array, "K"]  # b, nats a token
    shares: Float[Array, "K"]  # p
    moments: Float[Array, "2"]  # Cov, Var
    seen: Int[Array, "K"]  # batches that had rows of the bin
    batches: Int[Array, ""]
    rate: float = dataclasses.field(default=0.01, metadata=dict(static=True))
    coefficient: float | None = dataclasses.field(default=None, metadata=dict(static=True))  # c; None: fitted

    @classmethod
    def start(cls, bins: int = 8, rate: float = 0.01, coefficient: float | None = None) -> "Baseline":
        """Before the first batch. ValueError for fewer than 2 bins, and a rate that is not in (0, 1]."""
        if bins < 2:
            raise ValueError(f"bins={bins}: must be at least 2, for one mean tells no rates apart")
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate}: must be in (0, 1]")
        nothing, none = jnp.zeros(bins), jnp.zeros(bins, jnp.int32)
        return cls(nothing, nothing, jnp.zeros(2), none, jnp.zeros((), jnp.int32), rate, coefficient)

    def sums(self, terms: Terms) -> tuple[Int[Array, "K"], Float[Array, "K"]]:
        """(tokens, nats) of the rows of each bin, which add up over the parts of a batch.

        A row is in the bin of the share that the first of its ways hides. ValueError where the objective has no ways.
        """
        if terms.hidden is None:
            raise ValueError("the objective does not say how much of a row is hidden, and a baseline is by that")
        bins = len(self.means)
        place = (terms.hidden * bins - 1) // jnp.maximum(terms.tokens, 1)  # integers: the same bin on every device
        rows = jax.nn.one_hot(jnp.clip(place, 0, bins - 1), bins, dtype=bool)
        total = lambda x: jnp.where(rows, x[:, None], 0).sum(0)
        return total(terms.tokens), total(jax.lax.stop_gradient(terms.nats))

    def step(self, sums: tuple[Int[Array, "K"], Float[Array, "K"]]) -> tuple["Baseline", Float[Array, ""]]:
        """(the state after a batch of these sums, what is taken off its loss)."""
        tokens, nats = sums
        share, loss = tokens / jnp.maximum(tokens.sum(), 1), nats / jnp.maximum(tokens, 1)
        level = (self.shares * self.means).sum()  # e
        offset = jnp.where(self.seen > 0, self.means - level, 0.0)  # of a bin that is new nothing is known
        moments = jnp.stack([(share * (loss - level) * offset).sum(), (share * offset**2).sum()])
        fitted = self.moments[0] / (self.moments[1] + _RIDGE)
        taken = (fitted if self.coefficient is None else self.coefficient) * (share * offset).sum()

        moved = lambda old, new, before: old + jnp.maximum(self.rate, 1 / (before + 1)) * (new - old)
        means = jnp.where(tokens > 0, moved(self.means, loss, self.seen), self.means)
        after = dataclasses.replace(
            self, means=means, shares=moved(self.shares, share, self.batches),
            moments=moved(self.moments, moments, self.batches), seen=self.seen + (tokens > 0), batches=self.batches + 1,
        )  # fmt: skip
        return after, taken

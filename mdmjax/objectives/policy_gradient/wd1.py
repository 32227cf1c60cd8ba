"""wd1 (arXiv 2507.08838): weighted likelihoods, without a ratio of policies."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Draws
from mdmjax.objectives.policy_gradient.diffu_grpo import check_share, mean_field
from mdmjax.objectives.policy_gradient.interface import weighted


def wd1_advantages(advantages: Float[Array, "G g"]) -> Float[Array, "G g"]:
    """softmax(A) - softmax(-A) inside each group: what a completion's negative log-likelihood is weighted with."""
    return jax.nn.softmax(advantages, 1) - jax.nn.softmax(-advantages, 1)


@dataclasses.dataclass(frozen=True)
class WD1:
    """sum_g softmax(A)_g NLL_g - sum_g softmax(-A)_g NLL_g with the mean-field log p of `DiffuGRPO`.

    The batch's advantages are `wd1_advantages`, which sum to 0 over a group. No ratio, no clip, no reference; the
    surrogate is biased as the mean field is. Divided by the number of completions. ValueError for `prompt` outside
    [0, 1].
    """

    prompt: float = 0.0

    def __post_init__(self):
        check_share(self.prompt, "WD1")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], eligible: Bool[Array, "B L"], *, batch: int) -> Draws:
        return mean_field(key, ids, eligible, self.prompt)

    def surrogate(self, log_p, draws, eligible, advantages) -> Float[Array, "B"]:
        return weighted(log_p, draws).sum(1)

    def loss(self, current, old, reference, advantages, eligible) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
        return -advantages * current, jnp.ones(len(current), jnp.int32)

"""Losses of a policy: cross-entropy of tokens at masks, and of the three decisions everywhere.

Sums come out per example, with what they are over; who calls divides.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.anyprocess.policy import CONTROLS, Policy
from mdmjax.anyprocess.teachers import IGNORE
from mdmjax.anyprocess.transition import within
from mdmjax.objectives import Terms

REDUCTIONS = ("global", "per_sequence")
Three = tuple[float, float, float]  # one number for each of CONTROLS


class Targets(NamedTuple):
    """What is to be learnt at each position of a canvas."""

    values: Int[Array, "B N"]  # the token, at the masks where it is learnt; IGNORE elsewhere
    controls: Bool[Array, "B N 3"]  # the decisions, in the order of CONTROLS
    scored: Bool[Array, "B N 3"]  # where each of them is learnt
    weights: Float[Array, "B"]  # factor of the row's cross-entropies at masks


class Losses(NamedTuple):
    """Sums over the positions of each example, and how many terms they have."""

    unmask: Float[Array, "B"]  # of -log p(value), times the row's weight
    controls: Float[Array, "B 3"]  # of the binary cross-entropies of each decision
    unmasked: Int[Array, "B"]  # |U|
    scored: Int[Array, "B 3"]


class Decisions(NamedTuple):
    """How often each of CONTROLS was right. Sum the counts over examples before you divide: operations are rare."""

    hits: Int[Array, "*B 3"]  # wanted, and decided
    decided: Int[Array, "*B 3"]
    wanted: Int[Array, "*B 3"]

    def total(self) -> "Decisions":
        """Summed over the examples."""
        return Decisions(*(x.sum(0) for x in self))

    def precision(self) -> Float[Array, "*B 3"]:
        """hits / decided, NaN where nothing was decided."""
        return jnp.where(self.decided > 0, self.hits / jnp.maximum(self.decided, 1), jnp.nan)

    def recall(self) -> Float[Array, "*B 3"]:
        """hits / wanted, NaN where nothing was wanted."""
        return jnp.where(self.wanted > 0, self.hits / jnp.maximum(self.wanted, 1), jnp.nan)


def process_targets(batch: Mapping[str, Array], vocab: int) -> Targets:
    """The targets of process tuples, arrays as `teachers.padded` makes them (arXiv 2510.06190).

    Values are learnt at U, the masks inside a row that have one; decisions at all positions inside it, masks or not.
    The label of insert is q > 0: counts above one cannot be said by one bit, see `check_bits`. Where the batch has
    `decides` [B], no decision is learnt in the rows that are False: no states of a teacher.
    """
    inside = within(batch["tokens"], batch["lengths"])
    decides = inside & batch["decides"][:, None] if "decides" in batch else inside
    learnt = inside & (batch["tokens"] == vocab) & (batch["values"] != IGNORE)
    controls = jnp.stack([batch[name] > 0 for name in CONTROLS], axis=-1) & inside[..., None]
    return Targets(
        jnp.where(learnt, batch["values"], IGNORE),
        controls,
        jnp.broadcast_to(decides[..., None], controls.shape),
        jnp.ones(len(inside)),
    )


def policy_losses(
    logits: Float[Array, "B N V"],
    controls: Float[Array, "B N 3"],
    targets: Targets,
    *,
    pos_weight: Three = (1.0, 1.0, 1.0),
) -> Losses:
    """For each row b, in float32 at least,

        unmask_b   = weights_b sum_{i in U} -log softmax(logits_i)[values_i]
        controls_b = sum_{i scored} (pos_weight c softplus(-z) + (1 - c) softplus(z)),  c the label and z the logit.

    Other positions contribute exactly 0 to the sums and to their gradients. With a pos_weight w a decision of
    probability p is learnt as w p / (w p + 1 - p).
    """
    float32 = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    learnt = targets.values != IGNORE
    # what is not scored is taken out before the logarithms, so that no infinity there comes back as a gradient of NaN
    logits = jnp.where(learnt[..., None], float32(logits), 0)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(learnt, targets.values, 0))
    z = jnp.where(targets.scored, float32(controls), 0)
    positive = jnp.asarray(pos_weight, z.dtype)[None, None] * jax.nn.softplus(-z)
    binary = jnp.where(targets.controls, positive, jax.nn.softplus(z))
    return Losses(
        targets.weights * jnp.where(learnt, nats, 0).sum(1),
        jnp.where(targets.scored, binary, 0).sum(1),
        learnt.sum(1),
        targets.scored.sum(1),
    )


def supervised_loss(losses: Losses, *, weights: Three = (1.0, 1.0, 1.0), reduction: str = "global") -> Float[Array, ""]:
    """L = L_unmask + sum_op weights_op L_op in nats (arXiv 2510.06190), a part without terms being 0.

    "global": each part is its sum over the batch, divided once by its number of terms: |U|, or the valid positions.
    "per_sequence": the same for each row by itself, then the mean over rows. ValueError for another reduction.
    """
    _check(reduction)
    if reduction == "global":
        losses = jax.tree.map(lambda x: x.sum(0, keepdims=True), losses)
    return _by_row(losses, weights).mean()


def decisions(controls: Float[Array, "B N 3"], targets: Targets, thresholds: Three = (0.5, 0.5, 0.5)) -> Decisions:
    """Counts by example of what is decided where sigmoid(logit) > threshold, against the labels, where scored."""
    decided = (jax.nn.sigmoid(controls) > jnp.asarray(thresholds)[None, None]) & targets.scored
    wanted = targets.controls & targets.scored
    return Decisions((decided & wanted).sum(1), decided.sum(1), wanted.sum(1))


@dataclasses.dataclass(frozen=True)
class Supervised:
    """The loss of process tuples as the training loop takes it: `objective(policy, batch, key, size) -> Terms`.

    The batch holds what `teachers.padded` makes. The loop sums `nats` over the batch and divides by the sum of
    `tokens`. What is divided by what, with S_u the sum over U and S_op those of the decisions:

    "global": tokens are the valid positions, and nats are balance S_u + sum_op weights_op S_op. So the decisions are
    divided by the number of valid positions, and S_u by that number / balance. Without a `balance` it is
    #valid / |U| of the batch, and the quotient is `supervised_loss` exactly; but then the batch must not come in parts,
    whose own ratio is another: ValueError where fewer rows than `size` are given (micro-batches, pmap). A given number
    works with any layout: with that of all the tuples (`balance_of`), S_u is divided by the |U| that a batch of so many
    valid positions has on average. Where rows of the batch decide nothing (`decides`), the decisions of the others are
    still divided by all valid positions: they weigh less than in `supervised_loss`, by the share that is scored.

    "per_sequence": tokens are 1 for each row that is not empty, and the quotient is `supervised_loss` over those rows,
    in parts or not; nats per row, then, though the loop says per token.

    ValueError for another reduction, and for a `balance` with "per_sequence" or not above 0.
    """

    vocab: int
    weights: Three = (1.0, 1.0, 1.0)
    pos_weight: Three = (1.0, 1.0, 1.0)
    reduction: str = "global"
    balance: float | None = None

    def __post_init__(self):
        _check(self.reduction)
        if self.balance is not None and (self.reduction != "global" or not self.balance > 0):
            raise ValueError(f"Supervised(balance={self.balance}): a number above 0, and for reduction='global' only")

    def __call__(self, policy: Policy, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens, lengths = batch["tokens"], batch["lengths"]
        logits, controls = policy(jnp.where(within(tokens, lengths), tokens, self.vocab + 1), lengths)
        losses = policy_losses(logits, controls, process_targets(batch, self.vocab), pos_weight=self.pos_weight)
        if self.reduction == "per_sequence":
            return Terms(_by_row(losses, self.weights), (lengths > 0).astype(jnp.int32), losses.unmasked)
        if self.balance is not None:
            balance = self.balance
        elif len(tokens) == size:
            balance = lengths.sum() / jnp.maximum(losses.unmasked.sum(), 1)
        else:
            raise ValueError(
                f"Supervised(): {len(tokens)} rows of a batch of {size}: give `balance` (such as `balance_of` all "
                "tuples), or reduction='per_sequence', where a batch comes in parts"
            )
        return Terms(balance * losses.unmask + _weighted(losses.controls, self.weights), lengths, losses.unmasked)


def balance_of(tuples: Mapping[str, np.ndarray], vocab: int) -> float:
    """#valid / |U| of process tuples as `teachers.padded` makes them, on the host; 1 where U is empty.

    ValueError as `check_bits`.
    """
    check_bits(tuples)
    inside = np.arange(tuples["tokens"].shape[1]) < tuples["lengths"][:, None]
    learnt = inside & (tuples["tokens"] == vocab) & (tuples["values"] != IGNORE)
    return float(inside.sum() / learnt.sum()) if learnt.any() else 1.0


def check_bits(tuples: Mapping[str, np.ndarray]) -> None:
    """ValueError, which names the first row, where more than one mask is inserted behind a position: a policy that
    decides by a bit cannot learn that."""
    rows = np.flatnonzero((tuples["insert"] > 1).any(1))
    if len(rows):
        raise ValueError(f"row {rows[0]} inserts {tuples['insert'][rows[0]].max()} masks at once: at most one, a bit")


def _check(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: must be one of {', '.join(REDUCTIONS)}")


def _by_row(losses: Losses, weights: Three) -> Float[Array, "B"]:
    """Each row's means over its own terms, added up."""
    parts = losses.controls / jnp.maximum(losses.scored, 1)
    return losses.unmask / jnp.maximum(losses.unmasked, 1) + _weighted(parts, weights)


def _weighted(controls: Float[Array, "B 3"], weights: Three) -> Float[Array, "B"]:
    return (controls * jnp.asarray(weights, controls.dtype)[None]).sum(1)

"""The losses of a policy on clean text, as the training loop takes them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdmjax.anyprocess.corruptions import Corruption, mixed
from mdmjax.anyprocess.losses import Three, policy_losses
from mdmjax.anyprocess.policy import Policy
from mdmjax.objectives import Terms


@dataclasses.dataclass(frozen=True)
class SelfSupervised:
    """The losses of corruptions of clean text as the training loop takes them: `objective(policy, batch, key, size)`.

    The batch holds `tokens` [B, L], `ids` [B] and, where rows differ, `lengths` [B]. Each corruption is a pass of the
    policy of its own, with its own noise. Per row, nats are the sum over the passes of

        weights_b sum_{true masks} -log p(x_i)  +  sum_op weights_op (binary cross-entropy where op is scored),

    and tokens are the clean ones, by which the loop divides: all is per clean token, and so the same however a batch is
    cut into parts (but for `permute`). For `unmask` and `remask` that is the paper's mean; the others have fewer or
    more positions than there are clean tokens, on average by a constant factor, which `weights` may take back. A row
    that does not fit into a buffer of `room` positions is left out: neither scored nor counted. By default all fit.
    """

    vocab: int
    corruptions: tuple[Corruption, ...] = (mixed(),)
    weights: Three = (1.0, 1.0, 1.0)
    pos_weight: Three = (1.0, 1.0, 1.0)
    room: int | None = None

    def __call__(self, policy: Policy, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens, ids = batch["tokens"], batch["ids"]
        lengths = batch.get("lengths", jnp.full(len(tokens), tokens.shape[1], jnp.int32))
        nats, scored, fits = jnp.zeros(len(tokens)), jnp.zeros_like(lengths), jnp.ones(len(tokens), bool)
        for number, corruption in enumerate(self.corruptions):
            use = jax.random.fold_in(key, number)
            noise = corruption.draw(use, ids, tokens, lengths, vocab=self.vocab, batch=size)
            canvas, targets = corruption.corrupt(tokens, lengths, noise, vocab=self.vocab, size=self.room)
            found = policy_losses(*policy(canvas.tokens, canvas.lengths), targets, pos_weight=self.pos_weight)
            nats = nats + found.unmask + found.controls @ jnp.asarray(self.weights, nats.dtype)
            scored = scored + found.unmasked * corruption.learns[0]
            fits = fits & ~canvas.overflow
        return Terms(jnp.where(fits, nats, 0), jnp.where(fits, lengths, 0), jnp.where(fits, scored, 0))

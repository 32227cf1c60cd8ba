"""PRISM (arXiv 2510.01384): a head that says of each token how likely it is right, learnt from the model's own tokens.

The head is a policy's remask head, turned round: its logit is that of "wrong", so q_i = sigmoid(-remask logit_i).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.anyprocess.policy import CONTROLS, Policy
from mdmjax.anyprocess.transition import within
from mdmjax.objectives import Terms
from mdmjax.process import Continuous, Law, example_keys
from mdmjax.sampling import TokenDraw

BOUND, DRAW = Continuous(t_min=1e-3), TokenDraw()
REMASK_SLOT = CONTROLS.index("remask")
_CHOICE, _FILL = 24, 25  # uses of the key of a draw, beside those of the law of masks


class Filled(NamedTuple):
    """Rows some of whose masks the model has filled."""

    tokens: Int[Array, "B L"]  # y: clean tokens, masks, and what the model has written
    filled: Bool[Array, "B L"]  # S, where it has
    right: Bool[Array, "B L"]  # where that is the clean token


def quality(controls: Float[Array, "*n 3"]) -> Float[Array, "*n"]:
    """q in (0, 1), the probability that a token is right, of a policy's control logits."""
    return jax.nn.sigmoid(-controls[..., REMASK_SLOT])


def remask_logit(q: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """-log(q / (1 - q)), what a quality q is in the remask slot of the control logits."""
    return jnp.log1p(-q) - jnp.log(q)


def fill(
    key: Key[Array, ""],
    ids: Int[Array, "B"],
    logits: Float[Array, "B L V"],
    tokens: Int[Array, "B L"],
    masks: Bool[Array, "B L"],
    *,
    vocab: int,
    count: int,
    draw: TokenDraw = DRAW,
) -> Filled:
    """The clean `tokens` with `masks`, `count` of which (uniformly chosen; all where there are fewer) are filled by
    tokens drawn from the logits, each by itself. By example; `key` is only folded, and no gradient passes."""
    keys = lambda use: example_keys(jax.random.fold_in(key, use), ids)
    places = jax.vmap(lambda k: jax.random.uniform(k, tokens.shape[1:]))(keys(_CHOICE))
    rank = jnp.argsort(jnp.argsort(jnp.where(masks, places, 2.0), axis=1), axis=1)
    filled = masks & (rank < count)
    of_row = lambda key, logits: jax.vmap(draw)(jax.random.split(key, len(logits)), logits)[0]
    written = jax.vmap(of_row)(keys(_FILL), jax.lax.stop_gradient(logits)).astype(tokens.dtype)
    made = jnp.where(filled, written, jnp.where(masks, vocab, tokens)).astype(tokens.dtype)
    return Filled(made, filled, filled & (written == tokens))


def quality_loss(controls: Float[Array, "B L 3"], found: Filled) -> Float[Array, "B"]:
    """sum over S of the binary cross-entropy of q_i against 1[y_i = x_i], for each row, in float32 at least.

    The minimum is q_i(y) = P(x_i = y_i | y, i in S). Where one mask is filled, that is what the paper says,
    P(x_i = y_i | y with i masked), the posterior of the data whatever the model. Where more are, it is so no longer
    (derived): the others in S are the model's and not the data's, and y_i says something about which they are.
    """
    z = controls[..., REMASK_SLOT].astype(jnp.promote_types(controls.dtype, jnp.float32))
    z = jnp.where(found.filled, z, 0)
    return jnp.where(found.filled, jax.nn.softplus(jnp.where(found.right, z, -z)), 0).sum(1)


@dataclasses.dataclass(frozen=True)
class Prism:
    """The loss of PRISM as the training loop takes it: `objective(policy, batch, key, size)`.

    A clean row x is masked by `law` to z; the policy fills `count` of the masks, which makes y; with a second pass

        nats = quality * quality_loss(y) + unmask * weight sum_{masks of z} -log p(x_i | z).

    The second part keeps the policy a model of the masks; unmask = 0 is for a head on a model that stays as it is.
    The batch holds `tokens` [B, L], `ids` [B] and, where rows differ, `lengths` [B]; Terms count clean tokens.
    ValueError for count < 1, and for a law that hides a row in several ways or weights its tokens one by one.
    """

    vocab: int
    count: int = 1
    law: Law = BOUND
    quality: float = 1.0
    unmask: float = 1.0
    draw: TokenDraw = DRAW

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"Prism(count={self.count}): at least one mask must be filled")

    def __call__(self, policy: Policy, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens, ids = batch["tokens"], batch["ids"]
        lengths = batch.get("lengths", jnp.full(len(tokens), tokens.shape[1], jnp.int32))
        inside = within(tokens, lengths)
        draws = self.law.draw(key, ids, inside, batch=size)
        if draws.weights.shape != lengths.shape:
            raise ValueError(f"Prism(law={self.law}): must hide a row in one way, with one weight")
        clean = jnp.where(inside, tokens, self.vocab + 1)
        logits, _ = policy(jnp.where(draws.masks, self.vocab, clean), lengths)
        how = dict(vocab=self.vocab, count=self.count, draw=self.draw)
        found = fill(key, ids, logits, clean, draws.masks, **how)
        _, controls = policy(found.tokens, lengths)
        wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        scored = jnp.where(draws.masks[..., None], wide, 0)
        known = optax.softmax_cross_entropy_with_integer_labels(scored, jnp.where(draws.masks, tokens, 0))
        masked = draws.weights * jnp.where(draws.masks, known, 0).sum(1)
        nats = self.quality * quality_loss(controls, found) + self.unmask * masked
        return Terms(nats, lengths, found.filled.sum(1))


def with_quality(policy: Policy, logits: Callable, *, vocab: int, count: int | None = None) -> Policy:
    """The policy whose remask slot is a quality head's: `logits(tokens, lengths)` [B, N] are those of q.

    At visible tokens the remask logit is -logit q, so that a threshold p (`Decoding`) remasks where q < 1 - p; with
    `count` just the `count` tokens of the lowest q of each row are remasked (ties: the first), whatever the threshold.
    At masks the slot says which of them wait, and stays the policy's. (A policy trained by `Prism` has its head in the
    slot already: `lambda tokens, lengths: -policy(tokens, lengths)[1][..., REMASK_SLOT]` is it.)
    """

    def joined(tokens, lengths):
        values, controls = policy(tokens, lengths)
        wrong = -logits(tokens, lengths)
        visible = within(tokens, lengths) & (tokens != vocab)
        if count is not None:
            rank = jnp.argsort(jnp.argsort(jnp.where(visible, -wrong, jnp.inf), axis=1), axis=1)
            wrong = jnp.where(rank < count, jnp.inf, -jnp.inf)
        slot = jnp.where(visible, wrong.astype(controls.dtype), controls[..., REMASK_SLOT])
        return values, controls.at[..., REMASK_SLOT].set(slot)

    return joined

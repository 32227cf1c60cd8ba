"""DreamOn (Wu et al., hkunlp.github.io/blog/2025/dreamon): two more tokens that a model may predict at a mask.

EXPAND makes two masks of one, DELETE takes it out: (r = 1, e = 1) and (d = 1) of the same transition, without heads of
their own. In the logits [B, N, V + 2] of such a model EXPAND is number V and DELETE number V + 1; neither ever stands
in a canvas, where V is the mask.
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.anyprocess.corruptions import true_first
from mdmjax.anyprocess.policy import Policy
from mdmjax.anyprocess.teachers import IGNORE
from mdmjax.anyprocess.transition import Controls, rebuilt, within
from mdmjax.base import Canvas
from mdmjax.objectives import Terms
from mdmjax.process import Continuous, Law, example_keys

BOUND = Continuous(t_min=1e-3)
_MERGE, _SURPLUS = 24, 25  # uses of the key of a draw, beside those of the law of masks


@runtime_checkable
class ExpandingModel(Protocol):
    """`model(tokens [B, N], lengths [B]) -> logits [B, N, V + 2]`, of tokens, EXPAND and DELETE, read at masks only."""

    def __call__(self, tokens: Int[Array, "B N"], lengths: Int[Array, "B"]) -> Float[Array, "B N V2"]: ...


def expand_controls(labels: Int[Array, "B N"], canvas: Canvas, *, vocab: int) -> Controls:
    """The controls that do what the labels 0..V+1 say at masks. A mask with the label IGNORE waits; at other positions
    the labels are not read."""
    masks = within(canvas.tokens, canvas.lengths) & (canvas.tokens == vocab)
    expand = masks & (labels == vocab)
    waits = masks & (labels == IGNORE)
    values = jnp.where(masks & (labels < vocab), labels, IGNORE)
    return Controls(values, expand | waits, expand.astype(jnp.int32), masks & (labels == vocab + 1))


def most_certain(
    labels: Int[Array, "B N"], certainty: Float[Array, "B N"], canvas: Canvas, *, vocab: int, count: int | None
) -> Int[Array, "B N"]:
    """The labels of the `count` masks of each row of the greatest certainty (ties: the first), IGNORE at the others.
    None: of all masks."""
    masks = within(canvas.tokens, canvas.lengths) & (canvas.tokens == vocab)
    if count is not None:
        rank = jnp.argsort(jnp.argsort(jnp.where(masks, -certainty, jnp.inf), axis=1), axis=1)
        masks = masks & (rank < count)
    return jnp.where(masks, labels, IGNORE)


def expanding_policy(model: ExpandingModel, *, vocab: int, count: int | None = 1) -> Policy:
    """The policy of the most probable labels, at the `count` masks where they are the most probable; others wait.

    Its controls are decided, +inf or -inf, so `generate` does the same at any threshold inside (0, 1), drawing tokens
    or not; a row comes to its fixed point when no mask is left. EXPAND and DELETE may undo one another without end,
    where training merges masks and puts them in so often that this is likelier than the tokens; such a row runs into
    the limit of steps.
    """

    def policy(tokens, lengths):
        logits = model(tokens, lengths)
        canvas = Canvas(tokens, lengths, jnp.zeros(len(tokens), bool))
        certainty = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32))).max(2)
        best = jnp.argmax(logits, axis=2).astype(jnp.int32)
        labels = most_certain(best, certainty, canvas, vocab=vocab, count=count)
        controls = expand_controls(labels, canvas, vocab=vocab)
        bits = jnp.stack([controls.remask, controls.insert > 0, controls.delete], axis=-1)
        return logits[..., :vocab], jnp.where(bits, jnp.inf, -jnp.inf)

    return policy


class Merging(NamedTuple):
    """Everything random in one estimate for clean rows [B, L], made once and passed on; never drawn again."""

    weights: Float[Array, "B"]  # of the law of masks
    masks: Bool[Array, "B L"]
    joined: Bool[Array, "B L"]  # where the mask is one with the mask before it
    surplus: Int[Array, "B L"]  # clean positions behind which one more mask stands, in no order; IGNORE for none


class Expandable(NamedTuple):
    """A canvas made of clean rows, and the labels of its masks: a token, EXPAND or DELETE; IGNORE elsewhere."""

    canvas: Canvas
    labels: Int[Array, "B N"]


@dataclasses.dataclass(frozen=True)
class DreamOn:
    """The loss of DreamOn as the training loop takes it: `objective(model, batch, key, size)`.

    Of a clean row, tokens are masked by `law`; each mask beside a mask is merged with it, at a rate r ~ U(0, merge) of
    the row; and k ~ Binomial(n, surplus) masks stand at uniform gaps, n the length. (That masks are merged and put in
    is the authors'; these rates are ours.) Then

        nats = w sum_{masks} -log softmax(logits_i)[label_i],      w = the law's weight if `weighted`, or 1.

    It is no bound. Per canvas its minimum is the posterior of the labels, weighted by w.

    The batch holds `tokens` [B, L], `ids` [B] and, where rows differ, `lengths` [B] and `eligible` [B, L], the tokens
    that may be masked. Terms count clean tokens. A row that does not fit into a buffer of `room` positions is left out,
    neither scored nor counted; by default (2 L) all fit. ValueError for rates outside [0, 1], and for a law that hides
    a row in several ways or weights its tokens one by one.
    """

    vocab: int
    law: Law = BOUND
    merge: float = 1.0
    surplus: float = 0.3
    weighted: bool = True
    room: int | None = None

    def __post_init__(self):
        for name in ("merge", "surplus"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"DreamOn({name}={getattr(self, name)}): must be in [0, 1]")

    def draw(
        self,
        key: Key[Array, ""],
        ids: Int[Array, "B"],
        lengths: Int[Array, "B"],
        eligible: Bool[Array, "B L"],
        *,
        batch,
    ) -> Merging:
        """The noise of rows `ids` of a batch of `batch`; `key` is only folded."""
        size = eligible.shape[1]
        draws = self.law.draw(key, ids, eligible, batch=batch)
        if draws.weights.shape != lengths.shape:
            raise ValueError(f"DreamOn(law={self.law}): must hide a row in one way, with one weight")

        def uniforms(use, count):
            keys = example_keys(jax.random.fold_in(key, use), ids)
            return jax.vmap(lambda k: jax.random.uniform(k, (count,)))(keys)

        u = uniforms(_MERGE, size + 1)
        before = jnp.pad(draws.masks[:, :-1], ((0, 0), (1, 0)))
        joined = draws.masks & before & (u[:, 1:] < self.merge * u[:, :1])
        coins, places = jnp.split(uniforms(_SURPLUS, 2 * size), 2, axis=1)
        gaps = jnp.minimum((places * lengths[:, None]).astype(jnp.int32), lengths[:, None] - 1)
        inside = jnp.arange(size)[None] < lengths[:, None]
        return Merging(draws.weights, draws.masks, joined, jnp.where((coins < self.surplus) & inside, gaps, IGNORE))

    def corrupt(self, tokens: Int[Array, "B L"], lengths: Int[Array, "B"], noise: Merging) -> Expandable:
        """The canvas that the noise makes, and its labels.

        A mask that stands for one token has that label; one that stands for more, EXPAND: two masks take its place, of
        which the second may stand for several again. The rest are DELETE. Masks side by side look alike, so in a run
        those that stand for tokens come first, in order, and then the surplus.
        """
        length = tokens.shape[1]
        size = 2 * length if self.room is None else self.room
        inside = within(tokens, lengths)
        rows = jnp.arange(len(tokens))[:, None]
        more = jnp.zeros(tokens.shape, jnp.int32)
        more = more.at[rows, jnp.where(noise.surplus >= 0, noise.surplus, length)].add(1, mode="drop")
        written = jnp.where(noise.masks, self.vocab, tokens).astype(tokens.dtype)
        canvas, places, needed = rebuilt(written, inside & ~noise.joined, more, size, vocab=self.vocab)
        clean = jnp.broadcast_to(jnp.arange(length)[None], tokens.shape)
        masked = canvas == self.vocab
        origin = true_first(jnp.full(canvas.shape, -1).at[rows, places].set(clean, mode="drop"), masked)
        stands_for_more = jnp.pad(noise.joined[:, 1:], ((0, 0), (0, 1)))
        of_clean = jnp.where(stands_for_more, self.vocab, tokens)
        found = jnp.where(origin >= 0, jnp.take_along_axis(of_clean, jnp.maximum(origin, 0), axis=1), self.vocab + 1)
        overflow = needed > size
        labels = jnp.where(masked & ~overflow[:, None], found, IGNORE).astype(tokens.dtype)
        return Expandable(Canvas(canvas, jnp.minimum(needed, size), overflow), labels)

    def __call__(self, model: ExpandingModel, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens = batch["tokens"]
        lengths = batch.get("lengths", jnp.full(len(tokens), tokens.shape[1], jnp.int32))
        eligible = batch.get("eligible", jnp.ones(tokens.shape, bool)) & within(tokens, lengths)
        noise = self.draw(key, batch["ids"], lengths, eligible, batch=size)
        canvas, labels = self.corrupt(tokens, lengths, noise)
        logits = model(canvas.tokens, canvas.lengths)
        learnt = labels != IGNORE
        wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        scored = jnp.where(learnt[..., None], wide, 0)
        nats = optax.softmax_cross_entropy_with_integer_labels(scored, jnp.where(learnt, labels, 0))
        sums = jnp.where(learnt, nats, 0).sum(1)
        fits = ~canvas.overflow
        weights = noise.weights if self.weighted else jnp.ones_like(sums)
        return Terms(weights * sums, jnp.where(fits, lengths, 0), learnt.sum(1))

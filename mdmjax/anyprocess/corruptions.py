"""Supervision of a policy from clean text alone: what is masked, wrong, dropped or surplus is to be put right.

All randomness of one estimate is drawn once, into a `Noise`, by example; `corrupt` is then a function of it. The five
corruptions (after arXiv 2510.06190) are `unmask`, `remask`, `insert`, `delete`, and `mixed`, all of them at once.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.anyprocess.losses import Targets
from mdmjax.anyprocess.teachers import IGNORE
from mdmjax.anyprocess.transition import rebuilt, within
from mdmjax.base import Canvas
from mdmjax.process import Continuous, Law, example_keys

# Uses of the key of a draw, beside those of the law of masks, which come first.
_WRONG, _REPLACE, _DROP, _SURPLUS, _MARKS = range(16, 21)

EVERY_RATE = Continuous()  # t ~ U(0, 1)
BOUND = Continuous(t_min=1e-3)  # the same, where 1 / t is a weight and must not be huge
RELEASED_RATE = 0.3  # at which the released labels of delete are drawn


class Noise(NamedTuple):
    """Everything random in one corruption of clean rows [B, L], made once and passed on; never drawn again."""

    t: Float[Array, "B"]  # P(a token is masked)
    weights: Float[Array, "B"]  # factor of the cross-entropies at masks; 1 / t, or what the law of masks says
    masks: Bool[Array, "B L"]
    wrong: Int[Array, "B L"]  # the token that stands there, right or not; IGNORE where the clean one does
    dropped: Bool[Array, "B L"]  # never the first
    surplus: Int[Array, "B L"]  # clean positions behind which one more mask stands, in no order; IGNORE for none
    marks: Bool[Array, "B L"] | None  # labels of delete that are drawn and not found; None: found


class Corrupted(NamedTuple):
    """A canvas made of clean rows, and what makes them clean again. A row that does not fit is marked in `overflow`,
    and nothing of it is learnt."""

    canvas: Canvas
    targets: Targets


def uniform(
    key: Key[Array, ""], ids: Int[Array, "B"], tokens: Int[Array, "B L"], where: Bool[Array, "B L"], vocab: int
) -> Int[Array, "B L"]:
    """Uniform real tokens 0..V-1, by example; one in V is the clean token. `key` is not consumed."""
    draw = lambda key: jax.random.randint(key, tokens.shape[1:], 0, vocab, tokens.dtype)
    return jax.vmap(draw)(example_keys(key, ids))


def permute(
    key: Key[Array, ""], ids: Int[Array, "B"], tokens: Int[Array, "B L"], where: Bool[Array, "B L"], vocab: int
) -> Int[Array, "B L"]:
    """The tokens at `where`, permuted over all of the rows at hand; wrong tokens so have the frequencies of the text.

    A row then depends on the rows beside it, and a batch on how it is cut into parts. `key` is not consumed.
    """
    places = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))(example_keys(key, ids)).reshape(-1)
    chosen, flat = where.reshape(-1), tokens.reshape(-1)
    in_order = jnp.argsort(~chosen, stable=True)  # those at `where` come first, here in the order of the rows
    shuffled = jnp.argsort(jnp.where(chosen, places, 2.0))
    return flat.at[in_order].set(flat[shuffled]).reshape(tokens.shape)


@dataclasses.dataclass(frozen=True)
class Corruption:
    """What is done to clean text, and which losses it teaches.

    Each token is masked by `law`; wrong with probability r ~ U(0, wrong), by `replace`; dropped with probability
    delta ~ U(0, drop), but for the first token of a row, for masks are inserted behind a token. k ~ Binomial(n,
    surplus) masks stand at uniform gaps, n the length. Rates are drawn for each row by itself, but for those of the
    law, which may spread them over a batch.
    """

    learns: tuple[bool, bool, bool, bool]  # whether unmask, remask, insert and delete are scored
    law: Law | None = None
    replace: Callable = uniform
    wrong: float = 0.0
    drop: float = 0.0
    surplus: float = 0.0
    marks: float | None = None  # the rate of labels of delete drawn independently of everything

    def __post_init__(self):
        for name in ("wrong", "drop", "surplus", "marks"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate <= 1:
                raise ValueError(f"Corruption({name}={rate}): must be in [0, 1]")

    def room(self, length: int) -> int:
        """The size of a buffer into which every corrupted row of `length` tokens fits."""
        return length * (2 if self.surplus else 1)

    def draw(
        self,
        key: Key[Array, ""],
        ids: Int[Array, "B"],
        tokens: Int[Array, "B L"],
        lengths: Int[Array, "B"],
        *,
        vocab: int,
        batch: int,
    ) -> Noise:
        """The noise of rows `ids` of a batch of `batch` rows; `key` is only folded.

        Except for `permute`, it depends on a row's id and length alone (and, where the law spreads its rates, on the
        number of its batch). ValueError for a law that hides a row in several ways or weights its tokens one by one.
        """
        size, inside = tokens.shape[1], within(tokens, lengths)

        def uniforms(use, count):
            keys = example_keys(jax.random.fold_in(key, use), ids)
            return jax.vmap(lambda k: jax.random.uniform(k, (count,)))(keys)

        def some(use, most):
            """Positions chosen at a rate that is uniform on (0, most)."""
            u = uniforms(use, size + 1)
            return (u[:, 1:] < most * u[:, :1]) & inside

        nothing = jnp.zeros(tokens.shape, bool)
        t = weights = jnp.zeros(len(tokens))
        masks, wrong, dropped, gaps = nothing, jnp.full_like(tokens, IGNORE), nothing, jnp.full_like(tokens, IGNORE)
        if self.law is not None:
            draws = self.law.draw(key, ids, inside, batch=batch)
            if draws.weights.shape != t.shape:
                raise ValueError(f"Corruption(law={self.law}): must hide a row in one way, with one weight")
            t, weights, masks = draws.t, draws.weights, draws.masks
        if self.wrong:
            chosen = some(_WRONG, self.wrong)
            replaced = self.replace(jax.random.fold_in(key, _REPLACE), ids, tokens, chosen, vocab)
            wrong = jnp.where(chosen, replaced, IGNORE)
        if self.drop:
            dropped = some(_DROP, self.drop) & (jnp.arange(size)[None] > 0)
        if self.surplus:
            coins, places = jnp.split(uniforms(_SURPLUS, 2 * size), 2, axis=1)
            last = lengths[:, None] - 1
            where = jnp.minimum((places * lengths[:, None]).astype(tokens.dtype), last.astype(tokens.dtype))
            gaps = jnp.where((coins < self.surplus) & inside, where, IGNORE)
        marks = None if self.marks is None else (uniforms(_MARKS, size) < self.marks) & inside
        return Noise(t, weights, masks, wrong, dropped, gaps, marks)

    def corrupt(
        self,
        tokens: Int[Array, "B L"],
        lengths: Int[Array, "B"],
        noise: Noise,
        *,
        vocab: int,
        size: int | None = None,
    ) -> Corrupted:
        """The canvas [B, N] that the noise makes, N = `size` (`room` if not given), and its targets.

        - values: the clean tokens at true masks.
        - remask: whether the token is not the clean one; scored where a token is visible.
        - insert: whether the right neighbour of the position in the clean row was dropped; scored everywhere.
        - delete: whether the mask is surplus; scored at masks. Masks side by side look alike, so in a run of q true and
          j surplus ones the first q are the true ones, in order, and the last j surplus. With `marks` those of the
          true masks are the labels instead.

        The transition by the values and the labels that are found makes the clean row of the canvas, but that a wrong
        token becomes a mask, and each run of dropped tokens one mask. (So where a surplus mask stands beside a dropped
        token, one mask is deleted and one inserted.)
        """
        size = self.room(tokens.shape[1]) if size is None else size
        inside = within(tokens, lengths)
        kept = inside & ~noise.dropped
        written = jnp.where(noise.masks, vocab, jnp.where(noise.wrong != IGNORE, noise.wrong, tokens))

        rows, length = jnp.arange(len(tokens))[:, None], tokens.shape[1]
        more = jnp.zeros(tokens.shape, jnp.int32)
        more = more.at[rows, jnp.where(noise.surplus >= 0, noise.surplus, length)].add(1, mode="drop")
        canvas, places, needed = rebuilt(written.astype(tokens.dtype), kept, more, size, vocab=vocab)
        clean_places = jnp.broadcast_to(jnp.arange(length)[None], tokens.shape)
        origin = jnp.full(canvas.shape, -1).at[rows, places].set(clean_places, mode="drop")
        origin = true_first(origin, canvas == vocab)
        return self._labelled(tokens, noise, canvas, jnp.minimum(needed, size), needed > size, origin, vocab)

    def _labelled(self, tokens, noise, canvas, lengths, overflow, origin, vocab) -> Corrupted:
        """The targets of a canvas whose positions come from the clean positions `origin`, -1 for surplus masks."""
        inside = within(canvas, lengths)
        masked = inside & (canvas == vocab)
        visible, true = inside & ~masked, origin >= 0
        of_origin = lambda x: jnp.take_along_axis(x, jnp.maximum(origin, 0), axis=1)
        clean = of_origin(tokens)
        right = jnp.pad(noise.dropped[:, 1:], ((0, 0), (0, 1)))
        found = masked & (~true if noise.marks is None else true & of_origin(noise.marks))
        fits = ~overflow[:, None]
        where = jnp.stack([visible & fits, inside & fits, masked & fits], axis=-1)
        taught, *controls = self.learns
        return Corrupted(
            Canvas(canvas, lengths, overflow),
            Targets(
                jnp.where(masked & true & fits, clean, IGNORE),
                jnp.stack([visible & (canvas != clean), inside & true & of_origin(right), found], axis=-1),
                where & jnp.array(controls)[None, None],
                noise.weights * taught,
            ),
        )


def true_first(origin: Int[Array, "B N"], masked: Bool[Array, "B N"]) -> Int[Array, "B N"]:
    """The origins with those of each run of masks in order: first the true ones as they were, then the surplus."""
    position = jnp.arange(origin.shape[1])[None]
    begins = masked & ~jnp.pad(masked[:, :-1], ((0, 0), (1, 0)))
    run = jnp.where(masked, jax.lax.cummax(jnp.where(begins, position, 0), axis=1), position)
    order = jnp.argsort(2 * run + (masked & (origin < 0)), axis=1, stable=True)
    return jnp.take_along_axis(origin, order, axis=1)


# ---- the five of them ------------------------------------------------------------------------------------------------


def unmask(law: Law = BOUND) -> Corruption:
    """Masks at rate t, scored with weight 1 / t: an estimate of the negative ELBO, less what is below t_min.

    The sum of `Losses.unmask` over a row is in nats of the whole row, as that of `objectives.negative_elbo`.
    """
    return Corruption((True, False, False, False), law=law)


def remask(replace: Callable = uniform, most: float = 1.0) -> Corruption:
    """Tokens replaced at a rate t' ~ U(0, most), by `uniform` or `permute`; the label is 1 where the token changed."""
    return Corruption((False, True, False, False), replace=replace, wrong=most)


def insert(most: float = 1.0) -> Corruption:
    """Tokens dropped at a rate delta ~ U(0, most), the first never; the label is 1 where the right neighbour was.

    A run of dropped tokens comes back over several steps: one mask is inserted, unmasked, and the next behind it.
    """
    return Corruption((False, False, True, False), drop=most)


def delete(surplus: float = 0.3, labels: str = "found", law: Law = EVERY_RATE) -> Corruption:
    """Masks at rate t and Binomial(n, surplus) masks too many; the label is 1 where the mask is surplus.

    labels="iid" is the released version, for comparison only: no mask is surplus, and each is labelled 1 with
    probability 0.3, independently of everything. Its loss has the floor H(0.3) = 0.6109 nats a mask, where the policy
    says 0.3 everywhere and never deletes. (That release masks at rate 1 - t, which has the same law.) ValueError for
    other labels.
    """
    learns = (False, False, False, True)
    if labels == "iid":
        return Corruption(learns, law=law, marks=RELEASED_RATE)
    if labels != "found":
        raise ValueError(f"delete(labels={labels!r}): must be 'found' or 'iid'")
    return Corruption(learns, law=law, surplus=surplus)


def mixed(
    law: Law = BOUND,
    *,
    replace: Callable = uniform,
    wrong: float = 1.0,
    drop: float = 1.0,
    surplus: float = 0.3,
) -> Corruption:
    """All at once, with all four losses on one pass: the policy meets wrong tokens beside masks, as in generation.

    The cross-entropy of masks is weighted as in `unmask`, but it is no bound: what is visible may be wrong.
    """
    return Corruption((True, True, True, True), law, replace, wrong, drop, surplus)

"""The transition of any-process generation in a fixed buffer: what remask, unmask, insert and delete make of a canvas.

Pure and of fixed shapes, so it works under jit, vmap and scan. `mdmjax.anyprocess.teachers.apply` is the same for one
state on the host.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from mdmjax.anyprocess.teachers import VARIANTS
from mdmjax.base import DELETE, KEEP, REMASK, UNMASK, Canvas


class Controls(NamedTuple):
    """What is to happen at each position of a canvas, in one step. Beyond a row's length nothing of it is read.

    Labels are controls too: the value IGNORE (-1) counts as token 0 where a variant of the transition reads it.
    """

    values: Int[
        Array, "B N"
    ]  # y, a token 0..V-1, never the mask: written at masks that are neither remasked nor deleted
    remask: Bool[Array, "B N"]  # r; a mask with this bit waits
    insert: Int[Array, "B N"]  # q >= 0 masks to put behind the position; the paper's bit e is q in {0, 1}
    delete: Bool[Array, "B N"]  # d, which has an effect on masks only


def within(tokens: Int[Array, "B N"], lengths: Int[Array, "B"]) -> Bool[Array, "B N"]:
    """Which positions are inside their rows."""
    return jnp.arange(tokens.shape[1])[None] < lengths[:, None]


class Effects(NamedTuple):
    """What controls do at each position of the old canvas."""

    tokens: Int[Array, "B N"]  # the token that the position is left with, where it is not deleted
    operations: Int[Array, "B N"]  # KEEP (also of a mask that waits, and of padding), UNMASK, REMASK or DELETE
    inserted: Int[Array, "B N"]  # masks that appear behind it


def effects(canvas: Canvas, controls: Controls, *, vocab: int, variant: str = "algorithm1") -> Effects:
    """What happens where: token = M if r, else y if x = M, else x; deleted where d and x = M; q masks behind the rest.

    Counts q outside 0..N are read as the nearest of these, which leaves the canvas the same. The variants are those of
    `transition`; ValueError for another.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: must be one of {', '.join(VARIANTS)}")
    x, size = canvas.tokens, canvas.tokens.shape[1]
    valid = within(x, canvas.lengths)
    masked = x == vocab
    remask = controls.remask & valid
    unmask = masked & valid & ~remask
    token = jnp.where(remask, vocab, jnp.where(unmask, jnp.maximum(controls.values, 0), x)).astype(x.dtype)
    deleted = controls.delete & valid & ((token if variant == "post_remask" else x) == vocab)
    grows = valid & ~deleted if variant == "algorithm1" else valid
    operations = jnp.where(remask & ~masked, REMASK, jnp.where(unmask, UNMASK, KEEP))
    inserted = jnp.where(grows, jnp.clip(controls.insert, 0, size), 0)
    return Effects(token, jnp.where(deleted, DELETE, operations), inserted)


def transition(canvas: Canvas, controls: Controls, *, vocab: int, variant: str = "algorithm1") -> Canvas:
    """The next canvas (arXiv 2510.06190, algorithm 1, with counts q_i for the bit e_i). From left to right,

        a mask with d_i goes, and its insertions with it; any other position holds M if r_i, else y_i if x_i = M,
        else x_i, and q_i masks come behind it.

    New length: n' = n - #deleted + sum of q_i over the others. A row that needs more than N positions keeps its first N
    and is marked in `overflow`, which stays marked.

    Only the variant "algorithm1" is the paper's algorithm. Its prose (insert after delete after remask) can be read in
    two other ways, which are here for comparison: "literal" makes the insertions of a deleted mask too; "post_remask"
    does as well, and deletes what is a mask after remasking and unmasking. ValueError for another variant.
    """
    return moved(canvas, effects(canvas, controls, vocab=vocab, variant=variant), vocab=vocab)


def moved(canvas: Canvas, done: Effects, *, vocab: int) -> Canvas:
    """The canvas after `effects`."""
    size = canvas.tokens.shape[1]
    kept = within(canvas.tokens, canvas.lengths) & (done.operations != DELETE)
    tokens, _, needed = rebuilt(done.tokens, kept, done.inserted, size, vocab=vocab)
    lengths = jnp.minimum(needed, size).astype(canvas.lengths.dtype)
    return Canvas(tokens.astype(canvas.tokens.dtype), lengths, canvas.overflow | (needed > size))


def rebuilt(
    tokens: Int[Array, "B N"], kept: Bool[Array, "B N"], inserted: Int[Array, "B N"], size: int, *, vocab: int
) -> tuple[Int[Array, "B M"], Int[Array, "B N"], Int[Array, "B"]]:
    """(rows, places, needed): the kept tokens in order, `inserted` masks behind each position, kept or not.

    Rows are of M = `size` positions, PAD behind what they hold, cut where a row needs more. `places` says where each
    kept token is now, M or more where it is not.
    """
    width = kept + inserted
    places = jnp.where(kept, jnp.cumsum(width, axis=1) - width, size)
    needed = width.sum(1)
    # everything that is not an old position is a new mask; a place beyond the buffer is dropped
    blank = jnp.where(jnp.arange(size)[None] < needed[:, None], vocab, vocab + 1).astype(tokens.dtype)
    rows = jnp.arange(len(tokens))[:, None]
    return blank.at[rows, places].set(tokens, mode="drop"), places, needed


def protect(controls: Controls, prefix: Int[Array, "B"]) -> Controls:
    """Controls that leave the first `prefix` tokens of each row as they are: no remask, no delete, and insertions only
    behind the last of them. Masks in there are unmasked, for they cannot wait."""
    position = jnp.arange(controls.values.shape[1])[None]
    inside, last = position < prefix[:, None], position == prefix[:, None] - 1
    return controls._replace(
        remask=controls.remask & ~inside,
        insert=jnp.where(inside & ~last, 0, controls.insert),
        delete=controls.delete & ~inside,
    )

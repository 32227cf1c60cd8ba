"""Edit Flows (arXiv 2506.09018): a text becomes another by insertions, deletions and substitutions, without masks.

A source and a target are aligned, column by column. At time t each column shows the target with probability alpha(t),
and the source otherwise; what has no gap there is the state. (t = 0 is the target, the data; the paper's time runs the
other way, and its kappa is alpha.) A model says of a state how many of each single edit are to be expected among those
that remain, and the text is edited at weight(t) = -alpha'(t) / (1 - alpha(t)) times these numbers.

The transition is another than that of masks, on the same canvas: `edited`. Tokens are inserted behind a position, so a
row begins with a given token.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.anyprocess.alignment import GAP
from mdmjax.anyprocess.policy import CONTROLS, said_at
from mdmjax.anyprocess.teachers import IGNORE
from mdmjax.anyprocess.timed import Moved, Timed, along
from mdmjax.anyprocess.transition import rebuilt, within
from mdmjax.base import DELETE, KEEP, UNMASK, Canvas, Schedule
from mdmjax.objectives import Terms
from mdmjax.process import Linear, example_keys, hazard, systematic
from mdmjax.sampling import TokenDraw

LINEAR, DRAW = Linear(), TokenDraw()
_COINS = 24  # use of the key of a draw, beside those of its spread


class Expected(NamedTuple):
    """Logarithms of how many edits of each kind are to be expected; -inf for none. Rates are weight(t) times these."""

    insert: Float[Array, "B N V"]  # of the token, anywhere before the next one
    substitute: Float[Array, "B N V"]  # of the position's token by another; by itself is not read
    delete: Float[Array, "B N"]


@runtime_checkable
class EditModel(Protocol):
    """`model(tokens [B, N], lengths [B], t [B]) -> Expected`."""

    def __call__(self, tokens: Int[Array, "B N"], lengths: Int[Array, "B"], t: Float[Array, "B"]) -> Expected: ...


def edits_from_policy(policy: Callable) -> EditModel:
    """A policy with 2 V logits at each position (`PolicyConfig.outputs`) as a model.

    insert = log softmax(logits[:V]) + controls[insert], substitute = log softmax(logits[V:]) + controls[remask] and
    delete = controls[delete]: a decision's logit is read as the logarithm of how many of its edits are to be expected.
    What it says is that of its time (`said_at`).
    """

    def model(tokens, lengths, t):
        logits, controls = said_at(policy, tokens, lengths, t)
        written, other = jnp.split(logits, 2, axis=2)
        substitute, insert, delete = (controls[..., CONTROLS.index(name)] for name in ("remask", "insert", "delete"))
        of_token = lambda logits, rate: jax.nn.log_softmax(logits) + rate[..., None]
        return Expected(of_token(written, insert), of_token(other, substitute), delete)

    return model


class Edits(NamedTuple):
    """What is done to a canvas in one step, all at once. Beyond a row's length nothing of it is read."""

    insert: Int[Array, "B N"]  # the token put behind the position, IGNORE for none
    substitute: Int[Array, "B N"]  # the token written there, IGNORE for none
    delete: Bool[Array, "B N"]  # takes the position out, whatever is written; what is inserted behind it stays


def edited(canvas: Canvas, edits: Edits, *, vocab: int) -> Canvas:
    """The canvas after the edits. A row that needs more than N positions keeps its first N and is marked in `overflow`,
    which stays marked."""
    size = canvas.tokens.shape[1]
    inside = within(canvas.tokens, canvas.lengths)
    tokens = jnp.where(inside & (edits.substitute != IGNORE), edits.substitute, canvas.tokens)
    kept, grows = inside & ~edits.delete, inside & (edits.insert != IGNORE)
    made, _, needed = rebuilt(tokens, kept, grows.astype(jnp.int32), size, vocab=vocab)
    # `rebuilt` leaves masks where something is inserted
    places = jnp.where(grows, jnp.cumsum(kept.astype(jnp.int32) + grows, axis=1) - 1, size)
    made = made.at[jnp.arange(len(made))[:, None], places].set(edits.insert.astype(made.dtype), mode="drop")
    lengths = jnp.minimum(needed, size).astype(canvas.lengths.dtype)
    return Canvas(made.astype(canvas.tokens.dtype), lengths, canvas.overflow | (needed > size))


class Between(NamedTuple):
    """A state between source and target, and the edits that remain."""

    canvas: Canvas
    left: Bool[Array, "B C"]  # the columns that still show the source, and differ
    places: Int[Array, "B C"]  # the position of the edit of each column: of its token, or of the last one before it


def between(source: Int[Array, "B C"], target: Int[Array, "B C"], shows: Bool[Array, "B C"], *, vocab: int) -> Between:
    """The state in which the columns `shows` hold the target's side. The canvas has C positions."""
    side = jnp.where(shows, target, source)
    there = side != GAP
    canvas, _, lengths = rebuilt(side, there, jnp.zeros_like(side), side.shape[1], vocab=vocab)
    places = jnp.maximum(jnp.cumsum(there, axis=1) - 1, 0)
    return Between(Canvas(canvas, lengths, jnp.zeros(len(side), bool)), (source != target) & ~shows, places)


def total(
    expected: Expected, canvas: Canvas, given: Int[Array, "B"]
) -> tuple[Float[Array, "B N"], Float[Array, "B N"], Expected]:
    """(insertions [B, N], deletions and substitutions [B, N], the logarithms of what may be done at all): the numbers
    expected at each position. The first `given` tokens stay, nothing is inserted before the last of them, and no token
    is substituted by itself. In float32 at least."""
    position = jnp.arange(canvas.tokens.shape[1])[None]
    inside = within(canvas.tokens, canvas.lengths)
    free, gaps = inside & (position >= given[:, None]), inside & (position >= given[:, None] - 1)
    allow = lambda where, x: jnp.where(where, x.astype(jnp.promote_types(x.dtype, jnp.float32)), -jnp.inf)
    other = canvas.tokens[..., None] != jnp.arange(expected.insert.shape[2])[None, None]
    allowed = Expected(
        allow(gaps[..., None], expected.insert),
        allow(free[..., None] & other, expected.substitute),
        allow(free, expected.delete),
    )
    moves = jnp.exp(allowed.substitute).sum(2) + jnp.exp(allowed.delete)
    return jnp.exp(allowed.insert).sum(2), moves, allowed


def edit_losses(
    expected: Expected,
    source: Int[Array, "B C"],
    target: Int[Array, "B C"],
    found: Between,
    given: Int[Array, "B"],
) -> Float[Array, "B"]:
    """For each row: sum over all edits e of exp(l_e), less the sum over the remaining ones of 1 + l_e, l the model's
    logarithms.

    The minimum, by state, is at the posterior: exp(l_e) = E[how many e remain | state, t]. Times weight(t) this is the
    paper's loss (total rate less kappa' / (1 - kappa) sum log rate) but for what does not depend on the model; as it
    stands here the weighted loss is a bound (`EditFlow`).
    """
    inserts, moves, allowed = total(expected, found.canvas, given)
    rows, at = jnp.arange(len(source))[:, None], found.places
    new = jnp.maximum(target, 0)
    inserted = allowed.insert[rows, at, new]
    replaced = jnp.where(target == GAP, allowed.delete[rows, at], allowed.substitute[rows, at, new])
    of_edit = jnp.where(source == GAP, inserted, replaced)
    return (inserts + moves).sum(1) - jnp.where(found.left, 1 + of_edit, 0).sum(1)


@dataclasses.dataclass(frozen=True)
class EditFlow:
    """The loss of Edit Flows as the training loop takes it: `objective(model, batch, key, size)`, t ~ U(t_min, 1).

        nats = weight(t) (total of expected edits - sum over remaining edits of (1 + log of their expected number))

    Its mean (with t_min = 0) is a bound on -log p(target | source), p what the model makes of the source in infinitely
    many steps: the relative entropy of the paths of single edits (derived). From a source of the given tokens alone,
    the true posteriors make it -log p itself, on average over the data. t_min > 0 leaves out the bound below it.

    The batch holds the columns of an alignment, `source` and `target` [B, C] (`alignment.aligned` makes them), `ids`
    [B] and, where rows differ, `given` [B]: how many tokens at the beginning are never edited (1 if not given), which
    both sides must share. Terms count the target's tokens behind them. ValueError unless 0 <= t_min < 1.
    """

    vocab: int
    schedule: Schedule = LINEAR
    spread: Callable = systematic
    t_min: float = 1e-3

    def __post_init__(self):
        if not 0 <= self.t_min < 1:
            raise ValueError(f"EditFlow(t_min={self.t_min}): must be at least 0 and less than 1")

    def draw(
        self, key: Key[Array, ""], ids: Int[Array, "B"], width: int, *, batch: int
    ) -> tuple[Float[Array, "B"], Bool[Array, "B C"]]:
        """(t, which of `width` columns show the target) of rows `ids` of a batch of `batch`; `key` is only folded."""
        t = self.t_min + (1 - self.t_min) * self.spread(key, ids, batch).uniform()
        keys = example_keys(jax.random.fold_in(key, _COINS), ids)
        coins = jax.vmap(lambda k: jax.random.uniform(k, (width,)))(keys)
        return t, coins >= self.schedule.one_minus_alpha(t)[:, None]

    def __call__(self, model: EditModel, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        source, target = batch["source"], batch["target"]
        given = batch.get("given", jnp.ones(len(source), jnp.int32))
        t, shows = self.draw(key, batch["ids"], source.shape[1], batch=size)
        found = between(source, target, shows, vocab=self.vocab)
        losses = edit_losses(model(found.canvas.tokens, found.canvas.lengths, t), source, target, found, given)
        nats = (1 - self.t_min) * self.schedule.weight(t) * losses
        return Terms(nats, jnp.maximum((target != GAP).sum(1) - given, 0), found.left.sum(1))


def generate_edits(
    model: EditModel,
    canvas: Canvas,
    *,
    vocab: int,
    steps: int,
    key: Key[Array, ""],
    schedule: Schedule = LINEAR,
    given: Int[Array, "B"] | None = None,
    ids: Int[Array, "B"] | None = None,
    trace: bool = False,
) -> Timed:
    """Euler steps from t = 1, where a row is its source, to t = 0, in `steps` equal ones.

    In a step from t to s, with h = (alpha(s) - alpha(t)) / (1 - alpha(t)), at each position by itself and all at once:
    a token is inserted behind it with probability min(1, h E), E the number of insertions expected there, and the token
    deleted or substituted likewise; which, in proportion to the model's numbers. (h is an integrated rate: at the last
    step it is 1, and an edit that is certain is made.) The law is right up to an error of order 1 / steps.

    A substitution shows in the trace as UNMASK, for a token is written. The first `given` tokens stay, by default one.
    A row that wants more positions than there are stands still from then on, cut off, and is marked in
    `canvas.overflow`; `check_overflow` makes that an error. Consumes `key`. ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step is needed")
    rows = len(canvas.tokens)
    given = jnp.ones(rows, jnp.int32) if given is None else given
    grid = jnp.arange(steps, 0, -1) / steps
    shares = hazard(schedule, grid, jnp.arange(steps - 1, -1, -1) / steps)

    def step(keys, canvas, number):
        expected = model(canvas.tokens, canvas.lengths, jnp.full(rows, grid[number]))
        inserts, moves, allowed = total(expected, canvas, given)

        def of_row(key, insert, move):
            of_insert, of_move, of_coins = jax.random.split(key, 3)
            draw = lambda key, logits: jax.vmap(DRAW)(jax.random.split(key, len(logits)), logits)
            return draw(of_insert, insert), draw(of_move, move), jax.random.uniform(of_coins, (2, len(insert)))

        moving = jnp.concatenate([allowed.substitute, allowed.delete[..., None]], axis=2)
        (new, _), (way, confidence), coins = jax.vmap(of_row)(keys, allowed.insert, moving)
        grows, moved = coins[:, 0] < shares[number] * inserts, coins[:, 1] < shares[number] * moves
        gone, written = moved & (way == vocab), moved & (way != vocab)
        edits = Edits(jnp.where(grows, new, IGNORE), jnp.where(written, way, IGNORE), gone)
        operations = jnp.where(gone, DELETE, jnp.where(written, UNMASK, KEEP))
        confidence = jnp.where(written, confidence, 0)
        return Moved(edited(canvas, edits, vocab=vocab), confidence, operations, grows.astype(jnp.int32))

    return along(step, canvas, grid, key=key, ids=ids, trace=trace)

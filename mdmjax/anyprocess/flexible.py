"""FlexMDM (arXiv 2509.01025): generation by inserting masks into gaps and unmasking them, from nothing to a text.

Forward in time, from t = 0 (data) to t = 1 (nothing), each token of a text is first masked and then goes, by two
schedules: there at t with probability a(t), and then visible with a probability that b makes. (The paper's time runs
the other way; its alpha_s and beta_s are a(1 - s) and b(1 - s).) A model says of a canvas which token each mask is,
and how many tokens are missing in each gap. A gap is behind a position, so a row begins with a given token.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.anyprocess.policy import CONTROLS, Policy, said_at
from mdmjax.anyprocess.teachers import IGNORE
from mdmjax.anyprocess.timed import Moved, Timed, along
from mdmjax.anyprocess.transition import Controls, effects, moved, protect, rebuilt, within
from mdmjax.base import UNMASK, Canvas, Schedule
from mdmjax.objectives import Terms
from mdmjax.process import Linear, example_keys, hazard, systematic
from mdmjax.sampling import TokenDraw

LINEAR, DRAW = Linear(), TokenDraw()
_LIVES = 24  # use of the key of a draw, beside those of its spread


@runtime_checkable
class FlexibleModel(Protocol):
    """`model(tokens [B, N], lengths [B], t [B]) -> (logits [B, N, V], missing [B, N])`.

    logits are of the token at each mask. missing is the logarithm of the number of tokens to be expected between a
    position and the next one; it may be -inf. Unlike a policy, a model must know the time: the emptier canvases are at
    t, the more is missing in the same canvas.
    """

    def __call__(
        self, tokens: Int[Array, "B N"], lengths: Int[Array, "B"], t: Float[Array, "B"]
    ) -> tuple[Float[Array, "B N V"], Float[Array, "B N"]]: ...


class Lives(NamedTuple):
    """Everything random in one estimate for rows [B, L], made once and passed on; never drawn again."""

    t: Float[Array, "B"]
    weights: Float[Array, "B"]  # factor of the estimate, 1 / the density of t
    hides: Float[Array, "B L"]  # the time from which a token is masked; in the paper, its unmasking time
    goes: Float[Array, "B L"]  # the later time from which it is not there; in the paper, its insertion time


class Flexed(NamedTuple):
    """A canvas made of clean rows at some time, and what is to be known of it."""

    canvas: Canvas
    values: Int[Array, "B N"]  # the token at each mask, IGNORE elsewhere
    missing: Int[Array, "B N"]  # how many tokens of the clean row are missing behind the position
    gaps: Bool[Array, "B N"]  # where tokens may be missing: from the last given token to the end of the row


def from_policy(policy: Policy) -> FlexibleModel:
    """A policy as a model: the logit of insert is read as log(missing) (`said_at`)."""

    def model(tokens, lengths, t):
        logits, controls = said_at(policy, tokens, lengths, t)
        return logits, controls[..., CONTROLS.index("insert")]

    return model


def flexed(
    tokens: Int[Array, "B L"], lengths: Int[Array, "B"], lives: Lives, *, vocab: int, given: Int[Array, "B"]
) -> Flexed:
    """The rows at time t: a token is there where t < goes and visible where t < hides, as the first `given` always are.

    The canvas has L positions, which is always enough. `given` is at least 1 in every row that has tokens.
    """
    position, t = jnp.arange(tokens.shape[1])[None], lives.t[:, None]
    inside, kept = within(tokens, lengths), position < given[:, None]
    there = inside & ((t < lives.goes) | kept)
    masked = there & (t >= lives.hides) & ~kept
    nothing, size = jnp.zeros(tokens.shape, jnp.int32), tokens.shape[1]
    written = jnp.where(masked, vocab, tokens).astype(tokens.dtype)
    canvas, places, needed = rebuilt(written, there, nothing, size, vocab=vocab)
    rows, before = jnp.arange(len(tokens))[:, None], jnp.cumsum(there, axis=1) - 1
    values = jnp.full(tokens.shape, IGNORE, tokens.dtype)
    values = values.at[rows, jnp.where(masked, places, size)].set(tokens, mode="drop")
    missing = nothing.at[rows, jnp.where(inside & ~there, before, size)].add(1, mode="drop")
    gaps = (position >= given[:, None] - 1) & within(canvas, needed)
    return Flexed(Canvas(canvas, needed, jnp.zeros(len(tokens), bool)), values, missing, gaps)


class FlexLosses(NamedTuple):
    """Sums over the positions of each row, not yet weighted."""

    unmask: Float[Array, "B"]
    insert: Float[Array, "B"]


def flexible_losses(logits: Float[Array, "B N V"], missing: Float[Array, "B N"], found: Flexed) -> FlexLosses:
    """For each row, in float32 at least, with c the tokens missing in a gap and g = exp(missing) what the model says,

        unmask = sum_{masks} -log softmax(logits_i)[values_i]
        insert = sum_{gaps} g - c - c log g.

    Each has its minimum, by canvas, at the posterior: g = E[c | canvas, t]. The -c, which does not depend on the model,
    is no part of the paper's g - c log g; with it the weighted sum is a bound (`FlexMDM`). An expectation of 0 in a gap
    that never misses any costs 0. Other positions contribute exactly 0.
    """
    float32 = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    learnt = found.values != IGNORE
    logits = jnp.where(learnt[..., None], float32(logits), 0)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(learnt, found.values, 0))
    gaps, count = found.gaps, found.missing
    log_g = jnp.where(gaps, float32(missing), 0)
    # -inf is a promise that none is missing: no 0 * inf where it is kept
    of_events = jnp.where(count > 0, count * jnp.where(count > 0, log_g, 0), 0)
    insert = jnp.where(gaps, jnp.exp(log_g) - count - of_events, 0)
    return FlexLosses(jnp.where(learnt, nats, 0).sum(1), insert.sum(1))


@dataclasses.dataclass(frozen=True)
class FlexMDM:
    """The loss of FlexMDM as the training loop takes it: `objective(model, batch, key, size)`, t ~ U(t_min, 1).

        nats = weight_b(t) unmask + weight_a(t) insert,     weight(t) = -alpha'(t) / (1 - alpha(t)) of either schedule.

    Its mean (with t_min = 0) is a bound on -log p(row | what is given), length included, where p is what the model
    generates in infinitely many steps; for the true posteriors it is -log p itself, on average over the data (derived:
    it is the relative entropy of the paths of insertions and unmaskings, which are Markov either way in time).
    t_min > 0 leaves out the bound below it, where the weights are huge.

    The batch holds `tokens` [B, L], `ids` [B] and, where rows differ, `lengths` [B] and `given` [B], the length of a
    prompt that is always there (1 if not given: the first token). Terms count the tokens behind it. ValueError unless
    0 <= t_min < 1.
    """

    vocab: int
    insertion: Schedule = LINEAR  # a
    unmasking: Schedule = LINEAR  # b
    spread: Callable = systematic
    t_min: float = 1e-3

    def __post_init__(self):
        if not 0 <= self.t_min < 1:
            raise ValueError(f"FlexMDM(t_min={self.t_min}): must be at least 0 and less than 1")

    def draw(self, key: Key[Array, ""], ids: Int[Array, "B"], length: int, *, batch: int) -> Lives:
        """Times of rows `ids` of a batch of `batch`, and of their tokens; `key` is only folded.

        With u, v uniform: a(goes) = u, and 1 - b(hides) = v (1 - b(goes)), so that once a token is there it is masked
        at t < goes with probability (1 - b(t)) / (1 - b(goes)).
        """
        t = self.t_min + (1 - self.t_min) * self.spread(key, ids, batch).uniform()
        keys = example_keys(jax.random.fold_in(key, _LIVES), ids)
        u, v = jnp.moveaxis(jax.vmap(lambda k: jax.random.uniform(k, (2, length)))(keys), 1, 0)
        goes = self.insertion.inverse(u, 1 - u)
        hidden = v * self.unmasking.one_minus_alpha(goes)
        return Lives(t, jnp.full_like(t, 1 - self.t_min), self.unmasking.inverse(1 - hidden, hidden), goes)

    def terms(
        self, model: FlexibleModel, tokens: Int[Array, "B L"], lengths: Int[Array, "B"], given: Int[Array, "B"], lives
    ) -> Terms:
        """The estimate that `lives` make."""
        found = flexed(tokens, lengths, lives, vocab=self.vocab, given=given)
        losses = flexible_losses(*model(found.canvas.tokens, found.canvas.lengths, lives.t), found)
        nats = self.unmasking.weight(lives.t) * losses.unmask + self.insertion.weight(lives.t) * losses.insert
        scored = (found.values != IGNORE).sum(1) + found.gaps.sum(1)
        return Terms(lives.weights * nats, jnp.maximum(lengths - given, 0), scored)

    def __call__(self, model: FlexibleModel, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        tokens, ids = batch["tokens"], batch["ids"]
        lengths = batch.get("lengths", jnp.full(len(tokens), tokens.shape[1], jnp.int32))
        given = batch.get("given", jnp.ones(len(tokens), jnp.int32))
        lives = self.draw(key, ids, tokens.shape[1], batch=size)
        return self.terms(model, tokens, lengths, given, lives)


def generate_flexible(
    model: FlexibleModel,
    canvas: Canvas,
    *,
    vocab: int,
    steps: int,
    key: Key[Array, ""],
    insertion: Schedule = LINEAR,
    unmasking: Schedule = LINEAR,
    given: Int[Array, "B"] | None = None,
    draw: TokenDraw = DRAW,
    ids: Int[Array, "B"] | None = None,
    trace: bool = False,
) -> Timed:
    """Tau-leaping from t = 1 to t = 0 in `steps` equal steps, and one call more.

    In a step from t to s, all at once: each mask is written with probability (b(s) - b(t)) / (1 - b(t)), by `draw`, and
    behind each position come q ~ Poisson(g (a(s) - a(t)) / (1 - a(t))) masks, g the model's number. The last call, at
    the time of the last step, inserts nothing and writes the masks that are left, which are those that the last step
    has inserted. What is generated has the right law up to an error of order 1 / steps.

    Rows start as what is given, by default their first token; a prompt of `given` tokens stays, and gaps before its
    last are closed. A row that wants more positions than there are stands still from then on, cut off, and is marked in
    `canvas.overflow`; `check_overflow` makes that an error. Consumes `key`. ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step is needed")
    rows = len(canvas.tokens)
    given = jnp.ones(rows, jnp.int32) if given is None else given
    grid = jnp.append(jnp.arange(steps, 0, -1) / steps, 1 / steps)
    to = jnp.append(jnp.arange(steps - 1, -1, -1) / steps, 0.0)
    share = lambda schedule: hazard(schedule, grid, to)
    writes, inserts = share(unmasking).at[steps].set(1), share(insertion).at[steps].set(0)

    def step(keys, canvas, number):
        logits, missing = model(canvas.tokens, canvas.lengths, jnp.full(rows, grid[number]))
        expected = jnp.exp(missing) * inserts[number]

        def of_row(key, logits, expected):
            of_token, of_coin, of_count = jax.random.split(key, 3)
            values, confidence = jax.vmap(draw)(jax.random.split(of_token, len(expected)), logits)
            written = jax.random.uniform(of_coin, expected.shape) < writes[number]
            return values, confidence, written, jax.random.poisson(of_count, expected)

        values, confidence, written, count = jax.vmap(of_row)(keys, logits, expected)
        masks = canvas.tokens == vocab
        controls = protect(Controls(values, masks & ~written, count, jnp.zeros_like(masks)), given)
        done = effects(canvas, controls, vocab=vocab)
        confidence = jnp.where(done.operations == UNMASK, confidence, 0)
        return Moved(moved(canvas, done, vocab=vocab), confidence, done.operations, done.inserted)

    return along(step, canvas, grid, key=key, ids=ids, trace=trace)

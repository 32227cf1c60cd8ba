"""The sampling engine: one loop for every planner.

A planner says, row by row, which positions may change at the next denoiser call and then which of them do; the token
draw says which values they get; the engine does the rest, for all rows at once:

    turn  ->  denoiser at the candidates  ->  token draw  ->  planner chooses  ->  write  ->  next turn

Every call serves each unfinished row: steps at which a row does not change are passed over, row by row, so no call is
spent on nothing and a batch needs as many calls as its slowest row needs alone. All randomness of a row comes from
fold_in(key, its id), and that of a token also from the number of the call and the position. So a row sampled alone is
the row of the batch, whatever the other rows, the devices, or the positions asked of the denoiser: exactly where the
denoiser gives the same logits, and but for draws that its rounding decides where they differ in the last digits.

A planner may take back what was written: REMASK needs no logits, so it may stand at any position that was not given. It
may also ask for logits where a token stands, to score it or to write another in its place. What it is told of a
candidate is the probability of the drawn token, or `planner.score` (`mdmjax.sampling.scores`), taken from the logits
where the token is drawn. What it is told of tokens that stand there may come from another network: `planner.judge`,
which sees the canvas with all drawn tokens on it (and gives None for a part of the score of which it says nothing). A
row has finished when its planner asks for no more logits.

A denoiser may remember from call to call (`mdmjax.sampling.BlockCache`): it has `begin(tokens, vocab) -> kept` and
`remember(tokens, t, at, kept, vocab) -> (logits, kept)`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import KEEP, REMASK, UNMASK, Denoiser, Planner, Trace, Turn
from mdmjax.process.spreads import example_keys
from mdmjax.sampling.driver import drive
from mdmjax.sampling.tokens import TokenDraw
from mdmjax.sampling.wrappers import Guided, passes


class Samples(NamedTuple):
    """The result of `sample`."""

    tokens: Int[Array, "B L"]
    calls: Int[Array, ""]  # denoiser calls made for this batch: the most that any row needed
    row_calls: Int[Array, "B"]  # calls that served the row
    trace: Trace | None
    passes: Int[Array, ""]  # forward passes of the network: more than `calls` where the denoiser makes several of one
    finished: Bool[Array, "B"]  # False: stopped after `planner.calls(L)` calls, while the planner wanted to go on
    kept: Any = None  # of a denoiser that remembers, such as `BlockCache`


class _Run(NamedTuple):
    tokens: Int[Array, "B L"]
    state: Any  # of the planner
    turn: Turn
    calls: Int[Array, "B"]
    passes: Int[Array, ""]
    kept: Any  # of a denoiser that remembers


class _Proposal(NamedTuple):
    """What a call makes of each candidate; anything elsewhere."""

    drawn: Int[Array, "B L"]
    probability: Float[Array, "B L"]  # of the drawn token
    score: Any  # what the planner is told, of the same shape; the probability where it wants no other


def sample(
    denoiser: Denoiser,
    planner: Planner,
    tokens: Int[Array, "B L"],
    *,
    vocab: int,
    key: Key[Array, ""],
    ids: Int[Array, "B"] | None = None,
    draw: Callable = TokenDraw(),  # noqa: B008 (frozen)
    capacity: int | None = None,
    trace: bool = False,
) -> Samples:
    """Fills the masks of `tokens` (id V = `vocab`); whatever else stands there is a prompt and is never touched.

    Whether a row was filled to its end is `Samples.finished`: no planner of this library fails to.

    Consumes `key`. `ids` are the global indices of the rows, by default 0..B-1: under pmap or shard_map each device
    must be given its own. `draw(key, logits [V]) -> (token, probability)`. The readout is asked at `capacity`
    positions of each row (default: all that may change at once); a call with a row that has more candidates asks for
    all positions, which changes the cost and not the result (but for the rounding of the denoiser). Tokens are drawn at
    `DRAWN_AT_ONCE` positions of each row at a time: the logits are the one array of their size. A trace takes three
    arrays of the size of the canvas (tokens, confidences, operations) for each of `planner.calls(L)` calls.

    Pure: works under jit, vmap, pmap and shard_map. Outside jit it is compiled anew at each call; see `jit_sampler`.
    Raises ValueError for tokens that are neither a value, nor the mask, nor PAD (V + 1); under jit nobody looks.
    """
    tokens = _checked(tokens, vocab, capacity)
    batch, length = tokens.shape
    ids = jnp.arange(batch) if ids is None else ids
    row_keys = example_keys(key, ids)
    plan_keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, 0)
    given = tokens != vocab
    width = planner.width(length)
    capacity = width if capacity is None else min(capacity, width)
    score, judge = getattr(planner, "score", None), getattr(planner, "judge", None)
    propose = lambda run: _propose(denoiser, draw, score, vocab, run, row_keys, capacity, width)

    def advance(run: _Run):
        proposal, made, kept = propose(run)
        if judge is not None:
            open_ = run.tokens == vocab
            judged = judge(jnp.where(open_ & run.turn.candidates, proposal.drawn, run.tokens))
            told = lambda other, own: own if other is None else jnp.where(open_, own, other)
            score = jax.tree.map(told, judged, proposal.score, is_leaf=lambda x: x is None)
            proposal = proposal._replace(score=score)
            made = made + 1
        candidates, active = run.turn.candidates, run.turn.candidates.any(1)
        operations, state = jax.vmap(planner.choose)(run.state, run.turn, proposal.score)
        taken = (operations == REMASK) & (run.tokens != vocab) & active[:, None]
        allowed = ~given & ((candidates & (operations != REMASK)) | taken)
        operations = jnp.where(allowed, operations, KEEP).astype(tokens.dtype)
        written = operations == UNMASK
        after = jnp.where(written, proposal.drawn, jnp.where(operations == REMASK, vocab, run.tokens))
        turn = jax.vmap(planner.turn)(state, after == vocab)
        turn = turn._replace(candidates=turn.candidates & active[:, None])  # a finished row stays so
        sure = jnp.where(written, proposal.probability, 0)
        seen = (after, sure, operations, jnp.where(active, run.turn.step, -1), run.turn.t)
        return _Run(after, state, turn, run.calls + active, run.passes + made, kept), seen

    state, none = jax.vmap(planner.init)(plan_keys, ~given), jnp.zeros_like(ids, jnp.int32)
    kept = denoiser.begin(tokens, vocab) if hasattr(denoiser, "begin") else None
    run = _Run(tokens, state, jax.vmap(planner.turn)(state, ~given), none, jnp.zeros((), jnp.int32), kept)

    def idle(run: _Run):
        nothing = jnp.zeros_like(run.tokens, jnp.result_type(float))
        return run.tokens, nothing, jnp.full_like(run.tokens, KEEP), jnp.full_like(run.turn.step, -1), run.turn.t

    live = lambda run: run.turn.candidates.any()
    run, seen = drive(advance, run, live, planner.calls(length), idle if trace else None)
    if seen is not None:
        states, *others = seen
        seen = Trace(jnp.concatenate([tokens[None], states]), *others)
    finished = ~run.turn.candidates.any(1)
    return Samples(run.tokens, run.calls.max(initial=0), run.calls, seen, run.passes, finished, run.kept)


def jit_sampler(
    bind: Callable[[Any], Denoiser], planner: Planner, *, vocab: int, guidance: float = 0.0, **choices
) -> Callable[..., Samples]:
    """`sample` compiled once, as run(params, tokens, key, ids=None) -> Samples.

    It checks the tokens and donates them: an array that is passed is gone afterwards. `bind(params)` is a denoiser
    (`Model.bind`); `guidance` the weight by which its rows follow what is given (`Guided`), none at 0; `choices` are
    further arguments of `sample`.
    """

    @jax.jit(donate_argnames="tokens")
    def compiled(params, tokens, key, ids):
        denoiser = bind(params)
        if guidance:
            denoiser = Guided(denoiser, tokens != vocab, vocab, guidance)
        return sample(denoiser, planner, tokens, vocab=vocab, key=key, ids=ids, **choices)

    def run(params, tokens: Int[Array, "B L"], key: Key[Array, ""], ids: Int[Array, "B"] | None = None) -> Samples:
        tokens = _checked(tokens, vocab)
        return compiled(params, tokens, key, ids)

    return run


DRAWN_AT_ONCE = 32  # positions of each row: a draw may hold arrays of the size of its logits, but of these only


def _propose(
    denoiser, draw, score, vocab: int, run: _Run, row_keys, capacity: int, width: int
) -> tuple[_Proposal, Int[Array, ""], Any]:
    """(proposal, forward passes that it took, what is kept). A draw has the key of its row, call and position."""
    tokens, turn = run.tokens, run.turn
    batch, length = tokens.shape
    rows = jnp.arange(batch)[:, None]

    def draw_one(key, logits, token):
        drawn, probability = draw(key, logits)
        if score is None:
            told = probability
        else:
            logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
            told = score(logits, jnp.where(token == vocab, drawn, jnp.minimum(token, vocab - 1)))
        as_float = lambda x: x.astype(jnp.result_type(float))
        return _Proposal(drawn.astype(tokens.dtype), as_float(probability), jax.tree.map(as_float, told))

    def draw_at(positions, at):
        uses = 1 + run.calls[:, None] * length + positions  # use 0 of a row's key is its plan
        if run.kept is None:
            logits, kept = denoiser(tokens, turn.t, at=at), None
        else:
            logits, kept = denoiser.remember(tokens, turn.t, positions if at is None else at, run.kept, vocab)
        made = jnp.int32(passes(denoiser, positions.shape[1]))
        current = tokens if at is None else jnp.take_along_axis(tokens, at, axis=1)

        def some(start):
            here = [jax.lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in (uses, logits, current)]
            keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(row_keys, here[0])
            return jax.vmap(jax.vmap(draw_one))(keys, *here[1:])

        count = positions.shape[1]
        size = min(count, DRAWN_AT_ONCE)
        if size == count:
            return some(0), made, kept
        starts = np.minimum(np.arange(0, count, size), count - size)
        part = np.arange(count) // size
        together = lambda x: x[part, :, np.arange(count) - starts[part]].T
        return jax.tree.map(together, jax.lax.map(some, starts)), made, kept

    def everywhere():
        return draw_at(jnp.broadcast_to(jnp.arange(length), tokens.shape), None)

    def at_candidates():
        found = jax.vmap(lambda c: jnp.nonzero(c, size=capacity, fill_value=length)[0])(turn.candidates)
        first = jnp.minimum(found[:, :1], length - 1)  # that of the row, also where nothing is asked
        proposal, made, kept = draw_at(found, jnp.where(found < length, found, first))
        place = lambda v: jnp.zeros_like(tokens, v.dtype).at[rows, found].set(v, mode="drop")
        return jax.tree.map(place, proposal), made, kept

    if capacity == length:
        return everywhere()
    if capacity == width:
        return at_candidates()
    return jax.lax.cond((turn.candidates.sum(1) > capacity).any(), everywhere, at_candidates)


def _checked(tokens, vocab: int, capacity: int | None = None) -> Int[Array, "B L"]:
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] < 1 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"tokens {tokens.dtype}{list(tokens.shape)}: must be integers [B, L] with L >= 1")
    if capacity is not None and capacity < 1:
        raise ValueError(f"capacity={capacity}: must be >= 1")
    if isinstance(tokens, jax.core.Tracer) or not getattr(tokens, "is_fully_addressable", True):
        return tokens
    host = np.asarray(tokens)
    wrong = (host < 0) | (host > vocab + 1)
    if wrong.any():
        row, position = np.argwhere(wrong)[0]
        raise ValueError(
            f"tokens[{row}, {position}] = {host[row, position]}: must be a value in 0..{vocab - 1}, the mask {vocab}, "
            f"or padding {vocab + 1}"
        )
    return tokens

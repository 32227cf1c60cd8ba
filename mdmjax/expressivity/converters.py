"""Looped transformers as masked diffusion models, and the other way round (theorem 3.1 of arXiv 2510.13117).

Both sides of a conversion call the same block and the same roundings, so their states are equal as integers, at every
step. The constructions are ours; steps and cells are those of the theorem (`accounting`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax.base import Denoiser
from mdmjax.expressivity.automata import check_words
from mdmjax.expressivity.circuits import step_number
from mdmjax.expressivity.decoding import AtSteps
from mdmjax.expressivity.looped import FixedPoint, Looped, padded
from mdmjax.process import example_keys


@dataclasses.dataclass(frozen=True, eq=False)
class LoopedAsDenoiser:
    """A looped network whose stream stands in the cells of an MDM: output cell i D + k holds the code of H[i, k].

    Canvas: the word [N], then (N + P) D cells, or with `write_once` T such layers, one after the other. Tokens are
    codes less the lowest, 2^b of them. Where all cells are masked the stream is that of the embedding; else it is what
    the last full layer says. A call does one loop, and is certain of every cell. Noise [T, ...] is that of the loop, by
    the time 1 - s/T.

    ValueError where the vocabulary of the input does not fit into 2^b tokens, for sizes that are not those of the
    looped network, and for noise that is not [T, B, ...].
    """

    looped: Looped
    inputs: int  # N
    padding: int  # P
    width: int  # D
    blank: int  # token of the padding, which is more than any symbol
    steps: int  # T
    noise: Any = None
    write_once: bool = False

    def __post_init__(self):
        if self.blank > self.looped.point.codes:
            raise ValueError(
                f"{self.blank} symbols: bits={self.looped.point.bits} leave tokens for {self.looped.point.codes}"
            )
        for name, least in dict(inputs=1, padding=0, width=1, blank=1, steps=0).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        rows = jax.ShapeDtypeStruct((1, self.inputs + self.padding), jnp.int32)
        try:
            stream = jax.eval_shape(self.looped.first, rows)
        except ValueError as error:
            raise ValueError(f"inputs={self.inputs}, padding={self.padding}: {error}") from error
        if stream.shape[2] != self.width:
            raise ValueError(f"width={self.width}: the looped network has {stream.shape[2]} numbers a cell")
        for x in jax.tree.leaves(self.noise):
            if np.ndim(x) < 2 or len(x) != self.steps:
                raise ValueError(f"noise {list(np.shape(x))}: must be [T, B, ...] with T = steps = {self.steps}")

    @property
    def vocab(self) -> int:
        """2^b."""
        return self.looped.point.codes

    @property
    def layer(self) -> int:
        """(N + P) D, the cells of one state."""
        return (self.inputs + self.padding) * self.width

    @property
    def outputs(self) -> int:
        """(N + P) D cells, or with `write_once` T times as many."""
        return self.layer * (self.steps if self.write_once else 1)

    @property
    def planner(self) -> AtSteps:
        """Selects all cells at each of T steps; with `write_once` the next layer."""
        cells = np.arange(self.inputs + self.outputs) - self.inputs
        if not self.write_once:
            return AtSteps.everywhere(self.steps, cells < 0)
        return AtSteps((cells >= 0) & (cells // self.layer == np.arange(self.steps)[:, None]))

    def canvas(self, words: Int[Array, "B N"]) -> Int[Array, "B L"]:
        """Words before masks in all cells.

        ValueError for words of another length than N, and outside of jit for symbols outside 0..blank - 1.
        """
        if words.shape[1] != self.inputs:
            raise ValueError(f"words of {words.shape[1]} symbols: this network is for inputs={self.inputs}")
        if not isinstance(words, jax.core.Tracer):
            check_words(np.asarray(words), self.blank)
        return padded(words, self.outputs, self.vocab)

    def codes(self, tokens: Int[Array, "B L"], layer: int = 0) -> Int[Array, "B S D"]:
        """The stream that a canvas holds, in its layer of that number."""
        start = self.inputs + layer * self.layer
        cells = tokens[:, start : start + self.layer] + self.looped.point.low
        return cells.reshape(len(tokens), -1, self.width)

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        if tokens.shape[1] != self.inputs + self.outputs:
            raise ValueError(f"rows of {tokens.shape[1]} cells: the canvas has {self.inputs + self.outputs}")
        rows = padded(tokens[:, : self.inputs], self.padding, self.blank)
        layers = tokens[:, self.inputs :].reshape(len(tokens), -1, self.layer)
        done = (layers < self.vocab).all(2).sum(1)  # full layers
        last = jnp.take_along_axis(layers, jnp.maximum(done - 1, 0)[:, None, None], 1)[:, 0]
        stream = (last + self.looped.point.low).reshape(len(tokens), -1, self.width)
        before = jnp.where((done == 0)[:, None, None], self.looped.first(rows), stream)
        noise = None
        if self.noise is not None:
            of = {np.shape(x)[1] for x in jax.tree.leaves(self.noise)}
            if of - {len(tokens)}:
                raise ValueError(f"noise for {max(of)} rows: the canvas has {len(tokens)}")
            step = done if self.write_once else step_number(_asked(t), self.steps)
            mine = lambda x: jnp.asarray(x)[jnp.clip(step, 0, self.steps - 1), jnp.arange(len(tokens))]
            noise = jax.tree.map(mine, self.noise)
        after = (self.looped.step(before, noise) - self.looped.point.low).reshape(len(tokens), -1)
        at = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape) if at is None else at
        value = jnp.take_along_axis(after, (at - self.inputs) % self.layer, 1)
        return jnp.where(value[..., None] == jnp.arange(self.vocab)[None, None], 0.0, -jnp.inf)


def _asked(t: Float[Array, "B"] | None) -> Float[Array, "B"]:
    if t is None:
        raise ValueError("t=None: noise belongs to a step, so pass its time t = 1 - s/T")
    return t


def mdm_as_looped(
    predictor: Denoiser,
    select: Callable[[Int[Array, "B L"]], Bool[Array, "B L"]],
    given: Bool[Array, "B L"],
    vocab: int,
    point: FixedPoint = FixedPoint(2, 0),  # noqa: B008 (frozen)
) -> Looped:
    """An MDM as a looped network of width V + 1, whose stream is the one-hot of the tokens. Cells `given` never change.

    One loop is a step: argmax(logits + noise) where `select` says so, and the token is embedded again. Noise is what is
    added to the logits, [T, B, L, V]; none is the argmax, Gumbel noise samples exactly (`engine_noise`). ValueError for
    a fixed point that has no code for 1.
    """
    if point.fraction > point.bits - 2:
        raise ValueError(f"bits={point.bits}, fraction={point.fraction}: 1 has no code")
    one_hot = lambda tokens: jax.nn.one_hot(tokens, vocab + 1)

    def block(x, noise):
        tokens = x.argmax(-1).astype(jnp.int32)
        logits = predictor(tokens)
        drawn = (logits if noise is None else logits + noise).argmax(-1)
        return one_hot(jnp.where(select(tokens) & ~given, drawn, tokens))

    return Looped(one_hot, block, point)


@dataclasses.dataclass(frozen=True)
class GumbelMax:
    """A draw for the engine: argmax(logits + G), G standard Gumbel noise by the key of the row, call and position."""

    def __call__(self, key: Key[Array, ""], logits: Float[Array, "V"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
        token = (logits + _gumbel(key, logits.shape[0])).argmax().astype(jnp.int32)
        return token, jax.nn.softmax(logits)[token]


def engine_noise(
    key: Key[Array, ""], ids: Int[Array, "B"], steps: int, length: int, vocab: int
) -> Float[Array, "T B L V"]:
    """The noise that `sampling.sample(key=key, ids=ids, draw=GumbelMax())` adds to logits at each of T calls."""
    uses = 1 + jnp.arange(steps * length).reshape(steps, length)  # as the engine numbers them
    of = lambda row, use: _gumbel(jax.random.fold_in(row, use), vocab)
    every = jax.vmap(jax.vmap(jax.vmap(of, (None, 0)), (0, None)), (None, 0))
    return every(example_keys(key, ids), uses)


def _gumbel(key: Key[Array, ""], vocab: int) -> Float[Array, "V"]:
    return jax.random.gumbel(key, (vocab,), jnp.float32, mode="high")

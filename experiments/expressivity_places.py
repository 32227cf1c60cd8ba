"""Positional inputs from outside, and word problems as a network is given them.

What a cell is told of its place are the binary codes (-1, +1) of its own number and of the numbers of its two operands,
as `expressivity.Explicit` has them. A matrix that is learned makes a vector of them, where a transformer would have a
vector learned for each position. Numbers are those of a larger circuit, for words of 2N symbols, of which a word takes
a part, another for each batch: its tree hangs at any node 1, 2, ... of the larger heap that has room for it (at 1, 2 or
3 for N a power of 2), and its chain begins with any of as many symbols. So all numbers of a word of 2N symbols were
seen, which those of the positions of a row would not be (random positions: arXiv 2305.16843).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mdmjax import expressivity, networks
from mdmjax.expressivity import Automaton, Circuit, MonoidTask
from mdmjax.networks.functional import Bound, Params
from mdmjax.objectives.bounds import Terms


def parts_of(length: int, longest: int) -> int:
    """How many parts for words of a length a circuit for twice the longest has: 2^Lg(longest) 4 / 2^Lg(length) - 1."""
    ceil = lambda n: 1 << (n - 1).bit_length()
    return 4 * ceil(longest) // ceil(length) - 1


def elements(task: MonoidTask, every: bool = False) -> MonoidTask:
    """The task whose states are the elements of the monoid: its last state is the product of a word, as of the tree.

    With `every` all elements are symbols, the usual word problem of a group; else those of the automaton.
    """
    label = np.arange(task.size) if every else task.label
    symbols = tuple(str(f) for f in label) if every else task.automaton.symbols
    accepting = task.accepts(np.arange(task.size))
    return expressivity.monoid_task(Automaton(task.mul[:, label].T, 0, accepting, symbols))


def tree_numbers(circuit: Circuit, parts: int) -> Int[np.ndarray, "P L"]:
    """The nodes of the tree as descendants of the nodes 1..P: h = 2^d + k becomes r 2^d + k."""
    depth = np.array([int(h).bit_length() - 1 for h in circuit.ids])
    return np.stack([r * 2**depth + circuit.ids - 2**depth for r in range(1, parts + 1)])


def chain_numbers(circuit: Circuit, parts: int, most: int) -> Int[np.ndarray, "P L"]:
    """Symbol i is 2 i + 2 and the state behind it 2 i + 3, i from P starts that are evenly spaced up to most - N."""
    count = circuit.inputs
    i = np.concatenate([np.arange(count), [-1], np.arange(count)])
    state = np.arange(circuit.length) >= count
    return np.stack([2 * (i + p * (most - count) // max(parts - 1, 1)) + 2 + state for p in range(parts)])


def codes(circuit: Circuit, numbers: Int[np.ndarray, "P L"], bits: int, causal: bool) -> Float[np.ndarray, "P L 3nb"]:
    """The codes of each cell's own number, and of its left and its right operand's.

    A causal network is given the token before, and so the own number is that one's (0 for the first).
    """
    code = lambda x: ((x[..., None] >> np.arange(bits)) % 2 * 2 - 1).astype(np.float32)
    own = np.concatenate([0 * numbers[:, :1], numbers[:, :-1]], 1) if causal else numbers
    return np.concatenate([code(own), code(numbers[:, circuit.left]), code(numbers[:, circuit.right])], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedModel:
    """A transformer with `places`, the vectors of positions being `codes` times a matrix [3 bits, D] that is learned.

    So it has the same parameters for rows of any length. `bind` takes the part of the larger circuit too.
    """

    model: networks.Model
    codes: Float[np.ndarray, "P L 3nb"]

    def init(self, key: Key[Array, ""]) -> Params:
        """As the transformer, the matrix N(0, 0.02^2) like its embedding. Consumes the key."""
        first, second = jax.random.split(key)
        kernel = 0.02 * jax.random.normal(second, (self.codes.shape[-1], self.model.config.width))
        return self.model.init(first) | {"places": {"kernel": kernel}}

    def bind(self, params: Params, part: int | Int[Array, ""] = 0) -> Bound:
        """The network with these parameters, on a part."""
        places = jnp.asarray(self.codes)[part] @ params["places"]["kernel"]
        return self.model.bind(params | {"places": {"embedding": places}})


@dataclasses.dataclass(frozen=True, eq=False)
class OnPart:
    """Objectives of parameters, on the part that the batch names: {canvas length: (model, objective)}."""

    of: Mapping[int, tuple[PlacedModel, Callable]]

    def __call__(self, params: Params, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        model, objective = self.of[batch["tokens"].shape[1]]
        return objective(model.bind(params, batch["part"]), batch, key, size)


def words(rng: np.random.Generator, symbols: int, rows: int, length: int, uneven: float) -> Int[np.ndarray, "B N"]:
    """Random words: symbols alike where uneven = 0, else with shares that are drawn for each word.

    Shares ~ Dirichlet((1 + a)^-p, a = 0..S-1) with p ~ U(0, uneven): from uniform on the simplex to few symbols, of
    which the first are the likeliest.
    """
    if not uneven:
        return rng.integers(0, symbols, (rows, length))
    weights = rng.standard_gamma((1.0 + np.arange(symbols)) ** -rng.uniform(0, uneven, (rows, 1)))
    ends = (weights / weights.sum(1, keepdims=True)).cumsum(1)[:, None, :-1]
    return (rng.random((rows, length, 1)) > ends).sum(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Where the words of a batch come from."""

    draw: Callable[[np.random.Generator], np.ndarray]  # solved canvases [B, L]
    eligible: Bool[np.ndarray, "L"]
    parts: int


class Words:
    """Batches of solved words for every seed, drawn afresh: known from the seed of a run and the number of the batch.

    Canvases [S, B, L] of `source(number of the batch)`, with what is `eligible` and the batch's `part`.
    """

    def __init__(self, source: Callable[[int], Source], seeds: int, seed: int):
        self._source, self._seeds, self._seed, self._position = source, seeds, seed, 0

    def __iter__(self) -> "Words":
        return self

    def __next__(self) -> dict[str, Any]:
        n, source = self._position, self._source(self._position)
        generators = [np.random.default_rng([self._seed, s, n]) for s in range(self._seeds)]
        tokens = np.stack([source.draw(rng) for rng in generators])
        rows = tokens.shape[1]
        ids = np.tile(np.arange(n * rows, (n + 1) * rows, dtype=np.int32), (self._seeds, 1))
        parts = np.array([rng.integers(source.parts) for rng in generators], np.int32)
        eligible = np.broadcast_to(source.eligible, tokens.shape).copy()
        self._position += 1
        return dict(tokens=tokens, ids=ids, eligible=eligible, part=parts)

    def get_state(self) -> dict[str, int]:
        return {"next_batch": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        self._position = state["next_batch"]

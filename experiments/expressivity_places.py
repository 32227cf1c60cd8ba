"""Positional inputs from outside, and word problems as a network is given them.

What a cell is told of its place are the binary codes (-1, +1) of its own number and of the numbers of its two operands,
as `expressivity.Explicit` has them. A matrix that is learned makes a vector of them, where a transformer would have a
vector learned for each position. Numbers are those of a larger circuit, of which a word takes a part, one of three for
each batch: the word's tree hangs at the node 1, 2 or 3 of the heap of twice as many leaves, and a chain begins with the
symbol 0, N/2 or N. So all numbers of a word of 2N symbols have been seen, which for codes of the positions of a row
would not be (random positions: arXiv 2305.16843).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from mdmjax import expressivity, networks
from mdmjax.expressivity import Automaton, Circuit, MonoidTask
from mdmjax.networks.functional import Bound, Params
from mdmjax.objectives.bounds import Terms

PARTS = 3  # of a larger circuit


def elements(task: MonoidTask) -> MonoidTask:
    """The task whose states are the elements of the monoid: its last state is the product of a word, as of the tree."""
    delta, accepting = task.mul[:, task.label].T, task.accepts(np.arange(task.size))
    return expressivity.monoid_task(Automaton(delta, 0, accepting, task.automaton.symbols))


def tree_numbers(circuit: Circuit) -> Int[np.ndarray, "P L"]:
    """The nodes of the tree as descendants of the nodes 1, 2 and 3: h = 2^d + k becomes r 2^d + k."""
    depth = np.array([int(h).bit_length() - 1 for h in circuit.ids])
    return np.stack([r * 2**depth + circuit.ids - 2**depth for r in range(1, PARTS + 1)])


def chain_numbers(circuit: Circuit) -> Int[np.ndarray, "P L"]:
    """Symbol i is 2 i + 2 and the state behind it 2 i + 3, for i from 0, from N/2 and from N."""
    count = circuit.inputs
    i = np.concatenate([np.arange(count), np.arange(count), [-1]])
    state = np.arange(circuit.length) >= count
    return np.stack([2 * (i + p * count // 2) + 2 + state for p in range(PARTS)])


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

    def on_parts(self, params: Params) -> Callable[[Int[Array, ""]], Bound]:
        """What `OnPart` takes for a denoiser."""
        return functools.partial(self.bind, params)


@dataclasses.dataclass(frozen=True)
class OnPart:
    """An objective on the part that the batch names, of networks `on_parts`."""

    objective: Callable

    def __call__(self, denoiser: Callable, batch: dict[str, Array], key: Key[Array, ""], size: int) -> Terms:
        return self.objective(denoiser(batch["part"]), batch, key, size)


def words(rng: np.random.Generator, symbols: int, rows: int, length: int, uneven: bool) -> Int[np.ndarray, "B N"]:
    """Random words: symbols alike, or with probabilities that are drawn for each word, uniform on the simplex."""
    if not uneven:
        return rng.integers(0, symbols, (rows, length))
    ends = rng.dirichlet(np.ones(symbols), rows).cumsum(1)[:, None, :-1]
    return (rng.random((rows, length, 1)) > ends).sum(-1)


class Words:
    """Batches of solved words for every seed, drawn afresh: known from the seed of a run and the number of the batch.

    Canvases [S, B, L] as `solve` makes them from words, with what is `eligible` and the batch's `part`.
    """

    def __init__(self, solve: Callable, eligible: np.ndarray, draw: Callable, seeds: int, rows: int, seed: int):
        self._solve, self._draw, self._rows, self._seed, self._position = solve, draw, rows, seed, 0
        self._eligible = np.tile(eligible, (seeds, rows, 1))

    def __iter__(self) -> "Words":
        return self

    def __next__(self) -> dict[str, Any]:
        n, seeds = self._position, len(self._eligible)
        generators = [np.random.default_rng([self._seed, s, n]) for s in range(seeds)]
        tokens = np.stack([self._solve(self._draw(rng, self._rows)) for rng in generators])
        ids = np.tile(np.arange(n * self._rows, (n + 1) * self._rows, dtype=np.int32), (seeds, 1))
        parts = np.array([rng.integers(PARTS) for rng in generators], np.int32)
        self._position += 1
        return dict(tokens=tokens, ids=ids, eligible=self._eligible, part=parts)

    def get_state(self) -> dict[str, int]:
        return {"next_batch": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        self._position = state["next_batch"]

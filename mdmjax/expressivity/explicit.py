"""A transformer that computes a circuit, with weights written down: one layer, two heads, softmax, ReLU.

Cells are told apart by positional inputs: the binary code (-1, +1) of their number, and of the numbers of the cells
that they read. Head Left of a cell asks for the code of its left operand, Right for the right one: a hit scores
bits * c, a code that differs in k bits (bits - 2 k) c. Each head returns the law of the token there. A hidden unit for
each pair (a, b) is relu(L_a + R_b - 1), and adds to the logit of op[a, b]; the planner is linear in what is seen:

    score = [own token is the mask] + [the cell is an output] + (1 - L_mask) + (1 - R_mask) - 3.5 > 0.

Where heads have the mass eps off their targets, the correct logit of a cell that is ready is >= 1 - 2 eps and all
others sum to <= 2 eps, and |score| >= 1/2 - 2 eps. eps <= (cells - 1) e^{-2c}, and eps <= (1 + e^{-2c})^bits - 1.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdmjax.expressivity.circuits import Circuit
from mdmjax.expressivity.decoding import Headed, with_head


def safe_scale(cells: int, bits: int) -> float:
    """c = ln(64 cells) / 2, with which eps < 1/64."""
    return 0.5 * math.log(64 * cells)


def sharp_scale(cells: int, bits: int) -> float:
    """c = ln(64 bits) / 2 + 0.01, with which eps is about 1/64: it grows as log log of the number of cells."""
    return 0.5 * math.log(64 * bits) + 0.01


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Positions:
    """What a cell is told of its place, a row each; permuted with the cells they change nothing."""

    own: Float[Array, "L nb"]
    left: Float[Array, "L nb"]
    right: Float[Array, "L nb"]
    output: Float[Array, "L"]  # 1 at output cells, 0 at what is given


class Weights(NamedTuple):
    """The layer. Its input is x = [token one-hot, V + 1 | own code | left code | right code | output], I numbers."""

    query: Float[Array, "2 I nb"]
    key: Float[Array, "I nb"]
    value: Float[Array, "I v"]
    hidden: Float[Array, "h2 H"]  # of the two heads' values, 2 (V + 1)
    out: Float[Array, "H V"]
    planner: Float[Array, "J"]  # of x, then of the two values
    threshold: Float[Array, ""]


def positional_inputs(circuit: Circuit) -> Positions:
    """Codes of the numbers `circuit.ids`, least significant bit first: of a tree, bits of h, 2h and 2h + 1."""
    bits = max(1, int(circuit.ids.max()).bit_length())
    code = lambda ids: jnp.asarray((ids[:, None] >> np.arange(bits)) % 2 * 2.0 - 1)
    ids = circuit.ids
    return Positions(
        code(ids), code(ids[circuit.left]), code(ids[circuit.right]), jnp.asarray((circuit.step > 0) * 1.0)
    )


def explicit_weights(op: Int[np.ndarray, "V V"], bits: int, scale: float, dtype: Any = jnp.float32) -> Weights:
    """The weights of a layer that applies `op` (no unit for pairs with -1), scores being multiplied by c = `scale`."""
    vocab = len(op)
    seen, width = vocab + 1, vocab + 2 + 3 * bits
    place = lambda start: np.eye(width)[:, start : start + bits]
    first, second = np.nonzero(op >= 0)
    hidden = np.zeros((2 * seen, len(first)))
    hidden[first, np.arange(len(first))] = hidden[seen + second, np.arange(len(first))] = 1
    planner = np.zeros(width + 2 * seen)
    planner[[vocab, width - 1]] = 1
    planner[[width + vocab, width + seen + vocab]] = -1
    parts = (
        scale * np.stack([place(seen + bits), place(seen + 2 * bits)]),
        place(seen),
        np.eye(width)[:, :seen],
        hidden,
        np.eye(vocab)[op[first, second]],
        planner,
        np.array(1.5),  # of 3.5, 2 are the ones of 1 - L_mask and 1 - R_mask
    )
    return Weights(*(jnp.asarray(x, dtype) for x in parts))


def layer(
    weights: Weights, tokens: Int[Array, "B L"], positions: Positions, at: Int[Array, "B K"] | None = None
) -> tuple[Float[Array, "B K V"], Float[Array, "B K"]]:
    """(logits, planner's scores) at the cells `at`, by default all. In the dtype of the weights, sums included.

    Padding reads as the mask.
    """
    dtype, vocab = weights.key.dtype, weights.out.shape[1]
    token = jax.nn.one_hot(jnp.minimum(tokens, vocab), vocab + 1, dtype=dtype)
    place = jnp.concatenate([positions.own, positions.left, positions.right, positions.output[:, None]], 1)
    x = jnp.concatenate([token, jnp.broadcast_to(place.astype(dtype), (len(tokens), *place.shape))], -1)
    here = x if at is None else jnp.take_along_axis(x, at[:, :, None], 1)
    scores = jnp.einsum("bki,hin,bjn->hbkj", here, weights.query, x @ weights.key, preferred_element_type=dtype)
    attended = jnp.einsum("hbkj,bjv->hbkv", jax.nn.softmax(scores, -1), x @ weights.value, preferred_element_type=dtype)
    values = jnp.concatenate(list(attended), -1)
    logits = jax.nn.relu(values @ weights.hidden - 1) @ weights.out
    return logits, jnp.concatenate([here, values], -1) @ weights.planner - weights.threshold


@dataclasses.dataclass(frozen=True, eq=False)
class Explicit:
    """The layer as a denoiser whose logits carry the planner's score as their mean, for the planner `Headed`.

    Logits are multiplied by `sharpness`, so that a draw at temperature 1 is nearly the argmax.
    """

    weights: Weights
    positions: Positions
    sharpness: float = 1.0

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        logits, score = layer(self.weights, tokens, self.positions, at)
        return with_head(logits.astype(jnp.float32) * self.sharpness, score.astype(jnp.float32))


def explicit_denoiser(
    circuit: Circuit, scale: float | None = None, dtype: Any = jnp.float32
) -> tuple[Explicit, Headed, Positions]:
    """(denoiser, planner, positional inputs) of a circuit; c = `scale`, by default `safe_scale`.

    They run in `sampling.sample` as any others do, on `circuits.canvas`. ValueError for a scale that is not above 0.
    """
    positions = positional_inputs(circuit)
    bits = positions.own.shape[1]
    scale = safe_scale(circuit.length, bits) if scale is None else scale
    if not 0 < scale < math.inf:
        raise ValueError(f"scale={scale}: must be above 0 and finite")
    return Explicit(explicit_weights(circuit.op, bits, scale, dtype), positions), Headed(circuit.steps), positions


_layer = jax.jit(layer)


class Margins(NamedTuple):
    """Of a canvas in a run: at ready cells the correct logit less the largest other; at all cells |planner's score|."""

    predictor: float  # the least, inf where no cell is ready
    planner: float
    wrong: int  # cells whose selection is not that of the circuit


def margins(
    weights: Weights, circuit: Circuit, positions: Positions, tokens: Int[Array, "B L"], ready: Bool[Array, "B L"]
) -> Margins:
    """The least margins on one canvas. Where a cell is not ready its logits mean nothing, and are left out."""
    logits, score = (np.asarray(x, np.float64) for x in _layer(weights, tokens, positions))
    seen = np.asarray(tokens)
    token = lambda x: np.minimum(seen[:, x], circuit.vocab - 1)
    right = np.maximum(circuit.op[token(circuit.left), token(circuit.right)], 0)[..., None]
    others = np.where(np.arange(circuit.vocab) == right, -np.inf, logits).max(-1, initial=-np.inf)
    least = np.where(np.asarray(ready), np.take_along_axis(logits, right, -1)[..., 0] - others, np.inf).min()
    return Margins(float(least), float(np.abs(score).min()), int(((score > 0) != np.asarray(ready)).sum()))

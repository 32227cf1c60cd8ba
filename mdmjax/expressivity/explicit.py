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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdmjax.expressivity.circuits import Circuit, Stages, written_once
from mdmjax.expressivity.decoding import Headed, with_head

FLOATS = ("float64", "float32", "bfloat16", "float16")
SHARPEST = 2.0**16  # so that float32 holds the planner's score beside logits that are so large


def code_bits(circuit: Circuit) -> int:
    """Bits of the codes of a circuit's cells."""
    return max(1, int(circuit.ids.max()).bit_length())


def safe_scale(circuit: Circuit) -> float:
    """c = ln(64 cells) / 2, with which eps < 1/64."""
    return 0.5 * math.log(64 * circuit.length)


def sharp_scale(circuit: Circuit) -> float:
    """c = ln(64 bits) / 2 + 0.01, with which eps < 1/64 too: it grows as log log of the number of cells."""
    return 0.5 * math.log(64 * code_bits(circuit)) + 0.01


SCALES = {"safe": safe_scale, "sharp": sharp_scale}


def off_target(circuit: Circuit, scale: float) -> float:
    """The bound on eps, the mass that a head has off its target: the least of 1, (cells - 1) e^{-2c} and

        (1 + e^{-2c})^bits - 1.

    In exact arithmetic.
    """
    miss = math.exp(-2 * scale)
    return min(1.0, (circuit.length - 1) * miss, math.expm1(code_bits(circuit) * math.log1p(miss)))


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
    bits = code_bits(circuit)
    code = lambda ids: jnp.asarray((ids[:, None] >> np.arange(bits)) % 2 * 2.0 - 1)
    ids = circuit.ids
    return Positions(
        code(ids), code(ids[circuit.left]), code(ids[circuit.right]), jnp.asarray((circuit.step > 0) * 1.0)
    )


def explicit_weights(op: Int[np.ndarray, "V V"], bits: int, scale: float, dtype: Any = jnp.float32) -> Weights:
    """The weights of a layer that applies `op` (no unit for pairs with -1), scores being multiplied by c = `scale`.

    ValueError for a dtype that is none of `FLOATS`, for float64 where JAX does not have it, and for a scale that is not
    above 0 or with which a hit, bits * c, is more than the dtype has numbers for.
    """
    dtype = np.dtype(dtype)
    if dtype.name not in FLOATS:
        raise ValueError(f"dtype={dtype.name}: must be one of {', '.join(FLOATS)}")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError("dtype=float64: JAX has it only where jax_enable_x64 is set")
    least, most = float(jnp.finfo(dtype).tiny), float(jnp.finfo(dtype).max) / bits
    if not least <= scale <= most:
        raise ValueError(f"scale={scale}: must be in {least:.3g}..{most:.3g} for codes of {bits} bits in {dtype.name}")
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
    """(logits, planner's scores) at the cells `at`, by default all. In the dtype of the weights, sums included,
    but for the denominator of a softmax, which JAX adds up in float32 and rounds. Padding reads as the mask.
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

    Logits are multiplied by s = `sharpness`, so that a draw at temperature 1 is nearly the argmax: at a cell that is
    ready it is another token with probability at most (V - 1) e^{-s (1 - 4 eps)}, by default below 1e-50 V where eps <
    1/64, and at s = 32 below 1e-12 V. In float32 the planner's score, the mean of the logits, is known to about
    s 2^-22, which has to stay far below 1/2 - 2 eps. ValueError for s outside (0, 2^16].
    """

    weights: Weights
    positions: Positions
    sharpness: float = 128.0

    def __post_init__(self):
        if not 0 < self.sharpness <= SHARPEST:
            raise ValueError(f"sharpness={self.sharpness}: must be above 0, and at most {SHARPEST:.0f}")

    def __call__(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None, *, at: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B K V"]:
        logits, score = layer(self.weights, tokens, self.positions, at)
        return with_head(logits.astype(jnp.float32) * self.sharpness, score.astype(jnp.float32))


def explicit_denoiser(
    circuit: Circuit | Stages, scale: float | str | Callable[[Circuit], float] = "safe", dtype: Any = jnp.float32
) -> tuple[Explicit, Headed, Positions]:
    """(denoiser, planner, positional inputs) of a circuit. c = `scale`: a number, "safe" (`safe_scale`), "sharp"
    (`sharp_scale`, smaller for large circuits) or a function of the circuit.

    They run in `sampling.sample` as any others do, on `circuits.canvas`, at temperature 0 or 1. ValueError for
    `Stages`, for another name of a scale, and as `explicit_weights`.
    """
    circuit = written_once(circuit)
    if isinstance(scale, str) and scale not in SCALES:
        raise ValueError(f"scale={scale!r}: must be a number, a function of the circuit, or one of {', '.join(SCALES)}")
    scale = SCALES[scale] if isinstance(scale, str) else scale
    scale = scale(circuit) if callable(scale) else scale
    weights = explicit_weights(circuit.op, code_bits(circuit), scale, dtype)
    positions = positional_inputs(circuit)
    return Explicit(weights, positions), Headed(circuit.steps), positions


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

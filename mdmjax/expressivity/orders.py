"""How much the order of writing matters to the tree: the probability that a planner respects it, exactly.

An order is valid where every inner node of the tree comes after its inner children. `decoding.valid_orders` tells it of
a run of the engine, under any planner.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from mdmjax.base import Estimate, Planner
from mdmjax.expressivity.circuits import Circuit, Stages, canvas, written_once
from mdmjax.expressivity.decoding import Predictor, valid_orders
from mdmjax.expressivity.trees import check_length
from mdmjax.sampling import TokenDraw, sample


def tree_order_probability(length: int) -> Fraction:
    """P(a uniform order of the N - 1 inner nodes is valid) = prod_h 1 / size(h), the hook length formula.

    size(h) counts the inner nodes below h, with h. The law of `FirstHitting`: one cell a step, anywhere. ValueError for
    N < 1.
    """
    check_length(length)
    size = [0] * (2 * length)
    product = 1
    for h in range(length - 1, 0, -1):
        size[h] = 1 + size[2 * h] + size[2 * h + 1]
        product *= size[h]
    return Fraction(1, product)


def tree_steps_probability(length: int, steps: int) -> Fraction:
    """P(valid) where each inner node draws its step uniformly from 1..T, children strictly before their parents.

        p_h(t) = 1/T prod_{inner children c} sum_{s < t} p_c(s),   P = sum_t p_1(t).

    The law of `Ancestral` on the linear schedule with T steps: cells of a step are independent, so their number varies.
    It is 0 for T < ceil(log2 N), and tends to `tree_order_probability` as T grows. ValueError for N < 1 or T < 1.
    """
    check_length(length)
    if steps < 1:
        raise ValueError(f"steps={steps}: must be >= 1")
    ones = [1] * steps
    ways = [ones] * (2 * length)  # ways[h][t]: of the nodes below h to be valid, with h at a step <= t
    for h in range(length - 1, 0, -1):
        before = lambda c: [0, *ways[c][:-1]] if c < length else ones
        total, ways[h] = 0, []
        for x, y in zip(before(2 * h), before(2 * h + 1), strict=True):
            total += x * y
            ways[h].append(total)
    return Fraction(ways[1][-1] if length > 1 else 1, steps ** (length - 1))


def order_statistics(circuit: Circuit | Stages, planner: Planner, key: Key[Array, ""], rows: int) -> Estimate:
    """The share of `rows` runs of the engine that write in a valid order, on words of the first symbol repeated.

    Consumes the key. The order of a planner that does not look at tokens is that of any word. ValueError for rows < 2,
    and for `Stages`.
    """
    circuit = written_once(circuit)
    if rows < 2:
        raise ValueError(f"rows={rows}: an error bar needs at least 2")
    words = np.zeros((rows, circuit.inputs), np.int32)
    run = jax.jit(
        lambda tokens: (
            sample(
                Predictor(circuit), planner, tokens, vocab=circuit.vocab, key=key, draw=TokenDraw(0.0), trace=True
            ).trace
        )
    )
    valid = valid_orders(circuit, run(jnp.asarray(canvas(circuit, words))))
    error = float(valid.std(ddof=1) / rows**0.5)
    return Estimate(float(valid.mean()), error, "share", rows, "share of valid orders")

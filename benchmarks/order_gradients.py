"""Spread of the gradient of a learned order, exactly, for each estimator: one draw, and draws of equal denoiser calls.

    python -m benchmarks.order_gradients [--out results/benchmarks/order_gradients.json]

Three positions with losses -log u, u uniform on (0.05, 0.95), from seed 1; order weights (1, 2, 4); K = 2 draws with
leave-one-out. The standard deviation of the gradient in each log-weight is over every pair of draws, with quadrature in
t where there is one: no sampling. "Per call" multiplies it by the square root of the denoiser calls of an estimate, 2
for one call a draw and 6 where every step of an order is scored: the spread of as many calls spent on each.
"""

import argparse
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import write
from mdmjax.analysis import all_masks, all_orders
from mdmjax.objectives import OrderSpace, TimeSpace, surrogate
from mdmjax.process import PlackettLuce
from mdmjax.reports import environment

LENGTH, SAMPLES = 3, 2
LAWS = {
    "time, as published": TimeSpace(t_min=1e-3, least=0.0),
    "time, weights raised": TimeSpace(t_min=1e-3),
    "order, one step": OrderSpace(),
    "order, every step": OrderSpace(every_step=True),
}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def losses() -> np.ndarray:
    """[8, 3], by hidden set; drawn for each position by the size of the visible set, then in its order."""
    rng, table = np.random.default_rng(1), np.zeros((2**LENGTH, LENGTH))
    for position in range(LENGTH):
        others = [j for j in range(LENGTH) if j != position]
        for size in range(LENGTH):
            for shown in itertools.combinations(others, size):
                hidden = sum(2 ** (LENGTH - 1 - j) for j in range(LENGTH) if j not in shown)
                table[hidden, position] = -np.log(rng.uniform(0.05, 0.95))
    return table


def order_pairs(law: OrderSpace, log_weights) -> tuple:
    """(inputs of `given`, probability of each) for every pair of orders at every step."""
    orders = all_orders(LENGTH)
    p = np.exp(PlackettLuce(log_weights).log_prob(jnp.asarray(orders)))
    pairs = np.array(list(itertools.product(range(len(orders)), repeat=SAMPLES)))
    steps = [np.arange(LENGTH)] if law.every_step else [np.array([i]) for i in range(LENGTH)]
    order = np.concatenate([orders[pairs]] * len(steps))
    revealed = np.repeat(steps, len(pairs), axis=0)
    return (jnp.asarray(order), jnp.asarray(revealed)), np.tile(p[pairs].prod(1), len(steps)) / len(steps)


def time_pairs(law: TimeSpace, log_weights) -> tuple:
    """(inputs of `given`, probability of each) for every pair of masks at the nodes of a quadrature in log t."""
    node, width = np.polynomial.legendre.leggauss(64)
    end = -np.log(law.t_min)
    u, du = end / 2 * (1 + node), end / 2 * width
    t, dt = np.exp(-u), du * np.exp(-u)
    w, masks = np.asarray(law.weights(log_weights)), all_masks(LENGTH)
    p = np.where(masks, t[:, None, None] ** w, 1 - t[:, None, None] ** w).prod(2)
    pairs = np.array(list(itertools.product(range(len(masks)), repeat=SAMPLES)))
    probability = (dt[:, None] * p[:, pairs].prod(2) / (1 - law.t_min)).ravel()
    return (
        jnp.asarray(np.repeat(t, len(pairs))),
        jnp.asarray(np.tile(masks[pairs], (len(t), 1, 1))[:, :, None]),
    ), probability


def spread(law: OrderSpace | TimeSpace, log_weights, baseline: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) [3] of the gradient in the log-weights of one estimate of K draws."""
    pairs = time_pairs if isinstance(law, TimeSpace) else order_pairs
    inputs, p = pairs(law, log_weights)
    table = jnp.asarray(losses())

    def estimates(log_weights):
        draws = law.given(log_weights, *inputs)
        rows = draws.masks @ (2 ** np.arange(LENGTH)[::-1])
        return surrogate((draws.weights * table[rows]).sum((2, 3)), draws.log_q, baseline)

    gradients = np.asarray(jax.jit(jax.jacfwd(estimates))(log_weights))
    mean = p @ gradients
    return mean, np.sqrt(p @ (gradients - mean) ** 2)


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON."""
    with jax.enable_x64(True):
        log_weights = jnp.log(jnp.array([1.0, 2.0, 4.0]))
        found = {}
        for name, law in LAWS.items():
            for baseline in (True, False):
                mean, deviation = spread(law, log_weights, baseline)
                calls = SAMPLES * law.calls(LENGTH)
                found[name if baseline else f"{name}, no baseline"] = {
                    "mean": mean.tolist(),
                    "deviation": deviation.tolist(),
                    "root mean square": float(np.sqrt((deviation**2).mean())),
                    "calls": calls,
                    "per call": float(np.sqrt(calls * (deviation**2).mean())),
                }
    return {"benchmark": "order_gradients", "environment": environment(), "config": {}, "estimators": found}


def main() -> None:
    args = arguments()
    write(measure(args), args.out)


if __name__ == "__main__":
    main()

"""Few steps: how many positions a step reveals, and which first. Do the two knobs add up? Exactly, of a known law."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.results import over_seeds, shown
from mdmjax import analysis, process

STEPS = (2, 3, 6)
GRID = tuple((a, b) for a in (0.3, 0.5, 0.7, 0.9, 1.2, 1.7, 2.4) for b in (0.3, 0.5, 0.7, 0.9, 1.2, 1.7, 2.4))


def _bounds(losses, log_weights, steps: int) -> tuple[Float[Array, ""], Float[Array, "G"]]:
    def bound(base):
        return analysis.discrete_multivariate_bound(losses, process.PositionPowers(log_weights, base), steps)

    a, b = jnp.array(GRID, jnp.asarray(losses).dtype).T
    return bound(process.Linear()), jax.lax.map(lambda ab: bound(process.beta(*ab)), (a, b))


@jax.jit
def _all_bounds(losses, log_weights):
    equal = jnp.zeros_like(log_weights)
    return {str(steps): [_bounds(losses, v, steps) for v in (equal, log_weights)] for steps in STEPS}


def few_steps(losses: Float[Array, "M L"], log_weights: Float[Array, "L"], floor: float) -> dict[str, dict[str, Any]]:
    """The T-step bounds of a denoiser, less `floor`, for T = 2, 3, 6: `neither`, `how many`, `which`, `both`, in nats.

    Position l is hidden at t with probability (1 - alpha(t))^w_l: alpha says how many positions a step reveals, w which
    (analysis.discrete_multivariate_bound of process.PositionPowers). `which` and `both` have the given weights, the
    others equal ones; `how many` and `both` the best alpha of a grid of Beta schedules, named in "(a, b)", the others
    the linear one. losses: analysis.expected_losses of the denoiser.
    """
    found = {}
    for steps, ((linear, equal), (own_linear, own)) in _all_bounds(losses, log_weights).items():
        equal, own = np.asarray(equal, np.float64), np.asarray(own, np.float64)
        found[steps] = {
            "neither": float(linear) - floor,
            "how many": equal.min() - floor,
            "which": float(own_linear) - floor,
            "both": own.min() - floor,
            "(a, b)": [GRID[equal.argmin()], GRID[own.argmin()]],
        }
    return found


def table(found: Sequence[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each T: the bounds over seeds, and by how much the gain of both exceeds the sum of the two."""
    rows = []
    for steps in STEPS:
        seeds = [run[str(steps)] for run in found]
        row: dict[str, Any] = {"T": steps}
        for name in ("neither", "how many", "which", "both"):
            row[name] = shown(over_seeds([s[name] for s in seeds]))
        more = [s["how many"] + s["which"] - s["both"] - s["neither"] for s in seeds]
        row["gain of both - sum of gains"] = shown(over_seeds(more))
        row["(a, b) of both by seed"] = "; ".join(f"{a:g}, {b:g}" for _, (a, b) in (s["(a, b)"] for s in seeds))
        rows.append(row)
    return rows

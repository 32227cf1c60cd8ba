"""Weights on memristive crossbars: exact currents with the resistance of the wires, and where to put which weight.

Stands alone: it imports nothing of the rest. "Manhattan distance mapping" (arXiv 2511.04798) shares its acronym with
masked diffusion models and nothing else.
"""

from mdmjax.crossbar.deployment import Crossbar, Deployed, decode, distance_noise, effective_weights, gains
from mdmjax.crossbar.factors import (
    Factors,
    PowerBounds,
    factors,
    mac_error,
    manhattan_score,
    mean_field,
    power_bounds,
    predicted_nf,
    quadratic_form,
    slope_of_law,
)
from mdmjax.crossbar.mapping import FLOWS, KEYS, SCOPES, Mapped, check_permutation, greedy, map_tiles
from mdmjax.crossbar.slicing import LAYOUTS, ROUNDINGS, Sliced, Tiles, bit_slice, index_bits, tile
from mdmjax.crossbar.solver import (
    NotConverged,
    Solved,
    condition,
    device_voltages,
    effective_conductance,
    iterations_for,
    nodal,
    require,
    solve,
)
from mdmjax.crossbar.wires import Wires, distances, drop, inverse_path_matrix, largest_eigenvalue, path_matrix

__all__ = [
    "Crossbar",
    "Deployed",
    "FLOWS",
    "Factors",
    "KEYS",
    "LAYOUTS",
    "Mapped",
    "NotConverged",
    "PowerBounds",
    "ROUNDINGS",
    "SCOPES",
    "Sliced",
    "Solved",
    "Tiles",
    "Wires",
    "bit_slice",
    "check_permutation",
    "condition",
    "decode",
    "device_voltages",
    "distance_noise",
    "distances",
    "drop",
    "effective_conductance",
    "effective_weights",
    "factors",
    "gains",
    "greedy",
    "index_bits",
    "inverse_path_matrix",
    "iterations_for",
    "largest_eigenvalue",
    "mac_error",
    "manhattan_score",
    "map_tiles",
    "mean_field",
    "nodal",
    "path_matrix",
    "power_bounds",
    "predicted_nf",
    "quadratic_form",
    "require",
    "slope_of_law",
    "solve",
    "tile",
]

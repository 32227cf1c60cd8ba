"""Parasitic resistance as noise that grows with the distance: the model of arXiv 2511.04798, for comparison."""

import numpy as np
from jaxtyping import Float

from mdmjax.crossbar.deployment import Crossbar, decode
from mdmjax.crossbar.wires import distances


def distance_noise(
    weights: Float[np.ndarray, "I O"], crossbar: Crossbar, alpha: float, *, rng: np.random.Generator | None = None
) -> Float[np.ndarray, "I O"]:
    """W~ = scale sum_b +- 2^-b beta_b (1 - alpha d(j, k)) of the mapped tiles, the paper's noise model as far as it can
    be reconstructed; with an `rng` alpha d(j, k) is the deviation of a normal number for each cell, of mean 0.

    For comparison only: of the exact attenuation of a 64 x 64 tile it explains a half to four fifths, with another
    slope at every density. No alpha is right for all; `effective_weights` is.
    """
    sliced, tiles, *_ = crossbar.map(weights)
    loss = alpha * distances(crossbar.rows, crossbar.columns)[None]
    if rng is not None:
        loss = loss * rng.standard_normal(tiles.cells.shape)
    conductance = tiles.cells * (1 - loss)
    return decode(conductance.transpose(0, 2, 1), tiles, 0.0, sliced.scale, weights.shape)

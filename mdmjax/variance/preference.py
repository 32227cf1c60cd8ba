"""How far the noise of a preference score reaches: bounds on what it does to the loss, and its law by enumeration.

The score s and its estimate s^ are those of `objectives.Preference` (arXiv 2505.19223); V = Var(s^ | pair), and the
loss is f(s^) with f = softplus(-s), so 0 < f'' <= 1/4 and |f'| < 1.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mdmjax.variance.enumeration import MaskLaw

Number = float | Float[np.ndarray, "*n"]


def loss_bias_bound(variance: Number) -> Number:
    """min(V / 8, sqrt(V) / 2) >= E f(s^) - f(s) >= 0.

    The first since f'' <= 1/4; the second since f(z) + z/2 is 1/2-Lipschitz and E(s^ - s) = 0. And Var f(s^) <= V.
    """
    return np.minimum(variance / 8, variance**0.5 / 2)


def gradient_bias_bound(variance: Number, squared_norm: Number, gradient_variance: Number) -> Number:
    """(1/4) sqrt(V) sqrt(|grad s|^2 + V_g) >= |E g^ - g|, V_g = tr Cov(grad s^), for g^ = -sigmoid(-s^) grad s^."""
    return (variance * (squared_norm + gradient_variance)) ** 0.5 / 4


def gradient_variance_bound(variance: Number, squared_norm: Number, gradient_variance: Number) -> Number:
    """2 V_g + |grad s|^2 V / 8 >= tr Var(g^)."""
    return 2 * gradient_variance + squared_norm * variance / 8


class ScoreLaw(NamedTuple):
    """All values of an estimate of the score, with their probabilities."""

    values: Float[np.ndarray, "K"]
    probabilities: Float[np.ndarray, "K"]

    def mean(self, function=lambda s: s) -> float:
        """E function(s^)."""
        return float(self.probabilities @ function(self.values))

    def variance(self, function=lambda s: s) -> float:
        """Var function(s^)."""
        return self.mean(lambda s: (function(s) - self.mean(function)) ** 2)


def score_law(
    policy: Float[np.ndarray, "2 M"], reference: Float[np.ndarray, "2 M"], law: MaskLaw, *, beta: float, shared: bool
) -> ScoreLaw:
    """The law of the score from one draw for each answer (preferred, rejected), and for each model unless `shared`.

    The tables hold the summed cross-entropies at all 2^L masks (`variance.enumeration`). With A masks of positive
    probability there are A^2 values, or A^4.
    """
    rates, masks = np.nonzero(law.probabilities[:, None] * law.masks)
    chance = (law.probabilities[:, None] * law.masks)[rates, masks]

    def gain(answer: int) -> tuple[np.ndarray, np.ndarray]:
        own, other = (-law.factors[rates] * table[answer, masks] for table in (policy, reference))
        if shared:
            return own - other, chance
        return (own[:, None] - other[None]).ravel(), np.outer(chance, chance).ravel()

    (first, p), (second, q) = gain(0), gain(1)
    return ScoreLaw(beta * (first[:, None] - second[None]).ravel(), np.outer(p, q).ravel())

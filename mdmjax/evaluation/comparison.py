"""Models and answers compared by their bounds, each comparison with its own error bar.

What is compared has been scored with the same draws: a `Scorer` keys them by the row's id, so two models, or two
checkpoints, scored with one key share all their noise, and their difference varies much less than either.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mdmjax.evaluation.likelihood import Bound, summarise


def paired(
    one: Float[np.ndarray, "N G"], other: Float[np.ndarray, "M H"], counts: Int[np.ndarray, "N"], estimator: str
) -> Bound:
    """`one` - `other` in nats per token, of the same rows under the same draws: with the errors of `summarise`, that of
    the text and that of the draws alone. ValueError for shapes that differ, and as `summarise`."""
    if one.shape != other.shape:
        raise ValueError(f"scores {one.shape} and {other.shape}: must be of the same rows and groups")
    return summarise(np.asarray(one, np.float64) - np.asarray(other, np.float64), counts, f"paired {estimator}")


class Chosen(NamedTuple):
    """The likeliest of C answers to each of N questions, by their bounds."""

    answer: Int[np.ndarray, "N"]
    margin: Float[np.ndarray, "N"]  # nats between it and the next one
    error: Float[np.ndarray, "N"]  # standard error of the margin, of the draws

    @property
    def sure(self) -> Bool[np.ndarray, "N"]:
        """Whether the margin is more than twice its error."""
        return self.margin > 2 * self.error


def choose(nats: Float[np.ndarray, "N C G"], sizes: Int[np.ndarray, "N C"] | None = None) -> Chosen:
    """Multiple choice: the answer of the least negative ELBO, given G independent estimates of each answer's.

    With `sizes`, the tokens of the answers, by the bound of a token, which does not prefer short answers. The error of
    the margin, sqrt of the sum of both answers' sample variances over G, takes their draws as independent, as they are
    for other strings. ValueError for fewer than two answers or groups.
    """
    nats = np.asarray(nats, np.float64)
    if nats.shape[1] < 2 or nats.shape[2] < 2:
        raise ValueError(f"nats {nats.shape}: at least two answers, and two groups for an error, are needed")
    nats = nats if sizes is None else nats / sizes[..., None]
    mean, variance = nats.mean(2), nats.var(2, ddof=1) / nats.shape[2]
    order = np.argsort(mean, 1)[:, :2]
    take = lambda x: np.take_along_axis(x, order, 1)
    return Chosen(order[:, 0], take(mean)[:, 1] - take(mean)[:, 0], np.sqrt(take(variance).sum(1)))

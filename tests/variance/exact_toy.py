"""A small problem of known variance: four positions, three tokens, six sequences, a log-linear denoiser."""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from mdmjax.analysis import all_masks

LENGTH, VOCAB = 4, 3
FEATURES = LENGTH * (VOCAB + 1) + 1


class Toy(NamedTuple):
    rows: np.ndarray  # [6, L] sequences
    p: np.ndarray  # [6] their probabilities
    weights: np.ndarray  # [L, V, F] of the denoiser: logits[i] = weights[i] @ features
    losses: np.ndarray  # [6, 2^L, L] cross-entropies at masked positions, 0 elsewhere
    gradients: np.ndarray  # [6, 2^L, L V F] of their sum, by the weights

    @property
    def loss(self) -> np.ndarray:
        """The table S / L [6, 2^L]."""
        return self.losses.sum(2) / LENGTH

    @property
    def gradient(self) -> np.ndarray:
        """The table G / L [6, 2^L, L V F]."""
        return self.gradients / LENGTH


@functools.cache
def toy(seed: int) -> Toy:
    rng = np.random.default_rng(seed)
    everything = np.array(list(itertools.product(range(VOCAB), repeat=LENGTH)))
    rows = everything[rng.choice(81, 6, replace=False)]
    p = rng.gamma(2.0, size=6)
    weights = rng.normal(size=(LENGTH, VOCAB, FEATURES))
    return Toy(rows, p / p.sum(), weights, *scored(weights, rows))


def logits(weights: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(logits [..., L, V] of partially masked sequences, their features)."""
    features = np.concatenate(
        [np.eye(VOCAB + 1)[states].reshape(*states.shape[:-1], -1), np.ones((*states.shape[:-1], 1))], -1
    )
    return np.einsum("ivf,...f->...iv", weights, features), features


def scored(weights: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(losses, gradients) of sequences."""
    masks = all_masks(LENGTH)
    said, features = logits(weights, np.where(masks, VOCAB, rows[:, None]))
    q = np.exp(said - said.max(3, keepdims=True))
    q /= q.sum(3, keepdims=True)
    truth = np.eye(VOCAB)[rows][:, None]
    losses = np.where(masks, -np.log((q * truth).sum(3)), 0)
    residual = np.where(masks[:, :, None], q - truth, 0)
    gradients = np.einsum("xmiv,xmf->xmivf", residual, features).reshape(len(rows), len(masks), -1)
    return losses, gradients


def random_table(length: int, examples: int = 3, columns: tuple = (), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(a table [X, 2^L, *columns] of normal numbers, probabilities of its examples)."""
    rng = np.random.default_rng(seed)
    p = rng.exponential(size=examples)
    return rng.normal(size=(examples, 2**length, *columns)), p / p.sum()

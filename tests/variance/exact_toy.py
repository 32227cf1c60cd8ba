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
    masks = all_masks(LENGTH)
    shown = np.where(masks, VOCAB, rows[:, None])  # [6, M, L]
    features = np.concatenate([np.eye(VOCAB + 1)[shown].reshape(6, len(masks), -1), np.ones((6, len(masks), 1))], 2)
    logits = np.einsum("ivf,xmf->xmiv", weights, features)
    q = np.exp(logits - logits.max(3, keepdims=True))
    q /= q.sum(3, keepdims=True)
    truth = np.eye(VOCAB)[rows][:, None]
    losses = np.where(masks, -np.log((q * truth).sum(3)), 0)
    residual = np.where(masks[:, :, None], q - truth, 0)
    gradients = np.einsum("xmiv,xmf->xmivf", residual, features).reshape(6, len(masks), -1)
    return Toy(rows, p / p.sum(), weights, losses, gradients)


def random_table(length: int, examples: int = 3, columns: tuple = (), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(a table [X, 2^L, *columns] of normal numbers, probabilities of its examples)."""
    rng = np.random.default_rng(seed)
    p = rng.exponential(size=examples)
    return rng.normal(size=(examples, 2**length, *columns)), p / p.sum()

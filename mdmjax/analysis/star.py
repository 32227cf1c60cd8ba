"""A Bayes network of one cause and its effects: a small law where the order matters to a model of limited capacity.

The root is uniform over V values; each child equals the root with probability `keep` and is any other value with equal
probabilities. One linear layer on one-hot vectors can be p(child | root) and p(root | any children), and not
p(child | children): a linear denoiser reaches the entropy where the root is revealed first.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Star:
    """Position 0 is the root. Entropy log V + C H(keep, ...); for the defaults 4.776722 nats.

    ValueError for vocab < 2, children < 1, and keep outside [0, 1].
    """

    vocab: int = 3
    children: int = 5
    keep: float = 0.75

    def __post_init__(self):
        if self.vocab < 2 or self.children < 1 or not 0 <= self.keep <= 1:
            raise ValueError(f"{self}: vocab must be >= 2, children >= 1 and keep in [0, 1]")

    @property
    def length(self) -> int:
        """L."""
        return 1 + self.children

    def rows(self) -> Int[np.ndarray, "S L"]:
        """All V^L rows."""
        return np.indices((self.vocab,) * self.length).reshape(self.length, -1).T

    def probabilities(self) -> Float[np.ndarray, "S"]:
        """p of each of `rows`."""
        rows = self.rows()
        equal = rows[:, 1:] == rows[:, :1]
        return np.where(equal, self.keep, (1 - self.keep) / (self.vocab - 1)).prod(1) / self.vocab

    def entropy(self) -> float:
        """H(x) in nats."""
        p = self.probabilities()
        return float(-(p[p > 0] * np.log(p[p > 0])).sum())

    def sample(self, rows: int, seed: int) -> Int[np.ndarray, "N L"]:
        """Independent rows, from NumPy's generator of that seed."""
        rng = np.random.default_rng(seed)
        root = rng.integers(0, self.vocab, (rows, 1))
        other = (root + rng.integers(1, self.vocab, (rows, self.children))) % self.vocab
        return np.concatenate([root, np.where(rng.random(other.shape) < self.keep, root, other)], axis=1)

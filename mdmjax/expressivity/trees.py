"""The balanced tree over a word of any length, as a heap, and recognition by it in ceil(log2 N) steps.

Node 1 is the root, h has the children 2h and 2h + 1; nodes 1..N-1 are inner ones, N..2N-1 are leaves. Products of
dyadic segments of the word, each written once: no step is wasted and nothing is written twice, so this realises
theorem 3.2 of arXiv 2510.13117 (regular languages in log N steps with N cells).
"""

import numpy as np
from jaxtyping import Int

from mdmjax.expressivity.automata import check_words
from mdmjax.expressivity.circuits import Circuit, Run, evaluate
from mdmjax.expressivity.monoids import MonoidTask


def check_length(length: int) -> None:
    """ValueError for N < 1."""
    if length < 1:
        raise ValueError(f"N={length}: a word needs N >= 1 symbols")


def leaves(length: int) -> Int[np.ndarray, "N"]:
    """The node of each symbol: 2^Lg + j for j < 2N - 2^Lg, and N + j - (2N - 2^Lg) after; Lg = ceil(log2 N).

    So that leaves from left to right are the word, also where N is no power of two. ValueError for N < 1.
    """
    check_length(length)
    full = 1 << (length - 1).bit_length()
    j = np.arange(length)
    cut = 2 * length - full
    return np.where(j < cut, full + j, length + j - cut)


def heap_levels(nodes: int) -> list[np.ndarray]:
    """Nodes 1..nodes by depth, the root first."""
    return [np.arange(1 << d, min(2 << d, nodes + 1)) for d in range(nodes.bit_length())]


def tree(task: MonoidTask, length: int) -> Circuit:
    """Node h = mul[node 2h, node 2h + 1]: T = ceil(log2 N) steps, P = N - 1 cells, read at the root.

    Canvas: the word, then nodes 1..N-1. Its `ids` are the nodes. ValueError for N < 1.
    """
    position = np.empty(2 * length, np.int64)
    position[leaves(length)] = np.arange(length)
    position[1:length] = length + np.arange(length - 1)
    left, right, step = np.arange(2 * length - 1), np.arange(2 * length - 1), np.zeros(2 * length - 1, np.int64)
    for nodes in reversed(heap_levels(length - 1)):
        cells, first, second = position[nodes], position[2 * nodes], position[2 * nodes + 1]
        left[cells], right[cells] = first, second
        step[cells] = 1 + np.maximum(step[first], step[second])
    ids = np.concatenate([leaves(length), np.arange(1, length)])
    return Circuit(task.mul, task.label, length, left, right, step, ids, position[1:2])


def tree_run(words: Int[np.ndarray, "B N"], task: MonoidTask) -> Run:
    """The tree on words of symbols, on integers: `read` gives their products. ValueError for wrong words."""
    check_words(words, len(task.label))
    return evaluate(tree(task, words.shape[1]), words)

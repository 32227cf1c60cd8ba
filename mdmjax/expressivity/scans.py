"""All prefixes of a word: scans in log N steps, and the chain of thought that takes N.

Each gives a circuit whose readout is the product of w_0 .. w_j for every j. With Lg = ceil(log2 N), steps T, cells P:

    hillis_steele           max(1, Lg)   N                   writes cells again
    hillis_steele, copied   1 + Lg       N                   writes cells again
    level_expanded          Lg           N Lg - (2^Lg - 1)
    two_sweep               <= 2 Lg      3 (N - 1)
    chain_of_thought        N            N                   states, not elements

(Hillis and Steele, 1986; Blelloch, 1990.)
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from mdmjax.expressivity.automata import check_words
from mdmjax.expressivity.circuits import Circuit, Run, Stages, evaluate
from mdmjax.expressivity.monoids import MonoidTask
from mdmjax.expressivity.trees import check_length, heap_levels, tree


def chain_of_thought(task: MonoidTask, length: int) -> Circuit:
    """q_i = delta(q_{i-1}, w_i), one state after the other: N steps and N cells.

    Tokens 0..Q-1 are states, Q..Q+S-1 symbols; the constant is the start state, which stands between the word and the
    states, so that a causal network has each state before it says the next. ValueError for N < 1.
    """
    check_length(length)
    automaton = task.automaton
    symbols, states = automaton.delta.shape
    op = np.full((states + symbols, states + symbols), -1, np.int32)
    op[:states, states:] = automaton.delta.T
    positions = np.arange(2 * length + 1)
    left, right, step = positions.copy(), positions.copy(), np.zeros(2 * length + 1, np.int64)
    cells = length + 1 + np.arange(length)
    left[cells], right[cells] = cells - 1, np.arange(length)
    step[cells] = 1 + np.arange(length)
    tokens = states + np.arange(symbols)
    return Circuit(
        op, tokens, length, left, right, step, positions, cells, constant=automaton.start, constant_at=length
    )


def hillis_steele(task: MonoidTask, length: int, copied: bool = False) -> Stages:
    """c_j := mul[c_{j-d}, c_j] for j >= d, for d = 1, 2, 4, ..., in place.

    Step 1 writes mul[w_{j-1}, w_j], and then come d = 2, 4, ...; with `copied` it writes w_j, and then comes d = 1.
    What is written depends on the step, which the tokens do not tell. It is known here from the time t alone; cells
    that count the steps, the other form, are not built. ValueError for N < 1.
    """
    check_length(length)
    levels = (length - 1).bit_length()
    distances = [1 << k for k in range(0 if copied else 1, levels)]
    steps, positions = 1 + len(distances), np.arange(2 * length + 1)
    left, right = (np.tile(positions, (steps, 1)) for _ in range(2))
    writes = np.zeros((steps, 2 * length + 1), bool)
    cells, constant = length + np.arange(length), 2 * length
    left[0, cells] = constant if copied else np.append(constant, np.arange(length - 1))
    right[0, cells] = np.arange(length)
    writes[0, cells] = True
    for s, d in enumerate(distances, 1):
        left[s, cells[d:]] = cells[:-d]
        writes[s, cells[d:]] = True
    return Stages(task.mul, task.label, length, left, right, writes, cells, constant=0)


def level_expanded(task: MonoidTask, length: int) -> Circuit:
    """The same with new cells (l, j) for j >= 2^(l-1) at each level l; the others are read from the level before.

    ValueError for N < 1.
    """
    check_length(length)
    levels = (length - 1).bit_length()
    latest = np.arange(length)
    left, right, step = [latest], [latest], [np.zeros(length, np.int64)]
    end = length
    for level in range(1, levels + 1):
        d = 1 << (level - 1)
        left.append(latest[:-d])
        right.append(latest[d:])
        step.append(np.full(length - d, level))
        latest = np.concatenate([latest[:d], end + np.arange(length - d)])
        end += length - d
    left, right, step = (np.concatenate(x) for x in (left, right, step))
    return Circuit(task.mul, task.label, length, left, right, step, np.arange(end), latest)


def two_sweep(task: MonoidTask, length: int, materialise: bool = False) -> Circuit:
    """Up the tree the products U, down it the exclusive prefixes D[2h] = D[h], D[2h+1] = mul[D[h], U[2h]]; D[1] = e.

    The prefix at leaf l is mul[D[l], U[l]], a readout, or with `materialise` N more cells and a step more. Canvas: the
    word, U of nodes 1..N-1, D of nodes 2..2N-1, the materialised, e. ValueError for N < 1.

    T = 2 log2 N - 1 where N >= 4 is a power of two, without `materialise`.
    """
    up = tree(task, length)
    nodes, more = 2 * length - 1, length if materialise else 0
    constant = nodes + 2 * (length - 1) + more
    down = np.append([constant, constant], nodes + np.arange(2 * length - 2))  # position of D[h]
    products = np.zeros(2 * length, np.int64)  # position of U[h]
    products[up.ids] = np.arange(nodes)
    left, right = np.arange(constant + 1), np.arange(constant + 1)
    left[:nodes], right[:nodes] = up.left, up.right
    step = np.zeros(constant + 1, np.int64)
    step[:nodes] = up.step

    def write(cells, first, second):
        left[cells], right[cells] = first, second
        step[cells] = 1 + np.maximum(step[first], step[second])

    for parents in heap_levels(length - 1):
        write(down[2 * parents], down[parents], constant)
        write(down[2 * parents + 1], down[parents], products[2 * parents])
    leaf = up.ids[:length]
    if materialise:
        made = constant - length + np.arange(length)
        write(made, down[leaf], products[leaf])
        return Circuit(task.mul, task.label, length, left, right, step, np.arange(constant + 1), made, constant=0)
    ids = np.arange(constant + 1)
    return Circuit(task.mul, task.label, length, left, right, step, ids, down[leaf], products[leaf], constant=0)


def scan_run(
    words: Int[np.ndarray, "B N"], task: MonoidTask, variant: Callable[[MonoidTask, int], Circuit | Stages]
) -> Run:
    """A scan of this module, or `trees.tree`, on words of symbols, on integers. ValueError for wrong words."""
    check_words(words, len(task.label))
    return evaluate(variant(task, words.shape[1]), words)

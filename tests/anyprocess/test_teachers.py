"""What every teacher must do, and what each is there for."""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import (
    IGNORE,
    Controls,
    Counter,
    MinCut,
    PairLog,
    PairParity,
    Teacher,
    WindowParity,
    apply,
    check_move,
    consistent,
    graph_state,
    list_memory,
    list_ranking,
    padded,
    parity_state,
    random_graph,
    trajectory,
    transition,
)
from mdmjax.base import Canvas


def bit_strings(lengths):
    return [parity_state(bits) for n in lengths for bits in itertools.product((0, 1), repeat=n)]


def linked_list(rng, count):
    """A list through all nodes, in a random order."""
    order = rng.permutation(count).tolist()
    return list_memory([j for _, j in sorted(zip(order, [*order[1:], order[-1]], strict=True))])


class Case(NamedTuple):
    make: type  # a new teacher at each call
    starts: list


RNG = np.random.default_rng(0)
GRAPHS = [graph_state(random_graph(RNG, nodes)) for nodes in (2, 4, 5, 5, 6, 7)]
CASES = {
    "parity in a window": Case(WindowParity, bit_strings(range(7))),
    "parity by pairs": Case(PairParity, bit_strings(range(7))),
    "counter": Case(Counter, [(0,) * 6]),
    "list ranking": Case(lambda: list_ranking(9), [list_ranking(9).start(linked_list(RNG, 9)) for _ in range(5)]),
    "minimum cut": Case(MinCut, GRAPHS),
    "minimum cut, waiting masks": Case(lambda: MinCut(waiting=True), GRAPHS),
    "minimum cut, edge by edge": Case(lambda: MinCut(hops=True), GRAPHS),
    "a log of pairs": Case(lambda: PairLog(lambda row: (row.index(2), len(row) % 2), 5, 2), [(10,) * 5]),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_labels_lead_from_state_to_state_on_the_device(case):
    """All moves of all trajectories at once, as controls; and there is a value exactly where one is learnt."""
    teacher = case.make()
    mask, rows, after = len(teacher.names), [], []
    for start in case.starts:
        steps, final = trajectory(teacher, start, 1000)
        assert not steps or steps[0][0] == start
        rows += steps
        after += [state for state, _ in steps[1:]] + [final] * bool(steps)
    size = max(map(len, after))
    fields = padded(rows, size, mask)
    tokens, lengths = fields.pop("tokens"), fields.pop("lengths")
    learnt = (tokens == mask) & ~fields["remask"] & ~fields["delete"]
    np.testing.assert_array_equal(fields["values"] != IGNORE, learnt)

    canvas = Canvas(jnp.asarray(tokens), jnp.asarray(lengths), jnp.zeros(len(rows), bool))
    controls = Controls(**{name: jnp.asarray(field) for name, field in fields.items()})
    out = jax.jit(lambda *a: transition(*a, vocab=mask))(canvas, controls)
    np.testing.assert_array_equal(out.lengths, list(map(len, after)))
    np.testing.assert_array_equal(out.tokens, [(*x, *[mask + 1] * (size - len(x))) for x in after])
    assert not out.overflow.any()


def test_a_table_of_moves_goes_the_same_way(case):
    """The state is all that a policy needs: a table made of all trajectories, asked by another run, leads each to its
    end; and a new teacher that sees the states in another order gives the same moves."""
    teacher = case.make()
    assert isinstance(teacher, Teacher)
    ways = [trajectory(teacher, start, 1000) for start in case.starts]
    table = consistent(step for steps, _ in ways for step in steps)
    for steps, final in ways:
        state = steps[0][0] if steps else final
        for _ in steps:
            state = apply(state, table[state], len(teacher.names))
        assert state == final and final not in table
    fresh = case.make()
    for state, move in reversed(table.items()):
        assert fresh(state) == move


# ---- parity ----------------------------------------------------------------------------------------------------------


def ends(teacher, starts):
    """(number of steps, final state) from each start, where a way that joins one walked before is known from there."""
    known = {}
    for start in starts:
        way, state = [], start
        while state not in known and (move := teacher(state)) is not None:
            check_move(state, move, len(teacher.names))
            way.append(state)
            state = apply(state, move, len(teacher.names))
        steps, final = known.get(state, (0, state))
        known |= {x: (steps + len(way) - i, final) for i, x in enumerate([*way, state])}
    return [known[start] for start in starts]


@pytest.mark.parametrize("teacher", [WindowParity(), PairParity()], ids=["window", "pairs"])
def test_parity_of_all_strings(teacher):
    """Up to 12 bits, in as many steps as is said: the bounds are attained."""
    starts, counts = bit_strings(range(13)), {n: set() for n in range(13)}
    for start, (steps, final) in zip(starts, ends(teacher, starts), strict=True):
        assert teacher.answer(final) == start.count(2) % 2
        counts[len(start) - 1].add(steps)
    for n, seen in counts.items():
        if isinstance(teacher, PairParity):
            assert seen <= {0, 2, 4} and (n < 3 or 4 in seen)
        else:
            assert (min(seen), max(seen)) == ((2 * (n // 2), 2 * (n - 1)) if n > 1 else (0, 0))


def test_seven_moves_are_all_of_parity():
    """Strings of two bits show each window that there is: the moves at the front of any state are among them."""
    few = consistent(step for start in bit_strings([2]) for step in trajectory(WindowParity(), start, 9)[0])
    assert len(few) == 7
    window = lambda state, move: (state[:3], *(field[:3] for field in move))
    known = {window(*step) for step in few.items()}
    seen = {window(*step) for start in bit_strings([5, 6]) for step in trajectory(WindowParity(), start, 99)[0]}
    assert seen == known
    assert all(not any(move.insert) and set(move.values) == {IGNORE} for move in few.values())


def test_a_window_that_does_not_come_up_is_refused():
    with pytest.raises(ValueError, match="does not come up"):
        WindowParity()((0, 3, 1))


# ---- memory that is used again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 11))
def test_a_counter_goes_through_all_numbers(n):
    """2^n states without a mask, each once, in n cells and 2 (2^n - 1) steps."""
    teacher = Counter()
    steps, final = trajectory(teacher, (0,) * n, 2**12)
    numbers = [teacher.answer(state) for state in [*(state for state, _ in steps), final] if 2 not in state]
    assert numbers == list(range(2**n)) and len(steps) == 2 * (2**n - 1)
    assert {len(state) for state, _ in steps} <= {n} and len({state for state, _ in steps}) == len(steps)


@pytest.mark.parametrize("n", [*range(1, 20), 33, 34, 100])
def test_list_ranking(n):
    """The true ranks, in ceil(log2(n - 1)) rounds of four steps, in the cells it started with."""
    teacher, memory = list_ranking(n), linked_list(np.random.default_rng(n), n)
    steps, final = trajectory(teacher, teacher.start(memory), 100)
    ranks = []
    for i in range(n):
        ranks.append(0)
        while memory[i] != i:
            i, ranks[-1] = memory[i], ranks[-1] + 1
    assert teacher.answer(final)[n:] == tuple(ranks)
    assert len(steps) == 4 * (math.ceil(math.log2(n - 1)) if n > 2 else 0)
    assert {len(state) for state, _ in steps} <= {4 * n}


@pytest.mark.parametrize("successors", [[1, 0], [0, 1], [1, 2, 3], [2, 2, 2], [1, 2, 1], [-1, 1]])
def test_what_is_not_one_list_is_refused(successors):
    """Cycles, two lists, a node that is not there, a tree."""
    with pytest.raises(ValueError, match="must link"):
        list_memory(successors)


def test_half_a_buffer_is_refused():
    with pytest.raises(ValueError, match=r"masks at \[1\]: must fill one of two buffers of 4 cells"):
        list_ranking(2)((1, 2, 1, 0, 1, 1, 1, 0))

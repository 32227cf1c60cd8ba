"""The minimum cut that is left of a text, against brute force."""

import itertools
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from mdmjax.anyprocess import Graph, MinCut, graph_state, random_graph, trajectory
from mdmjax.anyprocess.mincut import FB, relations


def smallest_cut(graph):
    """The fewest edges that leave a set of nodes with s and without t, over all such sets."""
    others = set(graph.nodes) - {graph.source, graph.target}
    sides = [{graph.source, *side} for k in range(len(others) + 1) for side in itertools.combinations(others, k)]
    return min(sum(u in side and v not in side for u, v in graph.edges) for side in sides)


def reached(graph, edges):
    found = {graph.source}
    while more := {v for u, v in edges if u in found} - found:
        found |= more
    return found


def flow_went_back(states, graph):
    """Whether an edge gets its FB back in the first slot."""
    forward = np.array([[state[9 + 6 * i] == FB for i in range(len(graph.edges))] for state in states], bool)
    return (forward[1:] & ~forward[:-1]).any()


RNG = np.random.default_rng(0)
RANDOM = [
    *(random_graph(RNG, n, density) for density in (0.15, 0.4, 0.7, 1.0) for n in (4, 5, 6) for _ in range(17)),
    *(random_graph(RNG, n, 0.3) for n in (8, 9, 10) for _ in range(10)),
]
SPECIAL = [
    Graph(0, 1, (0, 1), ()),  # nothing to cut
    Graph(3, 5, (3, 5), ((5, 3),)),  # the wrong way
    Graph(1, 0, (0, 1, 2), ((1, 2), (2, 1), (2, 0), (0, 2))),  # both ways
    Graph(0, 1, (0, 1), ((0, 1), (0, 1), (1, 0))),  # an edge twice
    Graph(9, 0, range(10), tuple((i + 1, i) for i in range(9))),  # as long as levels go
]


def taken_back(rng):
    """The only shortest path is 0 1 2 7, and the flow from 1 to 2 must be taken back: with new names and order."""
    edges = (0, 1), (1, 2), (2, 7), (0, 3), (3, 4), (4, 2), (1, 5), (5, 6), (6, 7)
    new = rng.permutation(8).tolist()
    return Graph(new[0], new[7], range(8), tuple((new[u], new[v]) for u, v in (edges[i] for i in rng.permutation(9))))


BACK = [taken_back(RNG) for _ in range(20)]


@pytest.mark.parametrize("waiting, hops", [(False, False), (True, False), (False, True)])
def test_what_is_deleted_is_a_minimum_cut(waiting, hops):
    """204 random graphs of four to six nodes, 30 of eight to ten, and some that have something to them."""
    teacher, backwards, empty = MinCut(waiting, hops), 0, 0
    for graph in RANDOM + SPECIAL + BACK:
        start = graph_state(graph)
        edges, nodes = len(graph.edges), len(graph.nodes)
        assert len(start) == 7 + 4 * edges + 3 * nodes
        steps, final = trajectory(teacher, start, 2000)
        assert len(steps[3][0]) == 7 + 6 * edges + 5 * nodes
        left = teacher.answer(final)
        deleted = Counter(graph.edges) - Counter(left)
        assert Counter(left) <= Counter(graph.edges) and list(left) == [e for e in graph.edges if e in left]
        assert graph.target not in reached(graph, left)
        assert deleted.total() == smallest_cut(graph)
        assert teacher.names[final[-2]] == "EOA" and teacher.names[final[-1]] == "EOS"
        assert (len(teacher.names) in final) == (waiting and left != ())
        empty += not deleted
        backwards += flow_went_back([x for x, _ in steps[3:] if len(x) == len(steps[3][0])], graph)
    print(f"waiting={waiting}, hops={hops}: {empty} empty cuts, {backwards} graphs in which flow was taken back")
    assert empty > 5 and backwards >= len(BACK)


def test_an_edge_is_turned_in_three_steps_or_two():
    """One edge from s to t, step by step."""
    names = MinCut.names

    def states(waiting):
        steps, final = trajectory(MinCut(waiting), graph_state(Graph(0, 1, (0, 1), ((0, 1),))), 99)
        word = lambda x: (*names, "_")[x]
        return [" ".join(map(word, state)) for state in [*(state for state, _ in steps), final]]

    head, nodes = "PROMPT SRC 0 TGT 1 GRAPH ", "NODES ( 0 LVL0 NIL ) ( 1 INF NIL )"
    found, blank = "NODES ( 0 LVL0 NIL ) ( 1 LVL1 0 )", "NODES ( 0 _ _ ) ( 1 _ _ )"
    assert states(False) == [
        head + "( 0 1 ) NODES ( 0 ) ( 1 )",
        head + "( 0 1 _ ) NODES ( 0 _ ) ( 1 _ )",
        head + "( 0 1 FB _ ) NODES ( 0 LVL0 _ ) ( 1 INF _ )",
        head + "( 0 1 FB NULL ) " + nodes,
        head + "( 0 1 FB NULL ) NODES ( 0 LVL0 NIL ) ( 1 _ _ )",
        head + "( 0 1 FB NULL ) " + found,
        head + "( 0 1 FB _ ) " + found,
        head + "( 0 1 _ FB ) " + blank,
        head + "( 0 1 NULL FB ) " + nodes,
        head + "( 0 1 NULL FB ) " + nodes + " _",
        head + "( 0 1 NULL FB ) " + nodes + " EOA",
        head + "_ _ _ _ _ _ " + nodes + " EOA",
        head + nodes + " EOA _",
        head + nodes + " EOA EOS",
    ]
    assert states(True) == [
        head + "( 0 1 ) NODES ( 0 ) ( 1 )",
        head + "( 0 1 _ ) NODES ( 0 _ ) ( 1 _ )",
        head + "( 0 1 FB _ ) NODES ( 0 LVL0 _ ) ( 1 INF _ )",
        head + "( 0 1 FB _ ) " + nodes,
        head + "( 0 1 FB _ ) NODES ( 0 LVL0 NIL ) ( 1 _ _ )",
        head + "( 0 1 FB _ ) " + found,
        head + "( 0 1 _ FB ) " + blank,
        head + "( 0 1 _ FB ) " + nodes,
        head + "( 0 1 _ FB ) " + nodes + " _",
        head + "( 0 1 _ FB ) " + nodes + " EOA",
        head + "_ _ _ _ _ _ " + nodes + " EOA",
        head + nodes + " EOA _",
        head + nodes + " EOA EOS",
    ]


def test_a_path_is_marked_edge_by_edge():
    """From 2 to 0, the first edge of two that come from the level before; then both are turned at once."""
    start = graph_state(Graph(0, 2, range(4), ((1, 2), (0, 3), (3, 2), (0, 1))))
    states = [state for state, _ in trajectory(MinCut(hops=True), start, 99)[0]]
    word = lambda state: " ".join((*MinCut.names, "_")[x] for x in state)
    head, middle = "PROMPT SRC 0 TGT 2 GRAPH ", "( 0 3 FB NULL ) ( 3 2 FB NULL ) "
    nodes = "NODES ( 0 LVL0 NIL ) ( 1 {} NIL ) ( 2 {} NIL ) ( 3 {} NIL )".format
    found, blank = nodes("LVL1", "LVL2", "LVL1"), nodes("_", "_", "_").replace("LVL0", "_")
    marked = states.index(next(state for state in states if word(state).endswith(found))) + 1
    assert [word(state) for state in states[marked - 2 : marked + 4]] == [
        head + "( 1 2 FB NULL ) " + middle + "( 0 1 FB NULL ) " + nodes("LVL1", "_", "LVL1"),
        head + "( 1 2 FB NULL ) " + middle + "( 0 1 FB NULL ) " + found,
        head + "( 1 2 FB _ ) " + middle + "( 0 1 FB NULL ) " + found,
        head + "( 1 2 FB _ ) " + middle + "( 0 1 FB _ ) " + found,
        head + "( 1 2 _ FB ) " + middle + "( 0 1 _ FB ) " + blank,
        head + "( 1 2 NULL FB ) " + middle + "( 0 1 NULL FB ) " + nodes("INF", "INF", "INF"),
    ]


def test_what_belongs_together_in_a_text():
    """Equal tokens have one label, and so have the tokens of a tuple."""
    state = graph_state(Graph(0, 1, (0, 1), ((0, 1),)))
    tokens, tuples = relations(jnp.array(state)).tolist()
    assert tuple(tokens) == state
    assert tuples == [0] * 6 + [1] * 5 + [2] * 3 + [3] * 3  # PROMPT .. GRAPH, ( 0 1 ) NODES, ( 0 ), ( 1 )


def test_a_path_that_waits_has_no_hops():
    with pytest.raises(ValueError, match="does not mark a path"):
        MinCut(waiting=True, hops=True)


@pytest.mark.parametrize(
    "graph",
    [
        Graph(0, 0, (0, 1), ()),
        Graph(0, 1, range(11), ()),
        Graph(0, 2, (0, 1), ()),
        Graph(0, 1, (0, 1), ((0, 2),)),
        Graph(0, 1, (0, 1, 10), ()),
        Graph(0, 1, (1, 0), ()),
    ],
    ids=str,
)
def test_what_is_no_graph_is_refused(graph):
    with pytest.raises(ValueError, match="must have at most 10 of the nodes 0..9"):
        graph_state(graph)

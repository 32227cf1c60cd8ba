"""Minimum s-t cut by editing the text of a graph: shortest augmenting paths, all of it in tokens.

The text is `PROMPT SRC s TGT t GRAPH ( u v ) ... NODES ( v ) ...`, directed edges of unit capacity among at most ten
nodes. The teacher gives an edge two slots and a node a level and a parent, `( u v s1 s2 )` and `( v level parent )`,
searches breadth first from s, turns the path it finds around, and so on until t is out of reach. Then it deletes the
edges that leave the reached nodes, which are a minimum cut, and ends with EOA EOS. An edge's FB stands in s1 where flow
can go from u to v, in s2 where it can go back. After arXiv 2510.06190, whose outline is completed here.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mdmjax.anyprocess.teachers import Move, State, make_move

MAX_NODES = 10
NAMES = (
    *map(str, range(MAX_NODES)),
    *("PROMPT", "SRC", "TGT", "GRAPH", "NODES", "(", ")", "FB", "NULL"),
    *(f"LVL{i}" for i in range(MAX_NODES)),
    *("INF", "NIL", "EOA", "EOS"),
)
MASK = len(NAMES)
_ID = {name: i for i, name in enumerate(NAMES)}
FB, NULL, LVL0, INF, NIL, EOA, EOS = (_ID[name] for name in ("FB", "NULL", "LVL0", "INF", "NIL", "EOA", "EOS"))
_OPEN, _CLOSE = _ID["("], _ID[")"]

Edge = tuple[int, int]


class Graph(NamedTuple):
    """Directed edges between nodes, which are some of 0..9 in ascending order; both ways, and twice, if they are."""

    source: int
    target: int
    nodes: Sequence[int]
    edges: tuple[Edge, ...]


def random_graph(rng: np.random.Generator, nodes: int, density: float = 0.4) -> Graph:
    """n random nodes of ten, and of their n (n - 1) arcs each with probability `density`, in a random order; s != t.

    ValueError for more than ten nodes, and for fewer than two.
    """
    if not 2 <= nodes <= MAX_NODES:
        raise ValueError(f"nodes={nodes}: a graph to cut has 2 to {MAX_NODES}")
    names = sorted(rng.choice(MAX_NODES, nodes, replace=False).tolist())
    arcs = [(u, v) for u in names for v in names if u != v and rng.random() < density]
    source, target = rng.choice(names, 2, replace=False).tolist()
    return Graph(source, target, tuple(names), tuple(arcs[i] for i in rng.permutation(len(arcs))))


def graph_state(graph: Graph) -> State:
    """The text of a graph, of 7 + 4 E + 3 N tokens; after its start the teacher needs 7 + 6 E + 5 N, and 2 at the end.

    ValueError for nodes that are not some of 0..9 in ascending order, for ends that are not among them, and for s = t.
    """
    source, target, nodes, edges = graph
    ends = {source, target}.union(*edges)
    numbers = range(MAX_NODES)
    if list(nodes) != sorted({*nodes} & {*numbers}) or source == target or not ends <= set(nodes):
        raise ValueError(
            f"{graph}: must have at most {MAX_NODES} of the nodes 0..{MAX_NODES - 1} in ascending order, "
            "all ends among them, and source != target"
        )
    text = ["PROMPT", "SRC", source, "TGT", target, "GRAPH"]
    for u, v in edges:
        text += ["(", u, v, ")"]
    text += ["NODES"]
    for v in nodes:
        text += ["(", v, ")"]
    return tuple(_ID[str(word)] for word in text)


class _Text(NamedTuple):
    """A state, read. Tuples of edges and nodes have the length `width` + 1 and `width`."""

    source: int
    target: int
    edges: list[int]  # where each edge's u stands
    nodes: list[int]  # where each node's v stands
    width: int


def _read(state: State) -> _Text:
    if _ID["NODES"] not in state:
        raise ValueError(f"{state}: no text of a graph (`graph_state`), for NODES is not in it")
    middle = state.index(_ID["NODES"])
    width = state.index(_CLOSE, middle) - middle
    edges = list(range(7, middle, width + 1))
    nodes = list(range(middle + 2, len(state), width))
    return _Text(state[2], state[4], edges, [i for i in nodes if state[i - 1] == _OPEN], width)


@dataclasses.dataclass(frozen=True)
class MinCut:
    """The teacher. Ties are broken by the order of edges in the text, and of parents by their number.

    The slot of an edge without FB holds NULL. With `waiting`, it is a mask that waits, and an edge is turned around in
    two steps instead of three; then the final text has masks. With `hops`, a path is marked from t backwards, in each
    step the first edge that comes from the level before, and its edges are turned when it has come to s: no step takes
    longer thought for a longer path. Then nobody asks for parents, which stay NIL. ValueError for both.
    """

    waiting: bool = False
    hops: bool = False
    names: ClassVar[tuple[str, ...]] = NAMES

    def __post_init__(self):
        if self.waiting and self.hops:
            raise ValueError("MinCut(waiting=True, hops=True): a mask that waits does not mark a path")

    def __call__(self, state: State) -> Move | None:
        """The next move, known from what is masked."""
        text, last = _read(state), len(state) - 1
        if state[last] == EOS:
            return None
        if state[last] == MASK:
            return make_move(state, MASK, values={last: EOS if state[last - 1] == EOA else EOA})
        if text.width < 5 or state[text.nodes[0] + 1] != MASK == state[text.nodes[0] + 2]:
            return self._initialise(state, text)
        if state[last] == EOA:
            return _cut(state, text)
        nodes_masked = [i for i in text.nodes if state[i + 1] == MASK]
        slots = [] if self.waiting else [i for edge in text.edges for i in (edge + 2, edge + 3) if state[i] == MASK]
        if len(nodes_masked) == len(text.nodes):
            return make_move(state, MASK, values=_first_levels(state, text) | dict.fromkeys(slots, NULL))
        if slots:
            return self._walk(state, text, slots)
        if nodes_masked:
            return make_move(state, MASK, values=_labels(state, text, nodes_masked))
        return self._search(state, text)

    def answer(self, state: State) -> tuple[Edge, ...]:
        """The edges that are left, in their order."""
        return tuple(state[i : i + 2] for i in _read(state).edges)

    def _initialise(self, state: State, text: _Text) -> Move:
        """Two places for each edge and node: ( u v M ) ( v M ), ( u v FB M ) ( v level M ), then NULL and NIL."""
        if text.width == 3:
            behind = [i + 1 for i in text.edges] + text.nodes
            return make_move(state, MASK, insert=dict.fromkeys(behind, 1))
        if text.width == 4:
            values = {i + 2: FB for i in text.edges}
            values |= {i + 1: LVL0 if state[i] == text.source else INF for i in text.nodes}
            return make_move(state, MASK, values=values, insert=dict.fromkeys(values, 1))
        slots = {} if self.waiting else {i + 3: NULL for i in text.edges}
        return make_move(state, MASK, values=slots | {i + 2: NIL for i in text.nodes})

    def _search(self, state: State, text: _Text) -> Move:
        """No mask is in hand: one layer of the search, or the path to t, or the end."""
        level = {state[i]: state[i + 1] for i in text.nodes}
        if level[text.target] != INF:
            return self._augment(state, text)
        arcs = _arcs(state, text)
        frontier = _frontier(level)
        new = [i for i in text.nodes if level[state[i]] == INF and any((u, state[i]) in arcs for u in frontier)]
        if new:
            return make_move(state, MASK, remask=[i + k for i in new for k in self._notes])
        return make_move(state, MASK, insert={len(state) - 1: 1})

    @property
    def _notes(self) -> tuple[int, ...]:
        """Where a node's notes stand, counted from the node: its level and its parent."""
        return (1,) if self.hops else (1, 2)

    def _augment(self, state: State, text: _Text) -> Move:
        """Marks the empty slot of each edge on the path from s to t; a mask that waits is written at once."""
        if self.hops:
            return make_move(state, MASK, remask=[_before(state, text, text.target)])
        parent = {state[i]: state[i + 2] for i in text.nodes}
        arcs, node, slots = _arcs(state, text), text.target, []
        while node != text.source:
            slots.append(arcs[parent[node], node])
            node = parent[node]
        return self._flip(state, text, slots) if self.waiting else make_move(state, MASK, remask=slots)

    def _walk(self, state: State, text: _Text, slots: list[int]) -> Move:
        """Edges are marked, by their empty slots: all are turned, or with `hops` the edge before the first is marked
        where that does not leave s."""
        marked = [arc for arc, slot in _arcs(state, text).items() if slot in slots]
        (first,) = {u for u, _ in marked} - {v for _, v in marked}
        if not self.hops or first == text.source:
            return self._flip(state, text, slots)
        return make_move(state, MASK, remask=[_before(state, text, first)])

    def _flip(self, state: State, text: _Text, slots: list[int]) -> Move:
        """FB goes to the masked slots; the other slots of these edges, and all levels and parents, are remasked."""
        other = [i - 1 if state[i - 1] == FB else i + 1 for i in slots]
        notes = [i + k for i in text.nodes for k in self._notes]
        return make_move(state, MASK, values=dict.fromkeys(slots, FB), remask=other + notes)


def relations(tokens: Int[Array, "*b N"]) -> Int[Array, "*b 2 N"]:
    """Which tokens of a text belong together: those that are the same, and those of one tuple ( ... )."""
    return jnp.stack([tokens, jnp.cumsum(tokens == _OPEN, -1)], -2)


def _arcs(state: State, text: _Text) -> dict[Edge, int]:
    """(from, to) -> the empty slot of the first edge that carries the residual arc: where its FB will go."""
    arcs = {}
    for i in text.edges:
        u, v, forward, _ = state[i : i + 4]
        arcs.setdefault((u, v) if forward == FB else (v, u), i + 3 if forward == FB else i + 2)
    return arcs


def _frontier(level: dict[int, int]) -> list[int]:
    """The nodes of the greatest level, by number."""
    reached = {v: k for v, k in level.items() if LVL0 <= k < INF}
    return sorted(v for v, k in reached.items() if k == max(reached.values()))


def _labels(state: State, text: _Text, new: list[int]) -> dict[int, int]:
    """The next level, and where it is masked, as parent the first node of the frontier from which there is an arc."""
    level = {state[i]: state[i + 1] for i in text.nodes}
    arcs, frontier, values = _arcs(state, text), _frontier(level), {}
    for i in new:
        values[i + 1] = level[frontier[0]] + 1
        if state[i + 2] == MASK:
            values[i + 2] = min(u for u in frontier if (u, state[i]) in arcs)
    return values


def _before(state: State, text: _Text, node: int) -> int:
    """The empty slot of the first edge that comes to the node from the level before."""
    level = {state[i]: state[i + 1] for i in text.nodes}
    return next(slot for (u, v), slot in _arcs(state, text).items() if v == node and level[u] == level[node] - 1)


def _first_levels(state: State, text: _Text) -> dict[int, int]:
    levels = {i + 1: LVL0 if state[i] == text.source else INF for i in text.nodes}
    return levels | {i + 2: NIL for i in text.nodes if state[i + 2] == MASK}


def _cut(state: State, text: _Text) -> Move:
    """Remasks the edges from reached to other nodes; then deletes them, and makes room for EOS."""
    gone = [i for i in text.edges if state[i] == MASK]
    reached = {state[i] for i in text.nodes if state[i + 1] != INF}
    cut = [i for i in text.edges if state[i] in reached and state[i + 1] not in reached]
    whole = lambda edges: [i + k for i in edges for k in range(-1, 5)]
    if cut:
        return make_move(state, MASK, remask=whole(cut))
    return make_move(state, MASK, delete=whole(gone), insert={len(state) - 1: 1})

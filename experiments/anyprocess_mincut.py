"""Minimum cut: a policy edits the text of a graph, another model writes the edges of the cut."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.anyprocess_tasks import Problems, Questions, Rows, Task, packed, with_halt
from mdmjax import anyprocess
from mdmjax.anyprocess import mincut
from mdmjax.anyprocess.teachers import State


def mincut_task(c: ConfigDict, workdir: Path, progress: Callable) -> Task:
    """Minimum s-t cut by editing the text of a graph; the autoregressive model writes the edges of the cut."""
    if not c.judged:
        raise ValueError("data.judged=(): at least one number of nodes is needed")
    teacher = anyprocess.MinCut(hops=c.hops)
    rng = np.random.default_rng(c.seed)

    def solved(nodes: int):
        graph = anyprocess.random_graph(rng, nodes, c.density)
        return graph, *anyprocess.trajectory(teacher, anyprocess.graph_state(graph), 1000)

    learn = [solved(int(rng.integers(c.nodes_of[0], c.nodes_of[1] + 1))) for _ in range(c.rows)]
    seen = {graph for graph, _, _ in learn}
    others = lambda nodes, count: [x for x in (solved(nodes) for _ in range(count)) if x[0] not in seen]
    judged = {f"{nodes} nodes": others(nodes, c.problems) for nodes in c.judged}
    if unasked := [name for name, found in judged.items() if not found]:
        raise ValueError(
            f"test {unasked[0]!r}: no graph is left that is not learned from; learn from fewer (data.rows)"
        )
    size = lambda one: max(len(state) for state, _ in one[1])
    longest = max(map(size, learn))
    room, mask = 2 + max(longest, *(size(x) for found in judged.values() for x in found)), mincut.MASK
    taught = lambda one: with_halt(*one[1:], mask, c.terminal)
    tuples = lambda found: packed([step for one in found for step in taught(one)], longest, mask)
    held_out = [x for found in judged.values() for x in found if size(x) <= longest]
    if not held_out:
        raise ValueError(f"data.judged={tuple(c.judged)}: no graph is as short as the longest that is learned from")
    tests = judged | {"train": learn[: c.problems]}
    return Task(
        name="minimum cut", teacher=teacher, tuples=tuples(learn), held_out=tuples(held_out),
        room=room, limit=c.limit, tests={name: _cut_problems(teacher, found) for name, found in tests.items()},
        end=mincut.EOS, relate=mincut.relations if c.relations else None, near=3 * c.relations,
        autoregressive=_cut_rows(teacher, learn, held_out, tests),
        meta={"training graphs": c.rows, "training tuples": sum(len(steps) for _, steps, _ in learn)},
    )  # fmt: skip


def _cut_problems(teacher: anyprocess.MinCut, found: list) -> Problems:
    def right(i: int, state: State) -> bool:
        graph, _, last = found[i]
        if state[-2:] != (mincut.EOA, mincut.EOS) or mincut.MASK in state:
            return False
        try:
            left = teacher.answer(state)
        except (ValueError, IndexError):
            return False
        return _is_minimum(graph, left, len(teacher.answer(last)))

    return Problems([anyprocess.graph_state(graph) for graph, _, _ in found], right)


def _is_minimum(graph: anyprocess.Graph, left: Sequence[tuple[int, int]], count: int) -> bool:
    """Whether so many edges are left, all of them the graph's, and the target is out of reach."""
    pool = list(graph.edges)
    for edge in left:
        if edge not in pool:
            return False
        pool.remove(edge)
    reached, rest = {graph.source}, True
    while rest:
        rest = {v for u, v in left if u in reached} - reached
        reached |= rest
    return len(left) == count and graph.target not in reached


def _cut_rows(teacher: anyprocess.MinCut, learn: list, held_out: list, tests: Mapping[str, list]) -> Rows:
    """The text of the graph, EOA, the edges of the teacher's cut, EOS."""
    vocab = len(teacher.names)

    def row(one) -> tuple[State, State]:
        graph, _, last = one
        prompt, pool = anyprocess.graph_state(graph), list(teacher.answer(last))
        cut: list[int] = []
        for edge in graph.edges:
            if edge in pool:
                pool.remove(edge)
            else:
                cut += edge
        return (*prompt, mincut.EOA), (*cut, mincut.EOS)

    def rows(found: list) -> tuple[np.ndarray, np.ndarray]:
        length = max(len(prompt) + len(answer) for prompt, answer in map(row, found))
        tokens, eligible = np.full((len(found), length), vocab + 1), np.zeros((len(found), length), bool)
        for i, (prompt, answer) in enumerate(map(row, found)):
            tokens[i, : len(prompt) + len(answer)] = prompt + answer
            eligible[i, len(prompt) : len(prompt) + len(answer)] = True
        return tokens, eligible

    def questions(found: list) -> Questions:
        tokens, _ = rows(found)
        begin = np.array([len(row(one)[0]) for one in found])
        canvas = np.where(np.arange(tokens.shape[1])[None] < begin[:, None], tokens, vocab)

        def right(i: int, filled: np.ndarray) -> bool:
            graph, _, last = found[i]
            answer = filled[begin[i] :].tolist()
            if mincut.EOS not in answer:
                return False
            answer = answer[: answer.index(mincut.EOS)]
            left = list(graph.edges)
            for edge in zip(answer[::2], answer[1::2], strict=False):
                if edge not in left:
                    return False
                left.remove(edge)
            return len(answer) % 2 == 0 and _is_minimum(graph, left, len(teacher.answer(last)))

        return Questions(canvas, right)

    some = held_out[:: -(-len(held_out) // 256)]  # of all sizes
    return Rows(vocab, *rows(learn), rows(some), {name: questions(found) for name, found in tests.items()})

"""Sudoku: a policy searches, the other models fill the grid."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.anyprocess_tasks import Problems, Questions, Rows, Task, joined, packed, with_halt
from mdmjax import anyprocess, networks
from mdmjax.data import sudoku, sudoku_puzzles

PART = 64  # puzzles that are made before they are kept


def sudoku_task(c: ConfigDict, workdir: Path, progress: Callable) -> Task:
    """Sudoku by search; the others fill the grid. Puzzles are kept in the workdir, for they take a while to make."""
    teacher, cells = anyprocess.Sudoku(box=c.box, fewest=c.fewest), c.box**4
    learn = _puzzles(workdir, c.rows, tuple(c.givens), c.seed, c.box, progress)
    other = _puzzles(workdir, c.problems, tuple(c.givens_judged), c.seed + 1, c.box, progress)
    seen = {puzzle.tobytes() for puzzle in learn.puzzles}  # two puzzles of 4x4 may be equal
    new = [i for i, puzzle in enumerate(other.puzzles) if puzzle.tobytes() not in seen]
    if len(new) < 2:
        raise ValueError(f"data.rows={c.rows}: no other puzzles are left to be judged on; learn from fewer")
    judged = sudoku_puzzles.Puzzles(other.puzzles[new], other.solutions[new])

    search = functools.partial(_searches, workdir, teacher, c, progress)
    of_learn, of_judged = search("to learn from", learn.puzzles), search("to be judged on", judged.puzzles)
    if not any(of_learn) or not any(of_judged):
        raise ValueError(f"data.max_atoms={c.max_atoms}: no search is as short as that")
    steps = np.array([len(found["lengths"]) - c.terminal if found else 0 for found in of_judged])
    fails = (steps > 0) & (steps > 2 * (judged.puzzles == 0).sum(1))
    grids = {
        "held out": judged.puzzles,
        "held out, no guess fails": judged.puzzles[~fails & (steps > 0)],
        "held out, guesses fail": judged.puzzles[fails],
        "train": learn.puzzles[: c.problems],
    }
    if c.path:
        grids |= _hard(c)
    grids = {name: puzzles for name, puzzles in grids.items() if len(puzzles)}
    tuples = _fewer_alone(teacher, joined([x for x in of_learn if x]), c)
    if c.together:
        decides = np.ones(len(tuples["lengths"]), bool)
        tuples = joined([tuples | {"decides": decides}, _together(teacher, tuples, c)])
    relations = networks.grid_relations(c.box, c.sums) if c.relations else None
    rows = lambda **how: _grid_rows(c, learn, judged, teacher, grids, **how)
    tests = {name: _sudoku_problems(teacher, puzzles) for name, puzzles in grids.items()}
    return Task(
        name=f"Sudoku {c.box**2}x{c.box**2}", teacher=teacher,
        tuples=tuples, held_out=joined([x for x in of_judged if x][: c.held_out]),
        room=4 * cells, limit=c.limit, tests=tests, patch=4, places=True, relations=relations,
        any_order=rows(relations=relations), autoregressive=rows(causal=True), strings=_strings(teacher),
        meta={
            "training puzzles": c.rows,
            "of them left out, for the search is too long": sum(x is None for x in of_learn),
            "training tuples": int(tuples["decides"].sum()) if c.together else len(tuples["lengths"]),
            "rows that ask for many cells": int((~tuples["decides"]).sum()) if c.together else 0,
            "mean steps of the teacher on a held-out puzzle": float(steps[steps > 0].mean()),
        },
    )  # fmt: skip


def _searches(
    workdir: Path, teacher: anyprocess.Sudoku, c: ConfigDict, progress: Callable, name: str, puzzles: np.ndarray
) -> list[dict[str, np.ndarray] | None]:
    """The tuples of each puzzle, None where the teacher gives up; in parts that are kept, for they take minutes."""
    found, mask = [], len(teacher.names)
    for start in range(0, len(puzzles), PART):
        part = puzzles[start : start + PART]
        what = part.tobytes() + repr((c.box, c.fewest, c.max_atoms, c.terminal)).encode()
        path = workdir / f"searches_{hashlib.sha256(what).hexdigest()[:12]}.npz"
        if not path.exists():
            made = []
            for puzzle in part:
                try:
                    steps, last = anyprocess.sudoku_trajectory(teacher, puzzle, c.max_atoms)
                    made.append(packed(with_halt(steps, last, mask, c.terminal), puzzle.size * 4, mask))
                except anyprocess.GaveUp:
                    made.append(None)
            counts = np.array([len(tuples["lengths"]) if tuples else 0 for tuples in made])
            _keep(path, np.savez_compressed, counts=counts, **joined([tuples for tuples in made if tuples]))
        with np.load(path) as kept:
            fields = {field: kept[field] for field in kept.files}
        counts = fields.pop("counts")
        split = {field: np.split(x, np.cumsum(counts)[:-1]) for field, x in fields.items()}
        found += [{field: x[i] for field, x in split.items()} if n else None for i, n in enumerate(counts)]
        progress(f"{name}: searches", len(found), len(puzzles))
    return found


def _keep(path: Path, save: Callable, **arrays: np.ndarray) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    save(temporary, **arrays)
    temporary.replace(path)


def _fewer_alone(teacher: anyprocess.Sudoku, tuples: dict[str, np.ndarray], c: ConfigDict) -> dict[str, np.ndarray]:
    """A share `alone` of the states in which one cell is masked, and all others."""
    if not 0 <= c.alone <= 1:
        raise ValueError(f"data.alone={c.alone}: must be in [0, 1]")
    if c.alone == 1:
        return tuples
    masks = (tuples["tokens"] == teacher.special.mask).reshape(len(tuples["lengths"]), -1, 4)
    one = (masks.sum((1, 2)) == 3) & masks[:, :, :3].all(2).any(1)
    kept = ~one | (np.random.default_rng([c.seed, 2]).random(len(one)) < c.alone)
    return {name: x[kept] for name, x in tuples.items()}


def _together(teacher: anyprocess.Sudoku, tuples: Mapping[str, np.ndarray], c: ConfigDict) -> dict[str, np.ndarray]:
    """Rows in which many empty cells of a state are asked for at once: a share `together` of all, beside the tuples.

    They teach what to write, of which a state of the search asks for one cell at a time. A random number of cells is
    asked for, those with the fewest candidates, which the search would come to next.
    """
    if not 0 < c.together < 1:
        raise ValueError(f"data.together={c.together}: must be in [0, 1)")
    rng, special = np.random.default_rng([c.seed, 1]), teacher.special
    free = np.flatnonzero(~np.isin(tuples["tokens"], (special.mask, special.skull)).any(1))
    chosen = rng.choice(free, int(len(tuples["lengths"]) * c.together / (1 - c.together)))
    forms = rng.choice(len(anyprocess.FORMS), len(chosen), p=(0.6, 0.2, 0.2))
    parts = []
    for part in np.array_split(np.arange(len(chosen)), len(chosen) // 4096 + 1):
        for form, name in enumerate(anyprocess.FORMS):
            states = tuples["tokens"][chosen[part[forms[part] == form]]].astype(np.int32)
            count = anyprocess.candidates(teacher, states) + rng.random((len(states), teacher.box**4))
            empty = states[:, ::4] == 0
            rank = np.where(empty, count, np.inf).argsort(1).argsort(1)
            cells = rank < rng.integers(1, np.maximum(empty.sum(1), 1) + 1)[:, None]
            tokens, values = anyprocess.asked_together(teacher, states, cells, name, rng)
            nothing = np.zeros(tokens.shape, bool)
            parts.append(dict(
                tokens=tokens.astype(np.int8), lengths=np.full(len(tokens), tokens.shape[1], np.int32),
                values=values.astype(np.int8), remask=nothing, insert=nothing.astype(np.int8), delete=nothing,
                decides=np.zeros(len(tokens), bool),
            ))  # fmt: skip
    return joined(parts)


def _strings(teacher: anyprocess.Sudoku) -> tuple[str, ...]:
    """A cell in three letters: its digit; its branch, w for none; - if normal, ! if no digit fits, ? for a guess."""
    short = {"0": ".", "WHITE": "w", "NORMAL": "-", "SKULL": "!", "BRANCH": "?", "SEP": " "}
    depth = lambda name: chr(ord("a") + int(name[1:]) - 1)
    return tuple(short.get(name) or (depth(name) if name[0] == "C" else name) for name in teacher.names)


def _puzzles(
    workdir: Path, count: int, givens: tuple, seed: int, box: int, progress: Callable
) -> sudoku_puzzles.Puzzles:
    """`sudoku_puzzles.generate` in parts, each kept in a file: a program that is killed goes on from there."""
    path = workdir / f"puzzles_{box**2}x{box**2}_{givens[0]}-{givens[1]}_seed{seed}.npz"
    made: list[sudoku_puzzles.Puzzles] = []
    if path.exists():
        with np.load(path) as kept:
            made = [sudoku_puzzles.Puzzles(kept["puzzles"], kept["solutions"])]
    while (done := sum(len(x.puzzles) for x in made)) < count:
        made.append(sudoku_puzzles.generate(min(PART, count - done), givens, seed + (done << 32), box))
        both = zip(*made, strict=True)
        _keep(path, np.savez, **dict(zip(made[0]._fields, map(np.concatenate, both), strict=True)))
        progress("puzzles", done + len(made[-1].puzzles), count)
    return sudoku_puzzles.Puzzles(*(np.concatenate(x)[:count] for x in zip(*made, strict=True)))


def _hard(c: ConfigDict) -> dict[str, np.ndarray]:
    """Puzzles of a file, in strata by the nodes of the solver."""
    puzzles = sudoku.read(c.path, c.box)
    try:
        solved = sudoku.solve(puzzles, c.most_nodes)
    except ValueError as error:
        raise ValueError(f"data.path={c.path}: {error}; every puzzle must have exactly one") from None
    if not solved.finished.any():
        raise ValueError(f"data.most_nodes={c.most_nodes}: no puzzle of {c.path} is solved with so few")
    chosen = np.flatnonzero(solved.finished)
    parts = sudoku_puzzles.strata(solved.nodes[chosen], c.nodes)
    return {f"file, {name} nodes": puzzles[chosen[part][: c.of_file]] for name, part in parts.items() if len(part)}


def _sudoku_problems(teacher: anyprocess.Sudoku, puzzles: np.ndarray) -> Problems:
    right = lambda i, state: teacher.solved(puzzles[i], state)
    return Problems([teacher.encode(puzzle) for puzzle in puzzles], right)


def _grid_rows(
    c: ConfigDict, learn, judged, teacher, grids: Mapping[str, np.ndarray], relations=None, causal: bool = False
) -> Rows:
    """Cells with their digits, 0..n-1. For a causal model the puzzle stands before, in which n is an empty cell."""
    n, cells = c.box**2, c.box**4
    blank = n + 1 if causal else n

    def rows(puzzles: np.ndarray, solutions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not causal:
            return solutions - 1, puzzles == 0
        prompt = np.where(puzzles == 0, n, puzzles - 1)
        return np.concatenate([prompt, solutions - 1], 1), np.arange(2 * cells)[None] >= np.full(
            (len(prompt), 1), cells
        )

    def questions(puzzles: np.ndarray) -> Questions:
        tokens, eligible = rows(puzzles, np.ones_like(puzzles))
        if not causal:
            tokens = puzzles - 1  # the masks come over what is empty

        def right(i: int, row: np.ndarray) -> bool:
            grid = row[-cells:] + 1
            if grid.max() > n:
                return False
            return teacher.solved(puzzles[i], tuple(x for digit in grid.tolist() for x in (digit, n + 1, 0, 0)))

        return Questions(np.where(eligible, blank, tokens), right)

    tests = {name: questions(puzzles) for name, puzzles in grids.items()}
    return Rows(blank, *rows(*learn), rows(*judged), tests, relations, places=True)

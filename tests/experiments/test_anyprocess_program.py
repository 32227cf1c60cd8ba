"""The program of the any-process experiments: arms are trained, judged and compared; mistakes are said in a line."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest

from experiments import anyprocess, anyprocess_steps
from experiments.anyprocess_parity import parity_task
from experiments.configs.base_anyprocess import anyprocess as fields
from mdmjax.anyprocess import Window


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(workdir, of, **changes)`: see `programs.quick`."""
    quick = programs.quick(anyprocess.main, monkeypatch, capfd, fields)
    return lambda workdir, of, **changes: quick(of, workdir, **changes)


def test_parity_is_learned_from_two_bits_and_right_at_any_length(run, tmp_path):
    """Seven tuples, fewer than 200 parameters, a string longer than the canvas."""
    changes = dict(
        data__lengths="(2,10,300)", train__steps=400, train__batch=8, train__evaluate_every=400, seeds=1,
        arms="('any_process',)",
    )  # fmt: skip
    code, out, errors = run(tmp_path, "parity", **changes)
    assert code == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    metrics, facts = report["metrics"], report["facts"]
    assert all(metrics[f"any_process: {n} bits"]["mean"] == 100 for n in (2, 10, 300))
    assert metrics["any_process: next state, on the teacher's states"]["mean"] == 100
    assert facts["parameters"]["any_process"] <= 200 and facts["data"] == {"training tuples": 7}
    line = {(row["arm"], row["test"]): row for row in facts["tests"]}
    assert float(line["any_process", "300 bits"]["delete"]) == pytest.approx(299.5, abs=0.6)
    assert "300 bits" in out
    assert "mask" in (tmp_path / "arms" / "any_process" / "trace.html").read_text()
    decided = facts["decisions on the teacher's states"]
    assert decided["remask"]["wanted"] == 6 and decided["remask"]["recall"] == decided["delete"]["precision"] == 1

    (tmp_path / "report.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.anyprocess_arms.Arm.train", lambda *_: pytest.fail("trained again"))
        code, _, errors = run(tmp_path, "parity", **changes)
    assert code == 0, errors
    again = json.loads((tmp_path / "report.json").read_text())
    assert again["metrics"] == metrics and again["facts"] == facts


@pytest.mark.slow
@pytest.mark.parametrize("of", ["parity", "sudoku4", "sudoku9", "dyck", "mincut", "text_selfcorrect"])
def test_quick_variants_run(run, tmp_path, of):
    """The policies; those that they are compared with are the same in every task."""
    arms = {} if of == "parity" else {"arms": "('any_process',)"}
    code, out, errors = run(tmp_path, of, **arms, train__steps=2, train__evaluate_every=2, train__warmup=0)
    assert code == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"] and all(0 <= m["mean"] <= 100 for m in report["metrics"].values())
    kinds = {row["arm"].partition(" ")[0] for row in report["facts"]["tests"]}
    assert kinds == ({"any_process", "any_order", "autoregressive"} if of == "parity" else {"any_process"})
    assert report["curves"]


@pytest.mark.parametrize(
    "of, changes, words",
    [
        ("parity", dict(task="chess"), "task='chess': choose one of parity, sudoku, mincut, dyck, text"),
        ("parity", dict(arms="('mamba',)"), "arms='mamba': choose one of any_process"),
        ("mincut", dict(arms="('any_order',)"), "minimum cut has no rows for 'any_order': leave it out"),
        ("parity", dict(seeds=0), "seeds=0: must be at least 1"),
        ("sudoku4", dict(data__rows=0), "data.rows=0: must be at least 1"),
        ("sudoku4", dict(evaluate__slots=0), "evaluate.slots=0: must be at least 1"),
        ("parity", dict(decode__thresholds="(0.5,1.5,0.5)"), "thresholds=(0.5, 1.5, 0.5)): three numbers in [0, 1]"),
        ("parity", dict(decode__least=0.7), "least=0.7): must be in [0, 1/2)"),
        ("sudoku4", dict(data__givens="(2,3)"), "givens=(2, 3): must be in 4..16"),
        ("sudoku4", dict(data__givens="(6,)"), "data.givens=(6,): must be (least, most)"),
        ("sudoku4", dict(data__terminal=-1), "data.terminal=-1: must not be negative"),
        ("sudoku4", dict(data__max_atoms=1), "data.max_atoms=1: no search is as short as that"),
        ("mincut", dict(data__nodes_of="(6,4)"), "data.nodes_of=(6, 4): must be (least, most)"),
        ("mincut", dict(data__judged="()"), "data.judged=(): at least one number of nodes is needed"),
        ("mincut", dict(data__judged="(8,)", data__nodes_of="(2,2)"), "data.judged=(8,): no graph is as short"),
        ("mincut", dict(network__heads=2, network__width=16), "network.heads=2: at least 3 with data.relations"),
        ("dyck", dict(data__letters="(2,3)"), "data.letters=(2, 3): even numbers"),
        ("dyck", dict(data__generators=0), "data.generators=0: must be at least 1"),
        ("parity", dict(data__lengths="()"), "no test is asked for"),
        ("sudoku4", dict(data__path="none.txt"), "no such file 'none.txt'"),
        ("parity", dict(train__learning_rate=-1.0), "train.learning_rate=-1.0: must be > 0"),
    ],
)
def test_mistakes_are_said_in_a_line(run, tmp_path, of, changes, words):
    code, _, errors = run(tmp_path, of, **changes)
    last = errors.splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and words in last, errors
    assert not (tmp_path / "arms").exists() and not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("puzzle, words", [("1" * 2 + "." * 14, "no"), ("." * 16, "more than one")])
def test_a_puzzle_without_one_solution_is_named(run, tmp_path, puzzle, words):
    (tmp_path / "puzzles.txt").write_text(
        f"1...............\n{puzzle}\n".replace("1...............", "12..34......41.3")
    )
    code, _, errors = run(tmp_path / "run", "sudoku4", data__path=tmp_path / "puzzles.txt")
    assert code == 2 and "data.path=" in errors and words in errors.splitlines()[-1], errors


def test_where_a_run_leaves_its_teacher(tmp_path):
    """A policy that is the teacher's but for one case: (M, M) is left alone, where both should be deleted."""
    c = fields()
    c.evaluate.update(failures=4, batch=7)
    task = parity_task(_with(c.data, lengths=(10,), problems=16, rows=10, questions=2), tmp_path, lambda *_: None)
    big, v = 8.0, 3

    def table(broken):
        values = np.full((v + 2, v + 2, 2, 3), -big)
        for state in ((1, 2), (3, 2), (2, 1), (2, 3), (1, 1), (2, 2), *([] if broken else [(3, 3)])):
            move = task.teacher((0, *state))
            values[*state] = [
                [big if on else -big for on in (move.remask[i], move.insert[i], move.delete[i])] for i in (1, 2)
            ]
        if broken:
            values[3, 3, :, 0] = big  # they wait for ever
        return jnp.asarray(values)

    def arm(broken):
        window = lambda tokens, lengths: (
            jnp.zeros((*tokens.shape, v)),
            jnp.full((*tokens.shape, 3), -big).at[:, 1:3].set(table(broken)[tokens[:, 1], tokens[:, 2]]),
        )
        halting = lambda goal: anyprocess_steps.anyprocess.Halting(stop=lambda tokens, length: length < 3)
        return SimpleNamespace(
            task=task, config=c, held_out=task.held_out, policy=lambda params: Window(window, 3), halting=halting,
            decoding=lambda: anyprocess_steps.anyprocess.Decoding(),
        )  # fmt: skip

    whole = anyprocess_steps.on_teacher_states(arm(False), None)
    assert (whole["states"], whole["right"]) == (7, 7)
    part = anyprocess_steps.on_teacher_states(arm(True), None)
    assert (part["states"], part["right"]) == (7, 6)
    assert part["decisions"]["delete"] == {"hits": 2, "decided": 2, "wanted": 4}
    assert part["decisions"]["remask"] == {"hits": 6, "decided": 8, "wanted": 6}

    right = [False] * 16
    found = anyprocess_steps.first_failures(arm(True), None, {"10 bits": {"policy": {"right": right}}})["10 bits"]
    assert found["failures looked at"] == 4 and set(found["what should have happened"]) == {"delete"}
    trace = jax.tree.map(np.asarray, anyprocess_steps.traced(arm(True), None, {"10 bits": [0]}))
    stuck = next(n for n in range(len(trace.tokens)) if trace.tokens[n, 0, 1:3].tolist() == [3, 3])
    assert anyprocess_steps._failure(arm(True), trace, 0) == {"step": stuck, "wanted": "delete", "depth": 0}


def _with(c, **changes):
    c.update(changes)
    return c

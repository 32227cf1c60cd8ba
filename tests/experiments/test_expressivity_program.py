"""The program of expressivity: what the study of constructions reports, what a kill leaves, and what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import programs
import pytest

from experiments import cli, expressivity, expressivity_equal, expressivity_steps, expressivity_weights
from experiments.expressivity_parts import METHODS, share, task_of, words_of, wrong_words
from experiments.expressivity_planners import PLANNERS, blocks, guessed
from mdmjax.expressivity import Looped, evaluate, tree

# As small as it can be: most of the time is compilation.
TINY = {
    "automata": ("s3", "regex:(a|b)*ab/ab"),
    "lengths": (1, 5, 16),
    "engine.lengths": (9,),
    "engine.rounds": 2,
    "weights.lengths": (5,),
    "weights.dtypes": ("bfloat16",),
    "weights.words": 4,
    "weights.most": 5,
    "weights.sweep.scales": (0.2, 2.0),
    "weights.sweep.length": 32,
    "orders.lengths": (1, 4),
    "orders.rows": 200,
    "orders.length": 4,
    "orders.steps": (3,),
    "orders.accuracy_lengths": (4,),
    "orders.words": 100,
    "equal.steps": (2,),
    "equal.words": 8,
}


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(workdir, *flags)` of constructions: see `programs.quick`."""
    quick = programs.quick(expressivity.main, monkeypatch, capfd)
    return lambda workdir, *flags: quick("expressivity", workdir, *flags)


def flags(**changes):
    return [f"--config.constructions.{name.replace('__', '.')}={value}" for name, value in changes.items()]


def test_constructions(run, tmp_path):
    tiny = flags(**TINY)
    code, out, errors = run(tmp_path, *tiny)
    assert code == 0 and "level-expanded scan" in out, errors
    found = json.loads((tmp_path / "report.json").read_text())
    facts, metrics = found["facts"], found["metrics"]
    # a tree against a chain of thought
    headline, calls = next(iter(metrics)), {k: v["mean"] for k, v in found["baselines"].items()}
    assert headline == "denoiser calls for N=16: tree" and metrics[headline]["mean"] == 4
    assert calls["denoiser calls for N=16: chain of thought"] == 16 and len(calls) == len(METHODS) - 1
    runs = 2 * len(METHODS) * 3
    assert facts["runs whose counted steps and cells are those of the accounting"] == f"{runs} of {runs}"
    assert facts["steps and cells, counted"][-1] == {
        "N": 16, "tree": "T 4, P 15", "level-expanded scan": "T 4, P 49", "two-sweep scan": "T 7, P 45",
        "Hillis-Steele": "T 4, P 16 + 34 again", "Hillis-Steele, copied": "T 5, P 16 + 49 again",
        "chain of thought": "T 16, P 16",
    }  # fmt: skip
    for title in ("on integers, time for 16 symbols", "on the engine, 4 words at once, median of 2"):
        assert [row["words with errors"] for row in facts[title]] == [0, 0]
    # S3 has 6 elements and the other 5, so weights are written for one of them
    written = facts["weights written down: least margins of predictor / planner"]
    assert [(row["automaton"], row["steps"], row["bfloat16: errors"]) for row in written] == [
        ("regex:(a|b)*ab/ab", "3", "0 of 4")
    ]
    assert "s3" in facts["no weights were written down"]
    # 9 cells of 4 bits, c = ln(64 * 9) / 2: the smaller bound on eps is (1 + 1/576)^4 - 1 < 8 / 576
    eps = (1 + 1 / 576) ** 4 - 1
    assert written[0]["margins promised"] == f"{1 - 4 * eps:.4g} / {0.5 - 2 * eps:.4g}"
    sweep = facts["scale c of the scores, 32 symbols: words with errors"]
    assert [(row["eps at most"], row["margin at least"]) for row in sweep] == [("1", "–"), ("0.115", "0.54")]
    assert [row["regex:(a|b)*ab/ab"] for row in sweep] == ["20 of 20", "0 of 20"]
    orders = facts["probability of a valid order of the tree"]
    assert [row["one at a time"] for row in orders] == ["1", "1/3"] and orders[1]["independent, T=8"] == "35/128"
    assert abs(float(orders[1]["one at a time: simulated"].split(" ")[0]) - 1 / 3) < 4 * np.sqrt(2 / 9 / 200)
    valid = {
        row["planner"]: float(row["T=3"].partition("(")[2][:-1])
        for row in facts["right answers by planner and steps, s3, 4 symbols (share; in brackets: valid orders)"][:-1]
    }
    assert [valid[name] for name in ("by level", "left to right")] == [1, 0]
    assert abs(valid["uniform"] - 1 / 3) < 4 * np.sqrt(2 / 9 / 100)
    own = lambda name: 3 if PLANNERS[name][1] else 2  # steps
    right = {name: metrics[f"right, {name}, s3, N=4, T={own(name)}"]["mean"] for name in PLANNERS}
    assert {name for name, mean in right.items() if mean == 1} == {*list(PLANNERS)[:4]}  # those that respect the tree
    converted = facts["conversions: runs equal at every step"]
    assert {(row["equal"], row["as accounted"]) for row in converted} == {("8 of 8", "yes")} and len(converted) == 4
    assert all(row["different ends"] > 1 for row in converted)
    rows = facts["attention by attention, float64, 3 layers of width 5, 6 positions"]
    assert [float(row["largest difference"]) < 1e-12 for row in rows] == [True, True, False]
    assert facts["sizes of corollary 3.5, as the paper counts them; no proof of any inclusion"][0]["in MDM: cells"]
    page = (tmp_path / "report.html").read_text()
    assert "Steps by length" in page and "Right answers by steps" in page
    assert all(len(curve["x"]) > 1 for curve in found["curves"].values())
    # killed in the middle, it goes on from there and ends the same
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    (tmp_path / "cells.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    assert run(tmp_path, *tiny)[0] == 0
    again = json.loads((tmp_path / "report.json").read_text())
    assert again["metrics"] == found["metrics"] and len((tmp_path / "cells.jsonl").read_text().splitlines()) == len(
        lines
    )
    programs.assert_refused(run(tmp_path, *tiny, "--config.seed=1"), "holds a run with another config", "seed")


@pytest.mark.parametrize(
    "refused",
    [
        (dict(lengths=(0, 4)), "constructions.lengths=(0, 4): 0 must be at least 1"),
        (dict(lengths=()), "constructions.lengths=(): at least one"),
        (dict(lengths=(8, 4)), "constructions.lengths=(8, 4): at least one, and each larger"),
        (dict(lengths=(4.5,)), "constructions.lengths=(4.5,): 4.5 must be a whole number"),
        (dict(lengths=("a",)), "constructions.lengths=('a',): 'a' must be a whole number"),
        (dict(lengths=(10**9,)), "constructions.lengths: N=1000000000: 578,", "more than 16,777,216: N at most 56,524"),
        (dict(engine__lengths=(0,)), "constructions.engine.lengths=(0,): 0"),
        (dict(weights__lengths=(0,)), "constructions.weights.lengths=(0,): 0"),
        (dict(weights__lengths=(65536,)), "constructions.weights.lengths: N=65536: 343,", "scores", "N at most 1,295"),
        (dict(weights__dtypes=("float8",)), "constructions.weights.dtypes='float8': choose one of float32, bfloat16"),
        (dict(weights__dtypes=()), "constructions.weights.dtypes=(): at least one"),
        (dict(weights__dtypes=("float32", "float32")), "constructions.weights.dtypes=('float32', 'float32'): at least"),
        (dict(weights__most=0), "constructions.weights.most=0: must be at least 1"),
        (dict(weights__sweep__scales=(0.0,)), "constructions.weights.sweep.scales=(0.0,): 0.0 must be in 0.001..1000"),
        (dict(weights__sweep__scales=()), "constructions.weights.sweep.scales=(): at least one"),
        (dict(weights__sweep__scales=(2.0, 2.0)), "constructions.weights.sweep.scales=(2.0, 2.0): at least one, and"),
        (dict(weights__sweep__scales=("a",)), "constructions.weights.sweep.scales=('a',): 'a' must be a number"),
        (
            dict(weights__sweep__length=4096),
            "constructions.weights.sweep.length: N=4096: 2,683,699,240 attention scores",
        ),
        (dict(orders__lengths=(0,)), "constructions.orders.lengths=(0,): 0"),
        (dict(orders__lengths=(4096,)), "constructions.orders.lengths=(4096,): 4096 must be in 1..1024"),
        (dict(orders__accuracy_lengths=(1,)), "constructions.orders.accuracy_lengths=(1,): 1 must be at least 2"),
        (dict(orders__accuracy_lengths=(9999,)), "constructions.orders.accuracy_lengths: N=9999: ", "N at most 409"),
        (dict(orders__length=1), "constructions.orders.length: N=1: must be at least 2"),
        (dict(orders__length=2), "constructions.orders.length=2: must be in 1..1", "constructions.orders.steps=(3, 7)"),
        (dict(orders__steps=(8,)), "constructions.orders.steps=(8,)", "constructions.orders.length=8: must be in 1..7"),
        (dict(orders__steps=(2.5,)), "constructions.orders.steps=(2.5,): 2.5 must be a whole number"),
        (dict(orders__steps=(3, 3)), "constructions.orders.steps=(3, 3): at least one, and each larger"),
        (dict(orders__rows=1), "constructions.orders.rows=1: an error bar needs at least 2"),
        (dict(orders__rows=10**9), "constructions.orders.rows=1000000000: at most 8,388,608"),
        (dict(orders__automaton="s4"), "constructions.orders.automaton='s4': choose one of parity"),
        (dict(orders__independent=0), "constructions.orders.independent=0: must be at least 1"),
        (dict(orders__independent=10**6), "constructions.orders.independent=1000000: must be in 1..1024"),
        (dict(automata=("s4",)), "constructions.automata='s4': choose one of parity, s3, a5, s5, regex:PATTERN/ALPH"),
        (dict(automata=("s3", "s3")), "constructions.automata=('s3', 's3'): at least one, each named once"),
        (dict(automata=()), "constructions.automata=(): at least one"),
        (dict(automata=(3,)), "constructions.automata=(3,): 3 must be a name"),
        (dict(automata=("regex:ab",)), "constructions.automata='regex:ab': must be regex:PATTERN/ALPHABET"),
        (dict(automata=("regex:(ab/ab",)), "constructions.automata='regex:(ab/ab': "),
        (dict(automata=("regex:ac/ab",)), "constructions.automata='regex:ac/ab': "),
        (
            dict(automata=("a5",), max_size=59),
            "constructions.automata='a5': the transition monoid has at least 60 elements: more than constructions.max_",
        ),
        (dict(max_size=5), "constructions.automata='s3': the", "more than constructions.max_size=5"),
        (dict(words=0), "constructions.words=0: must be at least 1"),
        (dict(equal__bits=(1,)), "constructions.equal.bits=(1,): 1 must be in 2..16"),
        (dict(equal__bits=(6.5,)), "constructions.equal.bits=(6.5,): 6.5 must be a whole number"),
        (dict(equal__bits=(6, 6)), "constructions.equal.bits=(6, 6): at least one, and each once"),
        (dict(equal__bits=(16,)), "constructions.equal.bits=16 with widths=8, steps=5, words=30: 629,145,600 logits"),
        (dict(equal__widths=(3,)), "constructions.equal.widths=(3,): must be multiples of 2, for 2 heads"),
        (dict(equal__widths=(2.0,)), "constructions.equal.widths=(2.0,): 2.0 must be a whole number"),
        (dict(equal__steps=(0,)), "constructions.equal.steps=(0,): 0 must be at least 1"),
        (dict(equal__steps=(1.5,)), "constructions.equal.steps=(1.5,): 1.5 must be a whole number"),
        (dict(equal__steps=(5, 1)), "constructions.equal.steps=(5, 1): at least one, and each larger"),
        (dict(equal__padding=-1), "constructions.equal.padding=-1: must be at least 0"),
    ],
)
def test_what_is_refused(run, tmp_path, refused):
    changes, *words = refused
    programs.assert_refused(run(tmp_path / "run", *flags(**changes)), *words)
    assert not (tmp_path / "run" / "report.json").exists()


def test_what_is_too_large_for_the_engine_is_left_out(monkeypatch):
    config = cli.load_config("experiments/configs/expressivity.py:quick")
    with config.unlocked():
        config.constructions.update(automata=("parity", "a5"), engine=dict(lengths=(4, 9)))
    cells = {4: 4 + 5, 9: 9 + 21}  # of the level-expanded scan
    monkeypatch.setattr(expressivity_steps, "LOGITS", 4 * cells[4] * 60)
    part = expressivity_steps.engine_part(config)
    assert [*part.jobs] == ["engine, parity, N=4", "engine, parity, N=9", "engine, a5, N=4"]
    seconds = {"tree": 2e-3, "chain of thought": 3.0}
    row = np.concatenate([[3, 0, *[seconds.get(method, 1e-3)] * 3] for method in expressivity_steps.ENGINE])
    found = part.told(dict.fromkeys(part.jobs, row))
    assert found.facts == {"too large for the engine": "a5, N=9"} and len(found.metrics) == 2
    # and times are told in the unit that they say
    (rows,) = found.tables.values()
    shown = ("tree", "two-sweep scan", "chain of thought", "chain of thought / tree, time")
    assert [rows[0][name] for name in shown] == ["3 calls, 2 ms", "3 calls, 1 ms", "3 calls, 3 s", "1.5e+03"]
    assert {estimate.mean for estimate in found.metrics.values()} == {1500}
    by_name = {name: (curve.y, curve.unit) for name, curve in found.curves.items()}
    assert by_name["tree, parity"] == ([2, 2], "ms a batch") and "chain of thought, parity" not in by_name
    assert by_name["chain of thought / tree, parity"] == ([1500, 1500], "times")


def test_time_on_integers_is_told_in_microseconds():
    config = cli.load_config("experiments/configs/expressivity.py:quick")
    part = expressivity_steps.steps_part(config)
    found = part.told(dict.fromkeys(part.jobs, np.array([3.0, 4.0, 0.0, 1.0, 0.0, 2e-6])))
    (row, *_) = found.tables["on integers, time for 1,024 symbols"]
    assert row["tree, us a word"] == row["chain of thought, us a word"] == "2"


def test_lengths_that_the_layer_has_no_room_for_are_left_out():
    """Those of an automaton alone, and told."""
    config = cli.load_config("experiments/configs/expressivity.py")
    part = expressivity_weights.weights_part(config)
    lengths = lambda name: {
        int(job.split("=")[1].split(",")[0]) for job in part.jobs if job.startswith(f"weights, {name}")
    }
    assert max(lengths("parity")) == max(lengths("s3")) == 1024 and max(lengths("a5")) == 256
    result = np.array([7.0, 0.0, 0.0, 0.99, 0.49, 1e-3])
    found = part.told({job: np.zeros(5) if job.startswith("scales") else result for job in part.jobs})
    told = "a5, N=1024: more than 67,108,864 hidden units in a call"
    assert found.facts["no weights were written down"] == told
    assert {len(curve.x) for curve in found.curves.values()} == {9}


def test_a_run_that_differs_at_any_step_is_not_equal(monkeypatch):
    """Of 8 words the first has another state behind the first step, and the second behind the second, the last."""
    config = cli.load_config("experiments/configs/expressivity.py:quick")
    config.constructions.equal.update(steps=(2,), words=8)
    run = Looped.run

    def other(self, *given):
        states = run(self, *given)
        for step in (1, 2):
            states = states.at[step, step - 1].set(jnp.roll(states[step, step - 1], 1, -1))
        return states

    monkeypatch.setattr(Looped, "run", other)
    jobs = expressivity_equal.equal_part(config).jobs
    names = ("mdm, b=6, D=8, T=2", "mdm, b=6, D=8, T=2, write once", "looped, argmax")
    assert [jobs[name]()[4] for name in names] == [6, 6, 6]


def test_an_unknown_study_is_refused(run, tmp_path):
    programs.assert_refused(
        run(tmp_path, "--config.study=proofs"), "study='proofs': choose one of constructions, trained"
    )


def test_a_wrong_state_is_an_error():
    """Of one word in three; and the words themselves depend on the seed and their length alone."""
    task = task_of("a5", 60)
    words = words_of(task, 3, 3, 9)
    np.testing.assert_array_equal(words, words_of(task, 3, 5, 9)[:3])
    circuit = tree(task, 9)
    tokens = evaluate(circuit, words).tokens
    assert wrong_words(circuit, task, words, tokens) == 0
    answer, start = circuit.readout[0], task.automaton.start
    other = task.elements[:, start] != task.elements[tokens[1, answer], start]
    tokens[1, answer] = np.flatnonzero(other)[0]
    assert wrong_words(circuit, task, words, tokens) == 1


def test_how_often_a_guess_is_right():
    """By enumeration of all words of five symbols."""
    task = task_of("regex:(a|b)*ab/ab", 10)
    words = np.array([[n >> k & 1 for k in range(5)] for n in range(32)], np.int32)
    circuit = tree(task, 5)
    product = evaluate(circuit, words).tokens[:, circuit.readout[0]]
    assert guessed(task, 5) == (product == 0).mean() == 0
    s3 = task_of("s3", 6)
    product = evaluate(tree(s3, 5), words).tokens[:, circuit.readout[0]]
    assert abs(guessed(s3, 5) - (product == 0).mean()) < 1e-15 and guessed(s3, 5) > 0.1


def test_blocks_hold_every_output_cell_once():
    circuit = tree(task_of("s3", 6), 9)
    for steps in (1, 3, 8):
        selected = blocks(circuit, steps)
        assert (selected.sum(0) == (circuit.step > 0)).all() and np.ptp(selected.sum(1)) <= 1
        assert (np.diff(selected.argmax(0)[circuit.inputs :]) >= 0).all()


def test_the_error_of_a_share():
    values = np.repeat([1.0, 0.0], [30, 70])
    assert np.isclose(share(0.3, 100, "words").standard_error, values.std(ddof=1) / 10)

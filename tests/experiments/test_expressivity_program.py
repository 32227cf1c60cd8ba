"""The program of expressivity: what the study of constructions reports, what a kill leaves, and what is refused."""

import json

import numpy as np
import programs
import pytest

from experiments import cli, expressivity, expressivity_steps
from experiments.expressivity_parts import METHODS, share, task_of, words_of, wrong_words
from experiments.expressivity_planners import PLANNERS, blocks, guessed
from mdmjax.expressivity import evaluate, tree

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
    """`run(workdir, *flags) -> (exit code, standard output, standard error)` of constructions."""

    def call(workdir, *flags):
        capfd.readouterr()
        flags = ["--config=experiments/configs/expressivity.py:quick", f"--workdir={workdir}", *flags]
        return programs.run_here(expressivity.main, flags, monkeypatch), *capfd.readouterr()

    return call


def flags(**changes):
    return [f"--config.constructions.{name.replace('__', '.')}={value}" for name, value in changes.items()]


def test_constructions(run, tmp_path):
    tiny = flags(**TINY)
    code, out, errors = run(tmp_path, *tiny)
    assert code == 0 and "level-expanded scan" in out, errors
    found = json.loads((tmp_path / "report.json").read_text())
    facts, metrics = found["facts"], found["metrics"] | found["baselines"]
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
    sweep = facts["scale c of the scores, 32 symbols: words with errors"]
    assert [row["regex:(a|b)*ab/ab"] for row in sweep] == ["20 of 20", "0 of 20"]
    orders = facts["probability of a valid order of the tree"]
    assert [row["one at a time"] for row in orders] == ["1", "1/3"] and orders[1]["independent, T=8"] == "35/128"
    assert abs(float(orders[1]["one at a time: simulated"].split(" ")[0]) - 1 / 3) < 4 * np.sqrt(2 / 9 / 200)
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
    "changes, words",
    [
        (dict(lengths=(0, 4)), "constructions.lengths: N=0: a word must have at least 1 symbol"),
        (dict(lengths=()), "constructions.lengths=(): at least one length"),
        (dict(lengths=(8, 4)), "constructions.lengths=(8, 4): at least one length, and each larger"),
        (dict(engine__lengths=(0,)), "constructions.engine.lengths: N=0"),
        (dict(weights__lengths=(0,)), "constructions.weights.lengths: N=0"),
        (dict(orders__lengths=(0,)), "constructions.orders.lengths: N=0"),
        (dict(orders__length=1), "constructions.orders.length: N=1: must be at least 2"),
        (dict(orders__steps=(8,)), "constructions.orders.steps=(8,): must be in 1..7"),
        (dict(orders__rows=1), "constructions.orders.rows=1: an error bar needs at least 2"),
        (dict(orders__automaton="s4"), "constructions.orders.automaton='s4': choose one of parity"),
        (dict(orders__independent=0), "constructions.orders.independent=0: must be at least 1"),
        (dict(automata=("s4",)), "automata='s4': choose one of parity, s3, a5, s5, regex:PATTERN/ALPHABET"),
        (dict(automata=("s3", "s3")), "automata=('s3', 's3'): at least one, each named once"),
        (dict(automata=("regex:ab",)), "automata='regex:ab': must be regex:PATTERN/ALPHABET"),
        (dict(automata=("regex:(ab/ab",)), "automata='regex:(ab/ab': "),
        (dict(automata=("regex:ac/ab",)), "automata='regex:ac/ab': "),
        (dict(automata=("a5",), max_size=59), "automata='a5': the transition monoid has at least 60 elements"),
        (dict(words=0), "constructions.words=0: must be at least 1"),
        (dict(weights__dtypes=("float8",)), "constructions.weights.dtypes='float8': choose one of float32, bfloat16"),
        (dict(weights__sweep__scales=(0.0,)), "constructions.weights.sweep.scales: c=0.0: must be above 0"),
        (dict(equal__bits=(1,)), "bits=1: must be in 2..16"),
        (dict(equal__widths=(3,)), "width=3: must be a multiple of heads=2"),
        (dict(equal__steps=(0,)), "constructions.equal.steps=(0,): must be at least 1"),
        (dict(equal__padding=-1), "constructions.equal.padding=-1: must be at least 0"),
    ],
)
def test_what_is_refused(run, tmp_path, changes, words):
    programs.assert_refused(run(tmp_path / "run", *flags(**changes)), words)
    assert not (tmp_path / "run" / "report.json").exists()


def test_what_is_too_large_for_the_engine_is_left_out(monkeypatch):
    config = cli.load_config("experiments/configs/expressivity.py:quick")
    with config.unlocked():
        config.constructions.update(automata=("parity", "a5"), engine=dict(lengths=(4, 9)))
    cells = {4: 4 + 5, 9: 9 + 21}  # of the level-expanded scan
    monkeypatch.setattr(expressivity_steps, "LOGITS", 4 * cells[4] * 60)
    part = expressivity_steps.engine_part(config)
    assert [*part.jobs] == ["engine, parity, N=4", "engine, parity, N=9", "engine, a5, N=4"]
    row = np.tile([3.0, 0.0, 1e-3, 1e-3], len(expressivity_steps.ENGINE))
    found = part.told(dict.fromkeys(part.jobs, row))
    assert found.facts == {"too large for the engine": "a5, N=9"} and len(found.metrics) == 2


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

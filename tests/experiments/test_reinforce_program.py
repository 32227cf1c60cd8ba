"""The program `reinforce`: answers are rewarded, and what is rewarded becomes more frequent."""

import json
import shutil

import numpy as np
import programs
import pytest

from experiments import reinforce
from experiments.configs.base_reinforce import reinforce as fields


@pytest.fixture
def run(monkeypatch, capfd):
    """`run(workdir, config, **changes)`: see `programs.quick`."""
    quick = programs.quick(reinforce.main, monkeypatch, capfd, fields)
    return lambda workdir, config="arithmetic", **changes: quick(f"reinforce_{config}", workdir, **changes)


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_rewards_raise_answers(run, tmp_path):
    """Countdown of two numbers, whose answers the policy of this step or the one before writes. A second call finds
    all done."""
    changes = dict(
        arms="('espo',)", data__numbers=2, data__rows=60, data__prompts=40, data__judged=20, start__steps=300,
        start__learning_rate=0.01, train__steps=40, train__learning_rate=0.003, train__evaluate_every=20,
        train__batch=8, reward__group=8, reward__renew=2,
    )  # fmt: skip
    code, out, errors = run(tmp_path, "countdown", **changes)
    assert code == 0, errors
    first = report(tmp_path)
    reward = np.array(first["curves"]["espo: reward"]["y"])
    assert len(reward) == 40 and reward[-8:].mean() > reward[:8].mean() + 0.05 and "espo" in out
    assert set(first["facts"]["right answers by seed, %"]) == {"start", "espo"}
    assert first["curves"]["espo: right"]["y"][-1] == pytest.approx(first["metrics"]["espo: right answers"]["mean"])
    (row,) = first["facts"]["bias against B, nats"]
    assert (
        row["surrogate"] == "coupled counts" and row["surrogate - B, end"].startswith("0") and "coupled counts" in out
    )
    before = (tmp_path / "arms" / "espo" / "metrics.jsonl").read_text()
    code, _, errors = run(tmp_path, "countdown", **changes)
    assert code == 0 and (tmp_path / "arms" / "espo" / "metrics.jsonl").read_text() == before, errors


@pytest.mark.slow
def test_every_method_runs_and_again_the_same(run, tmp_path):
    """Of countdown; an arm whose result is lost is trained again to the same numbers."""
    arms = tuple(fields().arms)
    changes = dict(arms=arms, data__numbers=2, train__steps=2, train__evaluate_every=2)
    code, out, errors = run(tmp_path, "countdown", **changes)
    assert code == 0, errors
    first = report(tmp_path)
    assert [row["arm"] for row in first["facts"]["arms"]] == list(arms)
    shutil.rmtree(tmp_path / "arms" / "gdpo")
    code, _, errors = run(tmp_path, "countdown", **changes)
    assert code == 0 and report(tmp_path)["metrics"] == first["metrics"], errors


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(task="chess"), "task='chess': choose one of sums, workings, countdown"),
        (dict(arms="('ppo',)"), "arms='ppo': choose one of"),
        (dict(arms="('spg','spg')"), "each named once"),
        (dict(seeds=0), "seeds=0: must be at least 1"),
        (dict(reward__renew=0), "reward.renew=0: must be at least 1"),
        (dict(reward__group=1), "group=1"),
        (dict(reward__kl=-1.0), "kl=-1.0"),
        (dict(reward__prompt=1.5), "prompt=1.5"),
        (dict(reward__draws=0), "rates=0"),
        (dict(reward__temperature=-1.0), "temperature"),
        (dict(task="countdown", data__numbers=5), "numbers=5: must be in 2..4"),
        (dict(task="countdown", data__numbers=2, data__rows=500), "the prompts of 2 numbers"),
        (dict(data__judged=0), "data.judged=0: must be at least 1"),
        (dict(data__slips=1.5), "data.slips=1.5: must be in [0, 1]"),
        (dict(data__digits=1), "data.rows + data.prompts + data.judged = 112: there are 100 such sums"),
        (dict(task="workings", data__digits=1), "data.rows + data.prompts + data.judged = 112: digits=1, rows=112"),
        (dict(start__learning_rate=0.0), "start.learning_rate=0.0: must be > 0"),
        (dict(train__learning_rate=0.0), "train.learning_rate=0.0: must be > 0"),
        (dict(train__optimizer="sgd", train__warmup=0), "start.warmup=1: train.optimizer='sgd' has no warm-up"),
        (dict(start__warmup=10), "start.warmup=10: must be at least 0 and less than start.steps=10"),
        (dict(mesh__fsdp=0), "mesh.fsdp=0: must be at least 1"),
        (dict(mesh__data=0), "mesh.data=0: must be at least 1, or -1"),
    ],
)
def test_wrong_configs(run, tmp_path, changes, words):
    """One line that names the field; nothing is written."""
    code, _, errors = run(tmp_path / "run", **changes)
    last = errors.strip().splitlines()[-1]
    assert code == 2 and words in last and "Traceback" not in errors, errors
    assert not (tmp_path / "run" / "config.json").exists()

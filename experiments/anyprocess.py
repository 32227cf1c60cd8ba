"""Generation that may remask, insert and delete: policies taught by solvers, beside models that never take back.

Every arm is trained by the one loop, all seeds at once, and judged on problems that it has not seen: how many answers
are exactly right, in how many steps, by which operations. An arm that is done is not repeated when the same command is
given again.
"""

import json
import shlex
import sys
from pathlib import Path

import jax

from experiments import anyprocess_report, build, cli, runs, table_columns
from experiments.anyprocess_arms import AnyOrderArm, Arm, AutoregressiveArm, PolicyArm
from experiments.anyprocess_dyck import dyck_task
from experiments.anyprocess_mincut import mincut_task
from experiments.anyprocess_parity import parity_task
from experiments.anyprocess_steps import first_failures, on_teacher_states, traced
from experiments.anyprocess_sudoku import sudoku_task
from experiments.anyprocess_tasks import Task
from experiments.anyprocess_text import TextArm, TextTask, text_task
from experiments.configs.base_anyprocess import anyprocess as fields
from mdmjax import networks, training
from mdmjax.reports import environment, to_json, trace_html, write_atomic, write_report

TASKS = dict(parity=parity_task, sudoku=sudoku_task, mincut=mincut_task, dyck=dyck_task, text=text_task)

POSITIVE = (
    "train.evaluate_every",
    "train.log_every",
    *(f"evaluate.{x}" for x in ("batch", "batches", "slots", "failures")),
)


def main(config, workdir):
    """See the module."""
    runs.quiet_orbax()
    make = build.choose(config.task, "task", TASKS)
    for name in ("seeds", "data.rows", "data.problems", "data.held_out", "data.limit", "train.batch", *POSITIVE):
        group, _, field = name.rpartition(".")
        if (value := (config[group] if group else config)[field]) < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    own = lambda write: cli.check_workdir(workdir, config, defaults=cli.to_dict(fields()), write=write)
    own(False)
    task = make(
        config.data, workdir, lambda what, done, of: cli.log(f"{what}: {done:,} of {of:,}") if not done % 512 else None
    )
    arms = [arm_of(config, task, name) for name in config.arms]
    if not arms:
        raise ValueError("arms=(): at least one is needed")
    own(True)  # last, so that a command that was wrong leaves nothing that refuses the next
    cli.log(f"{task.name}: {len(task.tuples['lengths']):,} tuples to learn from, {len(arms)} arms")

    results = []
    with cli.progress(len(arms) * config.train.steps) as bar:
        cli.started()
        for number, arm in enumerate(arms):
            before = number * config.train.steps
            result = run(arm, workdir / "arms" / arm.name, bar, before)
            if result is None:
                cli.log("stopped by a signal, all saved: the same command goes on from there")
                return
            results.append(result)
            bar.update(before + config.train.steps, arm=arm.name)

    report = anyprocess_report.report(
        config, task, results, f"python -m experiments.anyprocess {shlex.join(sys.argv[1:])}"
    )
    page = write_report(workdir, report)
    print(cli.summary(report))
    print(f"\n{anyprocess_report.table(report)}")
    cli.log(f"report: {page}")


def arm_of(config, task: Task, name: str) -> Arm:
    """The arm of that name. ValueError for another name, and for one that the task has no rows for."""
    policy = TextArm if isinstance(task, TextTask) else PolicyArm
    made = build.choose(name, "arms", dict(any_process=policy, any_order=AnyOrderArm, autoregressive=AutoregressiveArm))
    if name != "any_process" and getattr(task, name) is None:
        raise ValueError(f"arms: {task.name} has no rows for {name!r}: leave it out")
    return made(config, task)


def run(arm: Arm, folder: Path, bar, before: int) -> dict | None:
    """The result of an arm, which is kept in its folder. None where a signal came."""
    path = folder / "result.json"
    if path.exists():
        return json.loads(path.read_text())
    progress = lambda step, loss, bound=None, **_: bar.update(
        before + step, arm=arm.name, loss=loss, **({} if bound is None else {"held out": bound})
    )
    trained_at = table_columns.commit(environment())
    try:
        outcome = arm.train(folder, progress, cli.log)
    except (training.NonFiniteLoss, training.NoIntactCheckpoint) as error:
        raise cli.RunFailed(f"{arm.name}: {error}") from error
    if not outcome.finished:
        return None
    cli.log(f"{arm.name}: trained in {outcome.elapsed:.0f} s; now the tests")
    of_seed = [jax.tree.map(lambda x, s=s: x[s], outcome.state.average) for s in range(arm.config.seeds)]
    history = training.read_rows(folder / "metrics.jsonl")
    held_out = [row for row in history if "held out/0" in row]
    result = {
        "arm": arm.name,
        "tests": [arm.measure(params) for params in of_seed],
        "held out": [[row["step"], *(row[f"held out/{s}"] for s in range(len(of_seed)))] for row in held_out],
        "loss": [[row["step"], row["loss"]] for row in history if "loss" in row],
        "parameters": networks.parameter_count(of_seed[0]),
        "batch": arm.rows,
        "GFLOP of a training step": 3 * arm.flops * arm.rows / 1e9,
        "seconds": outcome.elapsed,
        "trained at": trained_at,
    }  # fmt: skip
    if isinstance(arm, PolicyArm):
        if arm.task.objective is None and not arm.config.decode.draw:  # a teacher that draws has several next states
            result["steps"] = [on_teacher_states(arm, params) for params in of_seed]
            result["failures"] = first_failures(arm, of_seed[0], result["tests"][0])
        write_atomic(folder / "trace.html", trace_html(traced(arm, of_seed[0]), arm.task.shown, title=arm.task.name))
    write_atomic(path, to_json(result))
    return result


if __name__ == "__main__":
    cli.run(main, fields)

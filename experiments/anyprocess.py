"""Generation that may remask, insert and delete: policies taught by solvers, beside models that never take back.

Every arm is trained by the one loop, all seeds at once, and judged on problems that it has not seen: how many answers
are exactly right, in how many steps, by which operations. An arm that is done is not repeated when the same command is
given again.
"""

import shlex
import sys
from pathlib import Path

import jax

from experiments import anyprocess_report, build, cli, runs, studies
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
from mdmjax.reports import trace_html, write_atomic, write_report

TASKS = dict(parity=parity_task, sudoku=sudoku_task, mincut=mincut_task, dyck=dyck_task, text=text_task)

POSITIVE = (
    "seeds",
    *(f"data.{x}" for x in ("rows", "problems", "held_out", "max_atoms", "most", "generators", "limit", "questions")),
    "train.batch",
    "train.evaluate_every",
    "train.log_every",
    "train.parts",
    *(f"evaluate.{x}" for x in ("batch", "batches", "slots", "failures")),
)


def main(config, workdir):
    """See the module."""
    runs.quiet_orbax()
    make = build.choose(config.task, "task", TASKS)
    for name in ("givens", "givens_judged", "nodes_of"):
        ends = tuple(config.data[name])
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
            raise ValueError(f"data.{name}={ends}: must be (least, most)")
    for name in ("density", "faults"):
        if not 0 < config.data[name] <= 1:
            raise ValueError(f"data.{name}={config.data[name]}: must be in (0, 1]")
    for name in ("lengths", "letters", "beyond"):
        if min(config.data[name], default=0) < 0:
            raise ValueError(f"data.{name}={tuple(config.data[name])}: must not be negative")
    if config.data.terminal < 0:
        raise ValueError(f"data.terminal={config.data.terminal}: must not be negative")
    build.check_positive(config, POSITIVE)
    own = lambda write: cli.check_workdir(workdir, config, defaults=cli.to_dict(fields()), write=write)
    own(False)
    task = make(
        config.data, workdir, lambda what, done, of: cli.log(f"{what}: {done:,} of {of:,}") if not done % 512 else None
    )
    if not task.tests:
        raise ValueError(f"{task.name}: no test is asked for (data.lengths, data.letters, data.judged)")
    arms = [arm_of(config, task, name) for name in config.arms]
    if not arms:
        raise ValueError("arms=(): at least one is needed")
    own(True)  # last, so that a command that was wrong leaves nothing that refuses the next
    cli.log(f"{task.name}: {len(task.tuples['lengths']):,} tuples to learn from, {len(arms)} arms")

    results = studies.run(arms, workdir, result_of)
    if results is None:
        return
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


def result_of(arm: Arm, folder: Path, outcome: training.Outcome) -> dict:
    """What is kept of an arm; the steps of its policy on one problem stand in trace.html."""
    cli.log(f"{arm.name}: trained in {outcome.elapsed:.0f} s; now the tests")
    of_seed = [jax.tree.map(lambda x, s=s: x[s], outcome.state.average) for s in range(arm.config.seeds)]
    history = training.read_rows(folder / "metrics.jsonl")
    held_out = [row for row in history if "held out/0" in row]
    result = {
        "arm": arm.name,
        "tests": [arm.measure(params, folder / studies.PARTIAL / str(s)) for s, params in enumerate(of_seed)],
        "held out": [[row["step"], *(row[f"held out/{s}"] for s in range(len(of_seed)))] for row in held_out],
        "loss": [[row["step"], row["loss"]] for row in history if "loss" in row],
        "parameters": networks.parameter_count(of_seed[0]),
        "batch": arm.rows,
        "GFLOP of a training step": 3 * arm.flops * arm.rows / 1e9,
        "seconds": outcome.elapsed,
    }
    if isinstance(arm, PolicyArm):
        if arm.task.objective is None and not arm.config.decode.draw:  # a teacher that draws has several next states
            result["steps"] = [on_teacher_states(arm, params) for params in of_seed]
            result["failures"] = first_failures(arm, of_seed[0], result["tests"][0])
        write_atomic(folder / "trace.html", trace_html(traced(arm, of_seed[0]), arm.task.shown, title=arm.task.name))
    return result


if __name__ == "__main__":
    cli.run(main, fields)

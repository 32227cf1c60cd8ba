"""Preference optimisation: a policy learns from pairs of answers to prefer one, against a reference that stays.

The score of a pair is a difference of ELBOs, estimated (VRPO, arXiv 2505.19223). All seeds of an arm are one program;
every arm starts from the same parameters and sees the same pairs, so arms are compared seed by seed. An arm that is
done is not repeated when the same command is given again. Policies that go out from a run are kept as runs, in
WORKDIR/arms/ARM/policy/SEED, for `sample` and `evaluate`.
"""

import shlex
import sys

import jax
import numpy as np

from experiments import build, cli, prefer_report, runs, studies
from experiments.configs.base_prefer import prefer as fields
from experiments.fine_tuned import Start
from experiments.prefer_arms import Arm
from experiments.prefer_probe import right
from experiments.prefer_tasks import TASKS
from experiments.train import exit_when_told
from mdmjax.reports import to_json, write_report

POSITIVE = (
    "seeds", "data.digits", "train.steps", "train.batch", "train.log_every",
    "train.evaluate_every", "evaluate.batch", "evaluate.pairs",
)  # fmt: skip


@exit_when_told()
def main(config, workdir):
    """See the module."""
    runs.quiet_orbax()
    make = build.choose(config.task, "task", TASKS)
    build.check_positive(config, POSITIVE)
    if config.evaluate.repeats < 2:
        raise ValueError(f"evaluate.repeats={config.evaluate.repeats}: a variance needs at least 2")
    names = build.arms_of(config)
    run = runs.load(config.start.run, say=cli.log) if config.start.run else None
    task = make(config.data, run)
    start = None if run else Start(config, task)
    model = run.experiment.model if run else start.model
    given = _spread(jax.device_get(run.params), config.seeds) if run else None
    shapes = given or jax.eval_shape(start.make_states).params
    for name in names:  # so that a wrong field is named before anything is trained
        Arm(config, task, name, model, shapes)
    cli.check_workdir(workdir, config, defaults=cli.to_dict(fields()))
    otherwise = (
        f"{workdir} holds arms of another start, or on other pairs ({workdir / 'task.json'}): give another folder"
    )
    cli.keep(workdir / "task.json", to_json(task.meta), otherwise)
    cli.log(f"{len(task.pairs):,} pairs of {task.length} tokens; {len(names)} arms of {config.seeds} seeds")

    if run:
        params, seconds = given, 0.0
    else:
        found = start.parameters(workdir / "start")
        if found is None:
            return
        params, seconds = found
    before = {"right": right(model, params, task).tolist() if task.judged else None, "seconds": seconds}
    if task.judged:
        cli.log(f"the start answers {100 * np.mean(before['right']):.1f} % right")

    arms = [Arm(config, task, name, model, params) for name in names]

    def result_of(arm, folder, outcome):
        if run:
            for seed in range(config.seeds):  # for the programs that read runs
                one = jax.tree.map(lambda x, seed=seed: x[seed], arm.network(outcome.state.average))
                runs.write(folder / "policy" / str(seed), run, jax.device_get(one))
        return arm.result(folder, outcome)

    results = studies.run(arms, workdir, result_of)
    if results is None:
        return
    report = prefer_report.report(
        config, task, before, results, f"python -m experiments.prefer {shlex.join(sys.argv[1:])}"
    )
    page = write_report(workdir, report)
    print(cli.summary(report))
    print(f"\n{prefer_report.table(report)}")
    cli.log(f"report: {page}")


def _spread(params, seeds: int):
    """The same parameters for every seed."""
    return jax.tree.map(lambda x: np.broadcast_to(x, (seeds, *x.shape)), params)


if __name__ == "__main__":
    cli.run(main, fields)

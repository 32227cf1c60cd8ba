"""Trains many seeds under every way of drawing rates and masks, at equal denoiser calls. The same command resumes.

All seeds of an arm are one program. The seeds of all arms share first parameters and rows, so arms are compared in
pairs. Every bound is that of exact counts with the same draws, whatever an arm is trained with.
"""

import shlex
import sys

from experiments import build, cli, law_names, runs, studies, study_report
from experiments.configs.base import study
from experiments.study_arms import Arm
from experiments.study_tasks import TASKS, Task
from experiments.train import exit_when_told
from mdmjax.reports import write_report


@exit_when_told()
def main(config, workdir):
    """See the module."""
    runs.quiet_orbax()
    arms = checked(config)
    cli.check_workdir(workdir, config, free=("data.cache_dir",), defaults=cli.to_dict(study()))
    cli.log(f"{len(arms)} arms of {config.seeds} seeds, {config.train.steps:,} steps of {config.train.batch} calls")

    of_arm = lambda arm, folder, outcome: arm.result(folder, outcome)
    results = studies.run(arms, workdir, of_arm, keep=False)
    if results is None:
        return
    command = f"python -m experiments.variance_study {shlex.join(sys.argv[1:])}"
    report = study_report.report(config, arms[0].task, results, command)
    page = write_report(workdir, report)
    print(cli.summary(report))
    print(f"\n{study_report.table(report)}")
    cli.log(f"report: {page}")


def checked(config) -> list[Arm]:
    """The arms of a config. ValueError that names the field where it will not do."""
    least_of = (
        ("seeds", 3), ("train.steps", 3), ("train.evaluate_every", 1), ("law.refit_every", 1), ("train.batch", 1),
        ("evaluate.batch", 1),
    )  # fmt: skip
    for name, least in least_of:
        group, _, field = name.rpartition(".")
        value = (config[group] if group else config)[field]
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    if config.evaluate.rows < 0 or config.evaluate.rows == 1:
        raise ValueError(f"evaluate.rows={config.evaluate.rows}: must be 0, for all, or at least 2")
    if not 0 < config.law.eps < 1:
        raise ValueError(f"law.eps={config.law.eps}: must be in (0, 1)")
    names = list(config.arms)
    if names[:1] != ["base"] or len(set(map(law_names.parsed, names))) != len(names):
        raise ValueError(f"arms={tuple(names)}: must begin with base, with which all are compared, each named once")
    task: Task = build.choose(config.task, "task", TASKS)(config.data, config.evaluate.rows)
    return [Arm(config, task, name) for name in names]


if __name__ == "__main__":
    cli.run(main, study)

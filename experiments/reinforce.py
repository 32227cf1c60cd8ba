"""Learning from rewards that can be checked: policy gradients for masked diffusion models, from one start.

A group of answers to each prompt is sampled and rewarded inside the step, and every method makes its gradient of them.
All seeds of an arm are one program; every arm starts from the same parameters and sees the same prompts, so arms are
compared seed by seed. An arm that is done is not repeated when the same command is given again.
"""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import build, cli, runs, studies
from experiments.configs.base_reinforce import reinforce as fields
from experiments.fine_tuned import Start
from experiments.reinforce_arms import Arm
from experiments.reinforce_tasks import TASKS, Problems
from experiments.results import over_seeds, shown
from experiments.train import exit_when_told
from mdmjax.reports import Curve, Report, write_report

POSITIVE = (
    "seeds", "data.rows", "data.prompts", "data.judged", "train.steps", "train.batch", "train.log_every",
    "train.evaluate_every",
)  # fmt: skip


@exit_when_told()
def main(config, workdir):
    """See the module."""
    runs.quiet_orbax()
    make = build.choose(config.task, "task", TASKS)
    build.check_positive(config, POSITIVE)
    names = build.arms_of(config)
    task = make(config.data)
    start = Start(config, task)
    shapes = jax.eval_shape(start.make_states).params
    for name in names:  # so that a wrong field is named before anything is trained
        Arm(config, task, name, start.model, shapes)
    cli.check_workdir(workdir, config, defaults=cli.to_dict(fields()))
    cli.log(f"{len(task.prompts):,} prompts of {task.name}; {len(names)} arms of {config.seeds} seeds")
    found = start.parameters(workdir / "start")
    if found is None:
        return
    params, seconds = found
    arms = [Arm(config, task, name, start.model, params) for name in names]
    before = {"right": arms[0].right(params).tolist(), "seconds": seconds}
    cli.log(f"the start answers {100 * np.mean(before['right']):.1f} % right")
    results = studies.run(arms, workdir, lambda arm, folder, outcome: arm.result(folder, outcome))
    if results is None:
        return
    command = f"python -m experiments.reinforce {shlex.join(sys.argv[1:])}"
    made = report(config, task, before, results, command)
    page = write_report(workdir, made)
    print(cli.summary(made))
    for rows in filter(None, (made.facts["arms"], made.facts["bias against B, nats"])):
        print(f"\n{cli.table([tuple(row.values()) for row in rows], tuple(rows[0]))}")
    cli.log(f"report: {page}")


def report(config, task: Problems, start: dict[str, Any], results: Sequence[dict[str, Any]], command: str) -> Report:
    """What `report.json` holds."""
    before, metrics, lines, curves = 100 * np.asarray(start["right"]), {}, [], {}
    for r in results:
        after = 100 * np.asarray(r["right"])
        metrics[f"{r['arm']}: right answers"] = over_seeds(after, "%")
        metrics[f"{r['arm']} - start: right answers"] = gain = over_seeds(after - before, "%")
        last = np.mean([reward for _, reward in r["rewards"][-10:]])
        lines.append(
            {"arm": r["arm"], "right, %": shown(over_seeds(after)), "right - start": shown(gain)}
            | {"mean reward of the last steps": f"{last:.3f}", "seconds": f"{r['seconds']:.0f}"}
        )
        values = 100 * np.array([row[1:] for row in r["curve"]])
        error = (values.std(1, ddof=1) / np.sqrt(values.shape[1])).tolist() if values.shape[1] > 1 else None
        steps = [row[0] for row in r["curve"]]
        curves[f"{r['arm']}: right"] = Curve(steps, values.mean(1).tolist(), error, "%", panel="right answers")
        curves[f"{r['arm']}: reward"] = Curve(*map(list, zip(*r["rewards"], strict=True)), panel="reward of samples")
    return Report(
        title=f"Rewards: {task.name}",
        summary=(
            f"{config.seeds} seeds of {len(results)} arms; {config.train.steps:,} steps of {config.train.batch} "
            f"prompts with {config.reward.group} answers each. ± is a standard error over seeds, in pairs of the same "
            "seeds for differences."
        ),
        command=command,
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=start["seconds"] + sum(r["seconds"] for r in results),
        metrics=metrics,
        baselines={"start: right answers": over_seeds(before, "%")},
        facts={
            "arms": lines,
            "bias against B, nats": [row for r in results for row in bias_rows(r["arm"], *r["bias"])],
            "seconds": {"start": start["seconds"]} | {r["arm"]: r["seconds"] for r in results},
            "right answers by seed, %": {"start": before.tolist()}
            | {r["arm"]: (100 * np.asarray(r["right"])).tolist() for r in results},
            "commit of the training": {r["arm"]: r["trained at"] for r in results},
        },
        curves=curves,
    )


def bias_rows(arm: str, before: dict[str, list[float]], after: dict[str, list[float]]) -> list[dict[str, str]]:
    """How far each surrogate of an arm is from the bound B in expectation, before and after its training."""
    show = lambda values: shown(over_seeds(np.round(values, 5)))  # float32 knows no more
    return [
        {"arm": arm, "surrogate": name}
        | {
            f"{column}, {when}": show(values[key])
            for when, values in (("start", before), ("end", after))
            for column, key in (("B", "bound"), ("surrogate - B", name))
        }
        for name in before
        if name != "bound"
    ]


if __name__ == "__main__":
    cli.run(main, fields)

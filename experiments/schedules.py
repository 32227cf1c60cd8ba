"""Searches the schedule for a target, a sampler and a budget of steps, and compares what it finds with the usual ones.

Targets: `toys`, laws on five bits, by enumeration; `chain`, a Markov chain with its true conditionals; `checkpoint`, a
trained model. The search sees other rows than the comparison. The same command goes on after a kill.
"""

import math
import shlex
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments import build, cli, targets
from experiments.configs.base import search
from experiments.search import Cells, Search, halve, rows_needed
from mdmjax import analysis, process, sampling
from mdmjax.base import Estimate, Schedule
from mdmjax.evaluation.blocks import ratio
from mdmjax.process import OnGrid
from mdmjax.reports import Heatmap, Report, to_json, write_atomic, write_report

USUAL = dict(
    linear=process.Linear(),
    sine=process.Sine(),
    sine_squared=process.SineSquared(),
    cosine=process.Cosine(),
)
FAMILIES = dict(beta=process.beta, kumaraswamy=process.Kumaraswamy)
BUDGET = "optimal budget"  # of the information curve
AT_ONCE = "all in the last step"  # one denoiser call: what steps are worth at all


def main(config, workdir):
    """See the module."""
    began = time.monotonic()
    if not config.steps or min(config.steps) < 1:
        raise ValueError(f"steps={tuple(config.steps)}: one or more numbers of at least 1")
    grid = candidates(config)
    programs = dict(
        toys=lambda: enumerate_toys(config, workdir, grid),
        chain=lambda: search_target(config, workdir, grid, targets.chain(config.chain)),
        checkpoint=lambda: search_target(config, workdir, grid, targets.checkpoint(config, cli.log)),
    )
    found, before = build.choose(config.target, "target", programs)()
    report = Report(
        config=cli.to_dict(config),
        seed=config.seed,
        command=f"python -m experiments.schedules {shlex.join(sys.argv[1:])}",
        wall_seconds=time.monotonic() - began + before,
        **found,
    )
    page = write_report(workdir, report)
    print(cli.table([list(row.values()) for row in report.facts["comparison"]], list(report.facts["comparison"][0])))
    cli.log(f"report: {page}")


def candidates(config) -> dict[tuple[float, float], Schedule]:
    """The schedules of the grid by (a, b). ValueError for an empty grid or a parameter that is not positive."""
    make = build.choose(config.family, "family", FAMILIES)
    for name in ("a", "b"):
        if not config.grid[name]:
            raise ValueError(f"grid.{name} is empty: give values above 0")
    return {(a, b): make(a, b) for a in config.grid.a for b in config.grid.b}


def energies(schedules: dict[str, Schedule]) -> dict[str, float]:
    """E(a, gamma) for gamma = tau: at least pi^2. It says nothing of the quality of samples."""
    return {name: analysis.energy(schedule, process.Linear()) for name, schedule in schedules.items()}


# ---- by enumeration --------------------------------------------------------------------------------------------------


def enumerate_toys(config, workdir: Path, grid) -> tuple[dict, float]:
    """Both toys, exactly: total variation and KL of the output law for every schedule, sampler and number of steps."""
    metric = build.choose(config.metric, "metric", dict(tv="total variation", kl="KL, nats"))
    if not set(config.planners) <= {"ancestral", "random_count"}:
        raise ValueError(f"planners={tuple(config.planners)}: of a toy, choose from ancestral, random_count")
    comparison, heatmaps, facts = [], {}, {}
    names = [(toy, planner, steps) for toy in targets.TOYS for planner in config.planners for steps in config.steps]
    cli.check_workdir(workdir, config)
    cli.started()
    with cli.progress(len(names) * len(grid), unit="schedule") as bar:
        for number, (toy, planner, steps) in enumerate(names):
            law = targets.TOYS[toy]()
            table = analysis.true_conditionals(law)
            curve = analysis.information_curve(law)

            def measure(schedule, law=law, table=table, planner=planner, steps=steps):
                return exactly(law, table, planner, schedule, steps)

            cells = {}
            for i, ((a, b), schedule) in enumerate(grid.items()):
                cells[a, b] = measure(OnGrid.sampled(schedule, steps))
                bar.update(number * len(grid) + i + 1)
            best, worst = (pick(cells, key=lambda ab: cells[ab][config.metric]) for pick in (min, max))
            budget, bound = analysis.optimal_counts(curve, steps)
            rows = {f"best, {config.family}({best[0]:g}, {best[1]:g})": cells[best]}
            rows |= {name: measure(OnGrid.sampled(schedule, steps)) for name, schedule in USUAL.items()}
            rows |= {BUDGET: measure(OnGrid.budget(budget))}
            rows |= {f"worst, {config.family}({worst[0]:g}, {worst[1]:g})": cells[worst]}
            known = dict(target=toy, sampler=planner, T=steps)
            comparison += [known | dict(schedule=name) | values for name, values in rows.items()]
            title = f"{toy}, {planner}, T = {steps}: {metric}"
            heatmaps[title] = heatmap(config, {ab: values[config.metric] for ab, values in cells.items()}, best, metric)
            facts[f"optimal budget, {toy}, T = {steps}"] = {"counts": budget.tolist(), "bound on KL": bound}
    gamma = np.append(np.asarray(process.BetaCDF(0.9, 0.3).alpha(jnp.arange(5, 0, -1) / 5), np.float64), 1.0)
    geodesic, optimum = np.sin(np.pi / 2 * gamma) ** 2, analysis.chord_optimum(gamma)
    facts["chord energy in 5 steps, gamma = Beta(0.9, 0.3)"] = {
        "of the geodesic points": analysis.discrete_energy(geodesic, gamma, "chord"),
        "of its own minimiser": analysis.discrete_energy(optimum, gamma, "chord"),
    }
    return dict(
        title="Schedules on two toys, by enumeration",
        summary=f"Laws on five bits, true conditionals; {len(grid)} {config.family} schedules against the usual ones.",
        metrics={},
        heatmaps=heatmaps,
        facts={"comparison": comparison, "energies for gamma = tau": energies(USUAL), **facts},
    ), 0.0


def exactly(law: np.ndarray, table: np.ndarray, planner: str, schedule: OnGrid, steps: int) -> dict[str, float]:
    """Total variation and KL(data || output) of a sampler's law. A step that reveals nothing makes no call."""
    if planner == "ancestral":
        output = analysis.ancestral_law(table, _hidden_grid(schedule))
    else:
        output = analysis.random_count_law(table, [count for count in _counts(schedule, steps, law.ndim) if count])
    inside = law > 0
    with np.errstate(divide="ignore"):
        divergence = (law[inside] * (np.log(law[inside]) - np.log(output[inside]))).sum()
    exact = lambda value: round(float(value), 12) + 0.0  # what is left is rounding
    return dict(tv=exact(analysis.total_variation(law, output)), kl=exact(divergence))


def _hidden_grid(schedule: OnGrid) -> np.ndarray:
    """1 - alpha from all masks to the first time at which none is left."""
    hidden = np.asarray(schedule.hidden)[::-1]
    return hidden[: np.argmin(hidden) + 1]


def _counts(schedule: OnGrid, steps: int, total: int) -> list[int]:
    """Tokens that each step reveals."""
    return np.diff(sampling.visible_counts(schedule, steps, total)).tolist()


# ---- by sampling -----------------------------------------------------------------------------------------------------


def search_target(config, workdir: Path, grid, target: targets.Target) -> tuple[dict, float]:
    """The best of the grid on the rows of the search, and how it and the usual schedules do on other rows.

    Also the seconds that earlier calls of the program have spent on measuring.
    """
    draw = sampling.TokenDraw(config.temperature, config.top_p)
    if config.held_out < 2 or config.batch < 1:
        raise ValueError(f"held_out={config.held_out}, batch={config.batch}: needs held_out >= 2 and batch >= 1")
    wanted = {"search": max(config.rungs, default=0), "held-out": config.held_out}
    for part, rows in (target.rows or {}).items():
        if wanted[part] > rows:
            raise ValueError(f"{part} rows: {wanted[part]} are asked for, and the data has {rows}: ask for fewer")
    budgets = [(planner, steps) for planner in config.planners for steps in config.steps]
    samplers = {
        (planner, steps): targets.sampler(target, planner, steps, draw, config.batch, config.seed)
        for planner, steps in budgets
    }
    names = {f"{config.family}({a:g}, {b:g})": (a, b) for a, b in grid}
    work = rows_needed(len(names), config.rungs, config.keep) + (len(USUAL) + 3) * config.held_out
    cli.check_workdir(workdir, config, free=("batch",))  # last, so that a wrong command leaves nothing
    claim(workdir, target)
    cells = Cells(workdir / "cells.jsonl")
    before = cells.seconds
    curve = cells.get("information curve", target.curve)
    smooth, change = analysis.concave(curve)
    smooth = smooth[target.length - target.masks :] - smooth[target.length - target.masks]  # given what is visible
    comparison, heatmaps, metrics, baselines, facts = [], {}, {}, {}, {}
    cli.started()
    done = 0
    with cli.progress(work * len(budgets), unit="row") as bar:
        for planner, steps in budgets:
            budget_name = f"{planner}, T = {steps}"
            schedules = {name: OnGrid.sampled(grid[ab], steps) for name, ab in names.items()}
            schedules |= {name: OnGrid.sampled(schedule, steps) for name, schedule in USUAL.items()}
            schedules[BUDGET] = OnGrid.budget(analysis.optimal_counts(smooth, steps)[0])
            schedules[AT_ONCE] = OnGrid.budget([0] * (steps - 1) + [target.masks])

            def measure(name, start, stop, part="search", at=(planner, steps), schedules=schedules):
                nonlocal done
                cell = f"{at[0]}, T = {at[1]}, {part}, {name}, rows {start} to {stop}"

                def sample():
                    tokens = samplers[at](schedules[name], part, start, stop)
                    return target.score(part, np.arange(start, stop), tokens)

                values = cells.get(cell, sample)
                done += stop - start
                bar.update(done, at=f"T = {at[1]}, {name}")
                return values

            search: Search = halve(list(names), config.rungs, config.keep, measure, target.higher)
            rivals = [search.best, *USUAL, BUDGET, AT_ONCE]
            held = {name: measure(name, 0, config.held_out, "held-out") for name in rivals}
            best = held[search.best]
            for name in rivals:
                value = estimate(held[name], target)
                gain = estimate((held[name] - best) * (-1 if target.higher else 1), target)
                counts = _counts(schedules[name], steps, target.masks)
                comparison.append({
                    "sampler": planner,
                    "T": steps,
                    "schedule": name,
                    "value": str(value).removesuffix(target.unit).strip(),
                    "unit": target.unit,
                    "best is better by": "" if name == search.best else str(gain).removesuffix(target.unit).strip(),
                    "standard errors": "" if name == search.best else _ratio(gain),
                    **_known(cells, target, smooth, planner, steps, name, schedules[name], samplers, config.held_out),
                    "tokens a step": " ".join(map(str, counts)),
                    "empty steps": counts.count(0),
                })  # fmt: skip
                where = metrics if name == search.best else baselines
                where[f"{budget_name}, {name}"] = value
                if name != search.best:
                    metrics[f"{budget_name}, gain over {name}"] = gain
            means = {names[name]: values.mean() for name, values in search.values.items()}
            label = f"{budget_name}: {target.metric}, on at least {config.rungs[0]} rows"
            heatmaps[label] = heatmap(config, means, names[search.best], target.unit)
            facts[f"finalists, {budget_name}"] = {
                name: float(values.mean()) for name, values in search.values.items() if len(values) == config.rungs[-1]
            }
            if config.target == "checkpoint":
                path = workdir / f"best_{planner}_{steps}.py"
                write_atomic(path, sample_config(config, path, planner, steps, names[search.best]))
    facts["information curve, nats"] = curve.tolist()
    facts["largest change that made its increments decrease, nats"] = change
    return dict(
        title=f"Schedules for {target.name}",
        summary=f"{len(grid)} {config.family} schedules, {target.metric}; the winner against the usual ones on other "
        f"rows ({config.held_out} each, differences in pairs).",
        metrics=metrics,
        baselines=baselines,
        against=[],
        heatmaps=heatmaps,
        facts={"comparison": comparison, "target": target.identity, **facts},
    ), before


def claim(workdir: Path, target: targets.Target) -> None:
    """Makes the workdir that of a search for this model, or finds that it is. UsageError for that of another."""
    path = workdir / "target.json"
    otherwise = f"{workdir} holds a search for another model or other data (see {path}): give another --workdir"
    cli.keep(path, to_json(target.identity), otherwise)


def _known(cells, target, curve, planner, steps, name, schedule, samplers, rows) -> dict:
    """What theory says of a schedule, and what is counted over all its samples."""
    known = {"bound on KL, nats": "–"}  # of confidence none is known
    if planner != "confidence":
        if planner == "ancestral":
            bound = analysis.ancestral_bound(curve, _hidden_grid(schedule))
        else:
            bound = analysis.counts_bound(curve, _counts(schedule, steps, target.masks))
        known["bound on KL, nats"] = round(bound, 4)
    if target.statistic:
        title, count = target.statistic
        samples = lambda: [count(samplers[planner, steps](schedule, "held-out", 0, rows))]
        known[title] = float(cells.get(f"{planner}, T = {steps}, {title}, {name}", samples)[0])
    return known


def estimate(values: np.ndarray, target: targets.Target) -> Estimate:
    """The mean over the held-out rows, in the order of their text, for neighbours in it are alike."""
    values = values[np.argsort(target.place("held-out", np.arange(len(values))), kind="stable")]
    return ratio(values, np.ones(len(values), int), target.unit, target.metric)


def _ratio(gain: Estimate) -> str:
    return f"{gain.mean / gain.standard_error:.1f}" if gain.standard_error > 0 else "–"


def heatmap(config, cells: dict[tuple[float, float], float], best: tuple[float, float], unit: str) -> Heatmap:
    """The grid, a downwards and b to the right."""
    a, b = list(config.grid.a), list(config.grid.b)
    values = [[float(cells.get((x, y), math.nan)) for y in b] for x in a]
    return Heatmap(
        values, [f"{x:g}" for x in a], [f"{y:g}" for y in b], "a", "b", unit, (a.index(best[0]), b.index(best[1]))
    )


def sample_config(config, path: Path, planner: str, steps: int, best: tuple[float, float]) -> str:
    """The text of a config that `sample` takes, with the schedule that was found."""
    return f'''"""Samples with the schedule that a search found for {planner} in {steps} steps.

    python -m experiments.sample --config={path} --workdir=DIR
"""

from experiments.configs import sample


def get_config(name: str = ""):
    """The config of `sample`, or its variant `quick`."""
    config = sample.get_config(name)
    config.checkpoint = {config.checkpoint.run!r}
    config.which = {config.checkpoint.which!r}
    config.sample.update(
        planner={planner!r}, steps={steps}, schedule={config.family!r}, schedule_args={best!r},
        temperature={config.temperature!r}, top_p={config.top_p!r},
    )  # fmt: skip
    return config
'''


if __name__ == "__main__":
    cli.run(main, search)

"""Steps, cells and time of circuits against the length of the word: on integers, and on the sampling engine."""

import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.expressivity_parts import (
    CHAIN,
    METHODS,
    Part,
    check_numbers,
    check_size,
    tasks_of,
    words_of,
    wrong_words,
)
from experiments.found import Found
from experiments.results import over_seeds
from mdmjax.base import Estimate
from mdmjax.expressivity import AtSteps, Dependency, MonoidTask, Predictor, Stages, canvas, evaluate
from mdmjax.reports import Curve
from mdmjax.sampling import TokenDraw, sample

CELLS = 2**24  # of all words, on integers
LOGITS = 2**26  # of a call: what would need more is left to the integers
ENGINE = tuple(name for name in METHODS if name != "Hillis-Steele, copied")


def steps_part(config) -> Part:
    """Every method on integers, at every length: counts, errors and seconds."""
    c, tasks = config.constructions, tasks_of(config.constructions)
    check_numbers("constructions.lengths", c.lengths)
    most = lambda length: c.words * METHODS["level-expanded scan"].cost(length).cells
    check_size("constructions.lengths", c.lengths[-1], most, CELLS, f"cells of {c.words:,} words")
    jobs = {
        f"integers, {name}, {method}, N={length}": _counted(task, method, config.seed, c.words, length)
        for name, task in tasks.items()
        for method in METHODS
        for length in c.lengths
    }
    return Part(jobs, lambda values: _told_steps(c, tasks, values))


def _counted(task: MonoidTask, method: str, seed: int, count: int, length: int):
    """(T, P, cells written over, as the accounting says, words with errors, seconds a word) of real runs."""

    def job():
        circuit, words = METHODS[method].build(task, length), words_of(task, seed, count, length)
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            run = evaluate(circuit, words)
            seconds.append((time.perf_counter() - began) / count)
        counts, cost = run.counts, METHODS[method].cost(length)
        first = sum(counts.written) - counts.resamples
        agree = (counts.steps, counts.cells) == cost and first == counts.cells
        wrong = wrong_words(circuit, task, words, run.tokens)
        return [counts.steps, counts.cells, counts.resamples, agree, wrong, min(seconds)]

    return job


def _told_steps(c, tasks: Mapping[str, MonoidTask], values: Mapping[str, np.ndarray]) -> Found:
    first = next(iter(tasks))
    of = lambda name, method, length: values[f"integers, {name}, {method}, N={length}"]
    counts = [{"N": n} | {method: _cost(of(first, method, n)) for method in METHODS} for n in c.lengths]
    every = [of(name, method, n) for name in tasks for method in METHODS for n in c.lengths]
    last = c.lengths[-1]
    rows = []
    for name, task in tasks.items():
        wrong = sum(int(of(name, method, n)[4]) for method in METHODS for n in c.lengths)
        row = {"automaton": name, "elements": task.size, "words": c.words * len(METHODS) * len(c.lengths)}
        row |= {"words with errors": wrong}
        rows.append(row | {f"{method}, us a word": f"{1e6 * of(name, method, last)[5]:.3g}" for method in METHODS})
    calls = lambda method: Estimate(
        of(first, method, last)[0], 0.0, "calls", c.words, "counted, the same for every word"
    )
    head, *others = [(f"denoiser calls for N={last}: {method}", calls(method)) for method in METHODS]
    alike, lengths = {}, [n for n in c.lengths if n > 1]  # methods of as many steps at every length: one curve
    for method in METHODS:
        if method != CHAIN:
            alike.setdefault(tuple(float(of(first, method, n)[0]) for n in lengths), []).append(method)
    curves = {
        ", ".join(methods): Curve(lengths, steps, None, "steps", f"Steps by length, {CHAIN} left out", "N", log=True)
        for steps, methods in alike.items()
    }
    agree = f"{sum(int(x[3]) for x in every)} of {len(every)}"
    return Found(
        "Steps", "", dict([head]),
        {"steps and cells, counted": counts, f"on integers, time for {last:,} symbols": rows},
        {"runs whose counted steps and cells are those of the accounting": agree},
        curves, baselines=dict(others),
    )  # fmt: skip


def _cost(value: np.ndarray) -> str:
    steps, cells, again = (int(x) for x in value[:3])
    return f"T {steps:,}, P {cells:,}" + (f" + {again:,} again" if again else "")


# ---- on the engine ---------------------------------------------------------------------------------------------------


def engine_part(config) -> Part:
    """Denoiser calls and time to an exact answer, the integer predictor on the engine."""
    c, tasks = config.constructions, tasks_of(config.constructions)
    check_numbers("constructions.engine.lengths", c.engine.lengths)
    fit = {
        name: [n for n in c.engine.lengths if _logits(task, c.engine.words, n) <= LOGITS]
        for name, task in tasks.items()
    }
    jobs = {
        f"engine, {name}, N={length}": _timed(tasks[name], config.seed, c.engine, length)
        for name, lengths in fit.items()
        for length in lengths
    }
    return Part(jobs, lambda values: _told_engine(c.engine, fit, values))


def _logits(task: MonoidTask, words: int, length: int) -> int:
    """The most that any method's call has."""
    return words * (length + METHODS["level-expanded scan"].cost(length).cells) * task.size


def _timed(task: MonoidTask, seed: int, c, length: int):
    """For each method (calls, words with errors, seconds of each round): rounds go through the methods in turn."""

    def job():
        words, runs, found = words_of(task, seed, c.words, length), {}, {}
        for method in ENGINE:
            circuit = METHODS[method].build(task, length)
            planner = (AtSteps if isinstance(circuit, Stages) else Dependency).of(circuit)
            how = dict(vocab=circuit.vocab, key=jax.random.key(seed), draw=TokenDraw(0.0))
            run = lambda x, circuit=circuit, planner=planner, how=how: sample(Predictor(circuit), planner, x, **how)
            tokens = jnp.asarray(canvas(circuit, words))
            runs[method] = jax.jit(run).lower(tokens).compile(), tokens
            out = jax.block_until_ready(runs[method][0](tokens))
            found[method] = [int(out.calls), wrong_words(circuit, task, words, np.asarray(out.tokens))]
        for _ in range(c.rounds):
            for method, (run, tokens) in runs.items():
                began = time.perf_counter()
                jax.block_until_ready(run(tokens))
                found[method].append(time.perf_counter() - began)
        return np.concatenate([found[method] for method in ENGINE])

    return job


def _told_engine(c, fit: Mapping[str, Sequence[int]], values: Mapping[str, np.ndarray]) -> Found:
    rows, metrics, curves = [], {}, {}
    for name, lengths in fit.items():
        times, ratios = {method: [] for method in ENGINE}, []
        for length in lengths:
            of = dict(zip(ENGINE, values[f"engine, {name}, N={length}"].reshape(len(ENGINE), -1), strict=True))
            for method in ENGINE:
                times[method].append(1e3 * float(np.median(of[method][2:])))
            row = {"automaton": name, "N": length, "words with errors": sum(int(x[1]) for x in of.values())}
            row |= {method: f"{int(x[0]):,} calls, {_ms(times[method][-1])}" for method, x in of.items()}
            ratio = over_seeds(of[CHAIN][2:] / of["tree"][2:], "times", "chain of thought / tree", "rounds")
            ratios.append(float(np.median(of[CHAIN][2:] / of["tree"][2:])))
            rows.append(row | {f"{CHAIN} / tree, time": f"{ratios[-1]:.3g}"})
        if not lengths:
            continue
        metrics[f"{name}, N={length}: time of the chain of thought, in that of the tree"] = ratio
        panel = f"Time of the {CHAIN}, in that of the tree"
        curves[f"{CHAIN} / tree, {name}"] = Curve(lengths, ratios, None, "times", panel, "N", log=True)
        for method in ENGINE if name == next(iter(fit)) else ():
            if method != CHAIN:
                panel = f"Time to an exact answer, {name}, {CHAIN} left out"
                curves[f"{method}, {name}"] = Curve(lengths, times[method], None, "ms a batch", panel, "N", log=True)
    title = f"on the engine, {c.words} words at once, median of {c.rounds}"
    left_out = [f"{name}, N={n}" for name, lengths in fit.items() for n in c.lengths if n not in lengths]
    facts = {"too large for the engine": "; ".join(left_out)} if left_out else {}
    return Found("Time", "", metrics, {title: rows} if rows else {}, facts, curves)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"

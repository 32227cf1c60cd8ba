"""The transformer with weights written down: errors, steps and margins by precision, and by the scale of its scores."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.expressivity_parts import Part, check_lengths, jit_briefly, log2, tasks_of, words_of
from experiments.found import Found
from mdmjax.expressivity import (
    Circuit,
    Explicit,
    MonoidTask,
    canvas,
    evaluate,
    explicit_denoiser,
    margins,
    monoid_task,
    off_target,
    parity,
    safe_scale,
    trace_counts,
    tree,
)
from mdmjax.reports import Curve
from mdmjax.sampling import TokenDraw, sample

DTYPES = dict(float32=jnp.float32, bfloat16=jnp.bfloat16)


def weights_part(config) -> Part:
    """Every automaton whose multiplication table the layer has room for, at every length, in every precision."""
    c, tasks = config.constructions.weights, tasks_of(config.constructions)
    check_lengths("constructions.weights.lengths", c.lengths)
    for dtype in c.dtypes:
        build.choose(dtype, "constructions.weights.dtypes", DTYPES)
    if c.sweep.length < 2:
        raise ValueError(f"constructions.weights.sweep.length: N={c.sweep.length}: must be at least 2")
    for scale in c.sweep.scales:
        if not 0 < scale < math.inf:
            raise ValueError(f"constructions.weights.sweep.scales: c={scale}: must be above 0 and finite")
    fit = {name: task for name, task in tasks.items() if task.size <= c.most}
    jobs = {
        f"weights, {name}, N={length}, {dtype}": _recognised(task, config.seed, c.words, length, dtype)
        for name, task in fit.items()
        for length in c.lengths
        for dtype in c.dtypes
    }
    jobs |= {f"scales, {name}": _sweep(task, config.seed, c.sweep) for name, task in fit.items()}
    left_out = [name for name in tasks if name not in fit]
    return Part(jobs, lambda values: _told(c, list(fit), left_out, values))


def _run(circuit: Circuit, planner, positions, key):
    """The engine on the layer with these weights, traced."""
    how = dict(vocab=circuit.vocab, key=key, draw=TokenDraw(0.0), trace=True)
    return jit_briefly(lambda weights, tokens: sample(Explicit(weights, positions), planner, tokens, **how))


def _recognised(task: MonoidTask, seed: int, count: int, length: int, dtype: str):
    """(T, words with errors, cells wrongly selected, least margins of predictor and planner, eps) of real runs."""

    def job():
        circuit = tree(task, length)
        words = words_of(task, seed, count, length)
        denoiser, planner, positions = explicit_denoiser(circuit, dtype=DTYPES[dtype])
        run = _run(circuit, planner, positions, jax.random.key(seed))
        out = run(denoiser.weights, jnp.asarray(canvas(circuit, words)))
        wrong = int((np.asarray(out.tokens) != evaluate(circuit, words).tokens).any(1).sum())
        least, selected = [math.inf, math.inf], 0
        for s in range(circuit.steps):
            ready = jnp.broadcast_to(jnp.asarray(circuit.step == s + 1), out.tokens.shape)
            found = margins(denoiser.weights, circuit, positions, out.trace.tokens[s], ready)
            least = [min(least[0], found.predictor), min(least[1], found.planner)]
            selected += found.wrong
        eps = off_target(circuit, safe_scale(circuit))
        return [trace_counts(out.trace, circuit.vocab).steps, wrong, selected, *least, eps]

    return job


def _sweep(task: MonoidTask, seed: int, c):
    """Words with errors at each scale."""

    def job():
        circuit = tree(task, c.length)
        words = words_of(task, seed, c.words, c.length)
        right, tokens = evaluate(circuit, words).tokens, jnp.asarray(canvas(circuit, words))
        _, planner, positions = explicit_denoiser(circuit)
        run = _run(circuit, planner, positions, jax.random.key(seed))
        found = (run(explicit_denoiser(circuit, scale)[0].weights, tokens).tokens for scale in c.scales)
        return [int((np.asarray(x) != right).any(1).sum()) for x in found]

    return job


def _told(c, names: list[str], left_out: list[str], values: Mapping[str, np.ndarray]) -> Found:
    rows, curves = [], {}
    for name in names:
        for length in c.lengths:
            of = {dtype: values[f"weights, {name}, N={length}, {dtype}"] for dtype in c.dtypes}
            eps = of[c.dtypes[0]][5]
            row = {"automaton": name, "N": length, "steps": ", ".join(sorted({str(int(x[0])) for x in of.values()}))}
            row |= {"margins promised": f"{_margin(1 - 4 * eps)} / {_margin(0.5 - 2 * eps)}"}
            for dtype, x in of.items():
                row |= {f"{dtype}: errors": f"{int(x[1])} of {c.words}"}
                row |= {f"{dtype}: margins": f"{_margin(x[3])} / {_margin(x[4])}"}
            rows.append(row)
    sweep = []
    for k, scale in enumerate(c.sweep.scales):
        wrong = {name: f"{int(values[f'scales, {name}'][k])} of {c.sweep.words}" for name in names}
        eps = off_target(tree(monoid_task(parity()), c.sweep.length), scale)
        sweep.append({"c": scale, "eps at most": f"{eps:.3g}", "margin at least": f"{1 - 4 * eps:.3g}"} | wrong)
    for dtype in c.dtypes if names else ():
        lengths = [n for n in c.lengths if n > 1]
        least = [min(values[f"weights, {name}, N={n}, {dtype}"][3] for name in names) for n in lengths]
        panel = "Least margin of the predictor"
        curves[f"{dtype}, all automata"] = Curve(log2(lengths), least, None, "logit", panel, "log2 N")
    tables = {}
    if names:
        tables["weights written down: least margins of predictor / planner"] = rows
        tables[f"scale c of the scores, {c.sweep.length} symbols: words with errors"] = sweep
    every = [x for job, x in values.items() if job.startswith("weights, ")]
    facts = {"cells that the layer's planner selects wrongly": sum(int(x[2]) for x in every)} if names else {}
    if left_out:
        facts["no weights were written down"] = f"for {', '.join(left_out)}: more than {c.most} elements"
    return Found("Weights", "", {}, tables, facts, curves)


def _margin(x: float) -> str:
    return f"{x:.4g}" if math.isfinite(x) else "–"

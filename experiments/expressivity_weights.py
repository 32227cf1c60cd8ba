"""The transformer with weights written down: errors, steps and margins by precision, and by the scale of its scores."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.expressivity_parts import Part, check_names, check_numbers, check_size, jit_briefly, tasks_of, words_of
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
SCORES = 2**27  # of the two heads in a call, at most: 512 MiB in float32
HIDDEN = 2**26  # units of a call: where an automaton would need more, the length is left out
BRIEFLY = 2**22  # scores of a call that takes less time than its compilation


def weights_part(config) -> Part:
    """Every automaton whose multiplication table the layer has room for, at every length that the layer has room for,
    in every precision."""
    c, tasks = config.constructions.weights, tasks_of(config.constructions)
    check_numbers("constructions.weights.lengths", c.lengths)
    check_names("constructions.weights.dtypes", c.dtypes)
    for dtype in c.dtypes:
        build.choose(dtype, "constructions.weights.dtypes", DTYPES)
    if c.sweep.length < 2:
        raise ValueError(f"constructions.weights.sweep.length: N={c.sweep.length}: must be at least 2")
    check_numbers("constructions.weights.sweep.scales", c.sweep.scales, 1e-3, 1e3, whole=False)
    for field, length, words in (("lengths", c.lengths[-1], c.words), ("sweep.length", c.sweep.length, c.sweep.words)):
        what = f"attention scores of {words:,} words"
        check_size(f"constructions.weights.{field}", length, lambda n, words=words: _scores(words, n), SCORES, what)
    small = {name: task for name, task in tasks.items() if task.size <= c.most}
    room = lambda task, words, length: words * _cells(length) * task.size**2 <= HIDDEN
    fit = {name: [n for n in c.lengths if room(task, c.words, n)] for name, task in small.items()}
    swept = [name for name, task in small.items() if room(task, c.sweep.words, c.sweep.length)]
    jobs = {
        f"weights, {name}, N={length}, {dtype}": _recognised(tasks[name], config.seed, c.words, length, dtype)
        for name, lengths in fit.items()
        for length in lengths
        for dtype in c.dtypes
    }
    jobs |= {f"scales, {name}": _sweep(tasks[name], config.seed, c.sweep) for name in swept}
    left_out = [f"{name}: more than {c.most} elements" for name in tasks if name not in small]
    units = f"more than {HIDDEN:,} hidden units in a call"
    left_out += [f"{name}, N={n}: {units}" for name in small for n in c.lengths if n not in fit[name]]
    left_out += [f"{name}, scales: {units}" for name in small if name not in swept]
    return Part(jobs, lambda values: _told(c, fit, swept, left_out, values))


def _cells(length: int) -> int:
    """Of the canvas of a tree."""
    return 2 * length - 1


def _scores(words: int, length: int) -> int:
    """Of the two heads, each between all cells."""
    return 2 * words * _cells(length) ** 2


def _run(circuit: Circuit, planner, positions, key, words: int):
    """The engine on the layer with these weights, traced."""
    how = dict(vocab=circuit.vocab, key=key, draw=TokenDraw(0.0), trace=True)
    compiled = jit_briefly if _scores(words, circuit.inputs) <= BRIEFLY else jax.jit
    return compiled(lambda weights, tokens: sample(Explicit(weights, positions), planner, tokens, **how))


def _recognised(task: MonoidTask, seed: int, count: int, length: int, dtype: str):
    """(T, words with errors, cells wrongly selected, least margins of predictor and planner, eps) of real runs."""

    def job():
        circuit = tree(task, length)
        words = words_of(task, seed, count, length)
        denoiser, planner, positions = explicit_denoiser(circuit, dtype=DTYPES[dtype])
        run = _run(circuit, planner, positions, jax.random.key(seed), count)
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
        run = _run(circuit, planner, positions, jax.random.key(seed), c.words)
        found = (run(explicit_denoiser(circuit, scale)[0].weights, tokens).tokens for scale in c.scales)
        return [int((np.asarray(x) != right).any(1).sum()) for x in found]

    return job


def _told(
    c, fit: Mapping[str, Sequence[int]], swept: Sequence[str], left_out: Sequence[str], values: Mapping[str, np.ndarray]
) -> Found:
    rows, sweep, curves = [], [], {}
    for name, lengths in fit.items():
        for length in lengths:
            of = {dtype: values[f"weights, {name}, N={length}, {dtype}"] for dtype in c.dtypes}
            eps = of[c.dtypes[0]][5]
            row = {"automaton": name, "N": length, "steps": ", ".join(sorted({str(int(x[0])) for x in of.values()}))}
            row |= {"margins promised": f"{_promised(1 - 4 * eps)} / {_promised(0.5 - 2 * eps)}"}
            for dtype, x in of.items():
                row |= {f"{dtype}: errors": f"{int(x[1])} of {c.words}"}
                row |= {f"{dtype}: margins": f"{_margin(x[3])} / {_margin(x[4])}"}
            rows.append(row)
    for k, scale in enumerate(c.sweep.scales):
        wrong = {name: f"{int(values[f'scales, {name}'][k])} of {c.sweep.words}" for name in swept}
        eps = off_target(tree(monoid_task(parity()), c.sweep.length), scale)
        sweep.append({"c": scale, "eps at most": f"{eps:.3g}", "margin at least": _promised(1 - 4 * eps, 3)} | wrong)
    lengths = [n for n in c.lengths if n > 1 and any(n in of for of in fit.values())]
    for dtype in c.dtypes:
        least = [min(values[f"weights, {name}, N={n}, {dtype}"][3] for name in fit if n in fit[name]) for n in lengths]
        panel = "Least margin of the predictor, all automata"
        curves[dtype] = Curve(lengths, least, None, "logit", panel, "N", log=True)
    tables = {}
    if rows:
        tables["weights written down: least margins of predictor / planner"] = rows
    if swept:
        tables[f"scale c of the scores, {c.sweep.length} symbols: words with errors"] = sweep
    every = [x for job, x in values.items() if job.startswith("weights, ")]
    facts = {"cells that the layer's planner selects wrongly": sum(int(x[2]) for x in every)} if rows else {}
    if left_out:
        facts["no weights were written down"] = "; ".join(left_out)
    return Found("Weights", "", {}, tables, facts, curves)


def _margin(x: float, digits: int = 4) -> str:
    return f"{x:.{digits}g}" if math.isfinite(x) else "–"


def _promised(x: float, digits: int = 4) -> str:
    """A lower bound of a margin, which says nothing unless it is positive."""
    return _margin(x if x > 0 else math.inf, digits)

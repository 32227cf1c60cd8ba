"""What the order of writing does to a tree: how often planners respect it, and how often the answer is right."""

import fractions
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from experiments.expressivity_parts import Part, check_numbers, check_size, jit_briefly, share, task_of, words_of
from experiments.found import Found
from experiments.results import shown
from mdmjax.base import Estimate, Planner
from mdmjax.expressivity import (
    AtSteps,
    Circuit,
    Dependency,
    MonoidTask,
    Predictor,
    canvas,
    evaluate,
    order_statistics,
    read,
    tree,
    tree_order_probability,
    tree_steps_probability,
    valid_orders,
)
from mdmjax.process import Linear
from mdmjax.reports import Heatmap
from mdmjax.sampling import Ancestral, Confidence, FirstHitting, RandomCount, TokenDraw, sample, scores

GUESS = "the guess alone: the identity"
SEEN = 5  # valid orders that a simulation is expected to have, or it is left out
EXACTLY = 1024  # symbols, and steps, for which fractions are computed
CALL = 2**26  # logits of a call, or tokens of a trace


def blocks(circuit: Circuit, steps: int) -> np.ndarray:
    """The output cells from the left in `steps` blocks [T, L], as equal as can be."""
    cell = np.arange(circuit.length) - circuit.inputs
    return (cell >= 0) & (cell * steps // circuit.cells == np.arange(steps)[:, None])


# (circuit, T) -> planner with at most T calls, and whether it needs N - 1 of them where others need log N.
PLANNERS: dict[str, tuple[Callable[[Circuit, int], Planner], bool]] = {
    "dependency": (lambda c, t: Dependency(c.left, c.right, t), False),
    "by level": (lambda c, t: AtSteps(c.selected()[:t]), False),
    "confidence": (lambda c, t: Confidence(Linear(), t, score=scores.margin), True),
    "right to left": (lambda c, t: AtSteps(blocks(c, t)[::-1]), True),
    "left to right": (lambda c, t: AtSteps(blocks(c, t)), True),
    "uniform": (lambda c, t: RandomCount(Linear(), t), True),
    "independent steps": (lambda c, t: Ancestral(Linear(), t), False),
}


def planners_part(config) -> Part:
    """Valid orders, exactly and simulated; right answers by the number of steps, and by the length."""
    c = config.constructions.orders
    task = task_of(c.automaton, config.constructions.max_size, "constructions.orders.automaton")
    if c.independent > EXACTLY:
        raise ValueError(f"constructions.orders.independent={c.independent}: must be in 1..{EXACTLY}")
    check_numbers("constructions.orders.lengths", c.lengths, most=EXACTLY)
    check_numbers("constructions.orders.accuracy_lengths", c.accuracy_lengths, least=2)
    if c.length < 2:
        raise ValueError(f"constructions.orders.length: N={c.length}: must be at least 2")
    check_numbers("constructions.orders.steps", c.steps)
    if c.steps[-1] >= c.length:
        raise ValueError(
            f"constructions.orders.steps={tuple(c.steps)} with constructions.orders.length={c.length}: "
            f"must be in 1..{c.length - 1}, N - 1"
        )
    of_words = lambda length: c.words * (2 * length - 1) * max(length, task.size)
    for field, length in (("length", c.length), ("accuracy_lengths", c.accuracy_lengths[-1])):
        check_size(f"constructions.orders.{field}", length, of_words, CALL, f"tokens and logits of {c.words:,} words")
    if (size := c.rows * max(c.independent, task.size)) > CALL:
        raise ValueError(f"constructions.orders.rows={c.rows}: at most {c.rows * CALL // size:,}")
    jobs = {}
    for length in c.lengths:
        for name, (exact, planner) in _laws(length, c.independent).items():
            if SEEN <= exact * c.rows < c.rows:
                jobs[f"valid orders, {name}, N={length}"] = _valid(task, config.seed, c.rows, length, planner)
    pairs = [(c.length, t) for t in c.steps] + [
        (n, _steps(name, n)) for n in (c.length, *c.accuracy_lengths) for name in PLANNERS
    ]
    for name in PLANNERS:
        for length, steps in pairs:
            if length == c.length or steps == _steps(name, length):
                jobs[_name(name, length, steps)] = _right(task, config.seed, c.words, length, name, steps)
    return Part(jobs, lambda values: _told(c, task, values))


def _name(planner: str, length: int, steps: int) -> str:
    return f"order, {planner}, N={length}, T={steps}"


def _steps(planner: str, length: int) -> int:
    """What it has at its best: one cell a call, or ceil(log2 N)."""
    return length - 1 if PLANNERS[planner][1] else (length - 1).bit_length()


def _laws(length: int, steps: int) -> dict[str, tuple[fractions.Fraction, Planner]]:
    return {
        "one at a time": (tree_order_probability(length), FirstHitting()),
        "independent": (tree_steps_probability(length, steps), Ancestral(Linear(), steps)),
    }


def _valid(task: MonoidTask, seed: int, rows: int, length: int, planner: Planner):
    def job():
        found = order_statistics(tree(task, length), planner, jax.random.fold_in(jax.random.key(seed), length), rows)
        return [found.mean, found.standard_error]

    return job


def _right(task: MonoidTask, seed: int, count: int, length: int, name: str, steps: int):
    """(share of words with the right answer, share of them whose cells were written in a valid order)."""

    def job():
        circuit, words = tree(task, length), words_of(task, seed, count, length)
        planner = PLANNERS[name][0](circuit, steps)
        how = dict(vocab=circuit.vocab, key=jax.random.key(seed), draw=TokenDraw(0.0), trace=True)
        answer = circuit.readout[0]
        out = jit_briefly(lambda x: sample(Predictor(circuit), planner, x, **how))(jnp.asarray(canvas(circuit, words)))
        product = read(circuit, evaluate(circuit, words).tokens)[:, 0]
        right = np.asarray(out.tokens)[:, answer] == product  # a masked answer is a wrong one
        return [right.mean(), valid_orders(circuit, out.trace).mean()]

    return job


def guessed(task: MonoidTask, length: int) -> float:
    """P(the product of a uniform word is the identity, element 0), which the predictor guesses: exactly."""
    law = np.eye(task.size)[0]
    for _ in range(length):
        after = np.zeros(task.size)
        for label in task.label:
            np.add.at(after, task.mul[:, label], law / len(task.label))
        law = after
    return float(law[0])


def _told(c, task: MonoidTask, values: Mapping[str, np.ndarray]) -> Found:
    right = lambda name, length, steps: values[_name(name, length, steps)]
    at_best = lambda name, length: right(name, length, _steps(name, length))
    by_steps = [{"planner": name} | {f"T={t}": _share(right(name, c.length, t)) for t in c.steps} for name in PLANNERS]
    by_steps.append({"planner": GUESS} | {f"T={t}": f"{guessed(task, c.length):.3f}" for t in c.steps})
    by_length = [
        {"planner": name, "steps": "N - 1" if PLANNERS[name][1] else "ceil(log2 N)"}
        | {f"N={n}": _share(at_best(name, n)) for n in c.accuracy_lengths}
        for name in PLANNERS
    ]
    guesses = {n: guessed(task, n) for n in c.accuracy_lengths}
    by_length.append({"planner": GUESS, "steps": "–"} | {f"N={n}": f"{p:.3f}" for n, p in guesses.items()})
    picture = lambda found, names, over, xlabel: Heatmap(
        [[float(found(name, x)[0]) for x in over] for name in PLANNERS], names, [str(x) for x in over], "planner",
        xlabel, "share of right answers",
    )  # fmt: skip
    timed = [f"{name}, {'N - 1' if PLANNERS[name][1] else 'log N'} steps" for name in PLANNERS]
    maps = {
        f"Right answers by steps, {c.automaton}, N={c.length}": picture(
            lambda name, t: right(name, c.length, t), list(PLANNERS), c.steps, "T"
        ),
        f"Right answers by length, {c.automaton}": picture(at_best, timed, c.accuracy_lengths, "N"),
    }
    metrics = {
        f"right, {name}, {c.automaton}, N={c.length}, T={_steps(name, c.length)}": share(
            at_best(name, c.length)[0], c.words, "words"
        )
        for name in PLANNERS
    }
    title = f"right answers by planner and steps, {c.automaton}, {c.length} symbols"
    return Found(
        "Planners", "", metrics,
        {
            "probability of a valid order of the tree": _probabilities(c, values),
            f"{title} (share; in brackets: valid orders)": by_steps,
            f"right answers by planner and length, {c.automaton}": by_length,
        },
        heatmaps=maps,
    )  # fmt: skip


def _probabilities(c, values: Mapping[str, np.ndarray]) -> list[dict]:
    rows = []
    for length in c.lengths:
        row = {"N": length}
        for name, (law, _) in _laws(length, c.independent).items():
            found = values.get(f"valid orders, {name}, N={length}")
            head = name if name == "one at a time" else f"{name}, T={c.independent}"
            row |= {head: str(law), f"{head}: value": f"{float(law):.4g}"}
            simulated = "–" if found is None else shown(Estimate(*map(float, found), "", c.rows, ""))
            row |= {f"{head}: simulated": simulated}
        rows.append(row)
    return rows


def _share(value: np.ndarray) -> str:
    return f"{value[0]:.3f} ({value[1]:.3g})"

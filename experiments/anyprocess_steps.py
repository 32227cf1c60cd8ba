"""What a policy does step by step, against its teacher: on the teacher's states, and where its own runs go wrong."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.anyprocess_arms import NAMES, PolicyArm
from experiments.anyprocess_tasks import spread
from mdmjax import anyprocess, training
from mdmjax.anyprocess.losses import process_targets
from mdmjax.anyprocess.teachers import Move, State, apply
from mdmjax.base import Canvas, Trace


def on_teacher_states(arm: PolicyArm, params: Any) -> dict[str, Any]:
    """On held-out tuples, spread evenly over them: whether each next state is the teacher's, and how often each
    operation is right."""
    task = arm.task
    decoding = anyprocess.Decoding(tuple(arm.config.decode.thresholds))

    @jax.jit
    def check(params, batch):
        logits, controls = arm.policy(params)(batch["tokens"], batch["lengths"])
        keys = jax.random.split(jax.random.key(0), len(logits))
        made = jax.vmap(decoding)(keys, logits, controls)
        wanted = anyprocess.Controls(batch["values"], batch["remask"], batch["insert"], batch["delete"])
        room = batch["tokens"].shape[1]
        wide = lambda x, fill: jnp.pad(x, ((0, 0), (0, room)), constant_values=fill)  # so that nothing is cut off
        canvas = Canvas(wide(batch["tokens"], task.vocab + 1), batch["lengths"], jnp.zeros(len(logits), bool))
        padded = lambda controls: jax.tree.map(lambda x: wide(x, 0), controls)
        one, other = (anyprocess.transition(canvas, padded(c), vocab=task.vocab) for c in (made, wanted))
        same = (one.tokens == other.tokens).all(1) & (one.lengths == other.lengths)
        counts = anyprocess.decisions(controls, process_targets(batch, task.vocab), decoding.thresholds)
        return same, counts.total()

    c = arm.config.evaluate
    found = [jax.device_get(check(params, part)) for part in spread(arm.held_out, c.batch, 4 * c.batches)]
    same = np.concatenate([x for x, _ in found])
    counts = [sum(np.asarray(getattr(c, field)) for _, c in found) for field in ("hits", "decided", "wanted")]
    return {
        "states": len(same),
        "right": int(same.sum()),
        "decisions": {
            name: {"hits": int(h), "decided": int(d), "wanted": int(w)}
            for name, h, d, w in zip(anyprocess.CONTROLS, *counts, strict=True)
        },
    }


def traced(arm: PolicyArm, params: Any, chosen: Mapping[str, list[int]] | None = None) -> Trace:
    """The steps of some problems of a test; by default of the first problem of the last test without tapes, if any,
    whether it is solved or not."""
    tests = arm.task.tests
    if chosen is None:
        small = [name for name, p in tests.items() if not any(p.tapes or ())]
        chosen = {(small or list(tests))[-1]: [0]}
    ((name, indices),) = chosen.items()
    problems = tests[name]

    @jax.jit
    def run(params, canvas):
        return anyprocess.generate(
            arm.policy(params), canvas, vocab=arm.task.vocab, key=build.key(arm.config.seed, training.SAMPLING),
            limit=arm.task.limit, decoding=arm.decoding(), halting=arm.halting(problems.goal),
            ids=jnp.asarray(indices), trace=True,
        ).trace  # fmt: skip

    canvas = anyprocess.canvas_of([problems.starts[i] for i in indices], arm.task.room, vocab=arm.task.vocab)
    trace = jax.device_get(run(params, canvas))
    used = max(int((trace.steps >= 0).any(1).sum()), 1)
    return jax.tree.map(lambda x: x[: used + (len(x) > len(trace.steps))], trace)


def kinds(move: Move) -> str:
    """The operations of a move in words, such as "remask + unmask"."""
    unmask = any(y != anyprocess.IGNORE for y in move.values)
    happens = dict(unmask=unmask, remask=any(move.remask), insert=any(move.insert), delete=any(move.delete))
    return " + ".join(name for name in NAMES.values() if happens[name]) or "nothing"


def first_failures(arm: PolicyArm, params: Any, lines: Mapping[str, Any]) -> dict[str, Any]:
    """Of problems that come out wrong: at which step a run first leaves its teacher, what should have happened there,
    and how deep in its search it was."""
    out = {}
    for name, problems in arm.task.tests.items():
        wrong = [i for i, right in enumerate(lines[name]["policy"]["right"]) if not right]
        wrong = wrong[: arm.config.evaluate.failures]
        if not wrong or any(problems.tapes or ()) or arm.config.decode.draw:
            continue
        # a few slots of one size: the same compilation for every test
        slots = (wrong * arm.config.evaluate.failures)[: arm.config.evaluate.failures]
        trace = traced(arm, params, {name: slots})
        out[name] = [_failure(arm, trace, row) for row in range(len(wrong))]
    deep = hasattr(arm.task.teacher, "depth")
    return {name: _summed(rows, deep) for name, rows in out.items()}


def _failure(arm: PolicyArm, trace: Trace, row: int) -> dict[str, Any]:
    state_at = lambda n: tuple(trace.tokens[n, row, : trace.lengths[n, row]].tolist())
    depth = getattr(arm.task.teacher, "depth", lambda state: 0)
    for n in range(len(trace.steps)):
        if trace.steps[n, row] < 0:
            return {"step": n, "wanted": "to go on", "depth": depth(state_at(n))}
        state: State = state_at(n)
        try:
            move = arm.task.teacher(state)
        except anyprocess.GaveUp:
            return {"step": n, "wanted": "nothing that the teacher knows", "depth": depth(state)}
        after = state if move is None else apply(state, move, arm.task.vocab)
        if after != state_at(n + 1):
            return {"step": n, "wanted": "nothing" if move is None else kinds(move), "depth": depth(state)}
    return {"step": len(trace.steps), "wanted": "more steps than the limit", "depth": depth(state_at(-1))}


def _summed(rows: list[dict[str, Any]], deep: bool) -> dict[str, Any]:
    wanted = Counter(row["wanted"] for row in rows)
    depth = Counter(str(row["depth"]) for row in rows)
    return {
        "failures looked at": len(rows),
        "median first step that is not the teacher's": float(np.median([row["step"] for row in rows])),
        "what should have happened": dict(wanted.most_common()),
    } | ({"open branches there": dict(sorted(depth.items()))} if deep else {})

"""What preferences are about: sums, right and with a slip, rows of two Markov chains, or the pairs of a file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import laws, study_tasks
from experiments.fine_tuned import with_slips
from mdmjax import data, objectives, process
from mdmjax.base import Schedule


@dataclasses.dataclass(frozen=True)
class Task:
    """Pairs of answers to one prompt, the preferred one first."""

    vocabulary: data.Vocabulary
    pairs: data.PairSource  # to learn from
    held_out: data.PairSource  # of other prompts
    start: data.RowSource | None = None  # what a policy is fine-tuned on before it learns preferences
    judged: tuple[np.ndarray, np.ndarray] | None = None  # (tokens, eligible) [N, L] of prompts with an exact answer
    meta: dict = dataclasses.field(default_factory=dict)
    schedule: Schedule = process.Linear()  # of the times that the network is told
    nll: Callable = objectives.dense

    @property
    def length(self) -> int:
        return self.held_out.tokens.shape[2]

    @property
    def vocab(self) -> int:
        return self.vocabulary.size


def sums(c: ConfigDict, run: Any = None) -> Task:
    """Sums, right ones against those with a slip of the carry. The start reads sums of both kinds; the pairs, held-out
    pairs and what is judged are of other sums."""
    if run is not None:
        raise ValueError("start.run: sums have a start of their own; leave it out, or give task='pairs' and data.path")
    for name in ("rows", "pairs", "judged", "held_out"):
        if c[name] < 2:
            raise ValueError(f"data.{name}={c[name]}: must be at least 2")
    sizes = np.cumsum([c.rows, c.pairs, c.held_out, c.judged])
    if not 1 <= c.digits <= 3 or sizes[-1] > 100**c.digits:
        raise ValueError(
            f"data.digits={c.digits}: must be in 1..3, with at least as many sums, 100^digits, as data.rows, pairs, "
            f"held_out and judged together, {sizes[-1]}"
        )
    made = data.sums(c.digits)
    right = np.split(made.rows[: sizes[-1]], sizes[:-1])
    slipped = [data.carry_slips(rows) for rows in right]
    where = lambda rows: np.broadcast_to(made.eligible, rows.shape)

    def pairs(part: int) -> data.PairSource:
        tokens = np.stack([right[part], slipped[part]], 1)
        return data.PairSource(tokens, where(tokens))

    start = with_slips(c.slips, right[0], slipped[0])
    wrong = (start != right[0]).any(1)
    return Task(
        made.vocabulary, pairs(1), pairs(2), data.RowSource(start, where(start)), (right[3], where(right[3])),
        {"name": f"sums of {c.digits} digits", "slips that the start reads": float(wrong.mean())},
    )  # fmt: skip


def markov(c: ConfigDict, run: Any = None) -> Task:
    """Rows of one Markov chain preferred to rows of another one, without prompts; the start learns both of them, and
    what is measured is measured on the first pairs, which are learned from too."""
    if run is not None:
        raise ValueError("start.run: chains have a start of their own; leave it out")
    if min(c.states, c.length, c.pairs) < 2:
        raise ValueError(
            f"data.states={c.states}, data.length={c.length}, data.pairs={c.pairs}: each must be at least 2"
        )
    (good, characters), (other, _) = (study_tasks.chain(c.pairs, c.length, c.states, seed) for seed in (0, 1))
    tokens, rows = np.stack([good, other], 1), np.concatenate([good, other])
    pairs = data.PairSource(tokens, np.ones(tokens.shape, bool))
    start = data.RowSource(rows, np.ones(rows.shape, bool))
    return Task(characters, pairs, pairs, start, meta={"name": f"one Markov chain of {c.states} states or another"})


def of_file(c: ConfigDict, run: Any = None) -> Task:
    """The pairs of a file, in the vocabulary, the length and the format of the run that is the start; held out are all
    pairs of some prompts."""
    if run is None:
        raise ValueError("start.run is empty, and task='pairs' needs a run of experiments.train to start from")
    if not c.path:
        raise ValueError(f"data.path is empty, and task='pairs' needs a file with {', '.join(c.fields)} on each line")
    if len(c.fields) != 3:
        raise ValueError(f"data.fields={tuple(c.fields)}: must be three, of prompt, preferred and other answer")
    if run.experiment.autoregressive:
        raise ValueError(f"start.run={run.workdir}: an autoregressive model has no masks; give a masked diffusion run")
    records, of_run = data.read_records(c.path, tuple(c.fields)), run.experiment.config
    told = of_run.data.source == "answers"  # how a prompt and its answer stand in a row; else as by default
    shape = dict(between=of_run.data.between, end=of_run.data.end) if told else {}
    layout = data.Layout(run.vocabulary, run.experiment.length, fill=not run.experiment.model.config.pads, **shape)
    made = data.preference_pairs(records, layout, tuple(c.fields))
    prompts: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        prompts.setdefault(record.fields[c.fields[0]], []).append(i)
    groups = list(prompts.values())
    if not 2 <= c.held_out < len(groups):
        raise ValueError(f"data.held_out={c.held_out}: must be at least 2, and fewer than the {len(groups)} prompts")
    cut = lambda part: data.PairSource(made.tokens[part], made.eligible[part], made.lines[part])
    # every k-th prompt, so that what a file is sorted by is in both
    chosen = [i for k in range(c.held_out) for i in groups[k * len(groups) // c.held_out]]
    rest = np.setdiff1d(np.arange(len(made)), chosen)
    meta = {
        "name": Path(c.path).name,
        "pairs": len(made),
        "prompts": len(groups),
        "start": run.workdir,
        "step": run.step,
    }
    meta["sha256"] = data.content_hash(c.path)
    return Task(
        run.vocabulary, cut(rest), cut(chosen), meta=meta, schedule=laws.schedule(of_run.law, "law"),
        nll=run.experiment.nll(groups=1),
    )  # fmt: skip


TASKS = dict(sums=sums, markov=markov, pairs=of_file)

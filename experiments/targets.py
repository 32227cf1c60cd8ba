"""What a schedule is judged by: targets that are sampled with any schedule of T steps, by one compiled sampler."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build, runs
from mdmjax import analysis, sampling
from mdmjax.evaluation import ngrams
from mdmjax.process import OnGrid

PLANNERS = ("ancestral", "random_count", "confidence")  # those that a schedule makes a difference to
TOYS = dict(extreme=analysis.extreme_law, middle=analysis.middle_law)


@dataclasses.dataclass(frozen=True)
class Target:
    """Rows to complete and how good a completion is: `score(part, rows, tokens) -> [B]`, of `unit`.

    A part is a set of rows that shares nothing with another part: "search", and "held-out" for what was found.
    """

    name: str
    bind: Callable  # params -> denoiser
    params: Any
    vocab: int
    length: int
    masks: int  # of the length, those that are to be filled in
    canvas: Callable[[str, np.ndarray], np.ndarray]  # (part, row numbers) -> tokens with masks
    score: Callable[[str, np.ndarray, np.ndarray], np.ndarray]
    metric: str
    unit: str
    higher: bool  # is better
    curve: Callable[[], np.ndarray]  # h(0..L) of `analysis.information`
    rows: dict[str, int] | None = None  # how many there are of each part; None: as many as one likes
    statistic: tuple[str, Callable[[np.ndarray], float]] | None = None  # of all sampled tokens at once, and its name
    place: Callable[[str, np.ndarray], np.ndarray] = lambda part, rows: rows  # of rows in a text
    identity: dict = dataclasses.field(default_factory=dict)  # what the numbers belong to
    dtype: str = "float32"  # of the network


def sampler(target: Target, planner: str, steps: int, draw=sampling.TokenDraw(), batch: int = 64, seed: int = 0):  # noqa: B008
    """`complete(schedule, part, start, stop) -> tokens [stop - start, L]`: compiled once for all schedules of T steps.

    A row's randomness is that of its number and part, the same for every schedule: differences have less noise.
    """
    if planner not in PLANNERS:
        raise ValueError(f"planners: {planner!r}; choose from {', '.join(PLANNERS)}")
    length = target.length
    capacity = None if planner == "confidence" else min(length, 3 + -(-2 * length // steps))

    @jax.jit
    def run(params, schedule, tokens, key, ids):
        return sampling.sample(
            target.bind(params), build.planner(planner, "planners", schedule, steps, target.dtype), tokens,
            vocab=target.vocab, key=key, ids=ids, draw=draw, capacity=capacity,
        ).tokens  # fmt: skip

    def complete(schedule: OnGrid, part: str, start: int, stop: int) -> np.ndarray:
        key = build.key(seed, 100 + PARTS.index(part))
        placed = OnGrid(*(jnp.asarray(x, jnp.result_type(float)) for x in (schedule.visible, schedule.hidden)))
        tokens = []
        for first in range(start, stop, batch):
            rows = np.arange(first, first + batch)
            tokens.append(run(target.params, placed, jnp.asarray(target.canvas(part, rows)), key, jnp.asarray(rows)))
        return np.concatenate(tokens)[: stop - start]

    return complete


PARTS = ("search", "held-out")


def toy(name: str) -> Target:
    """A law on five bits, sampled: the share of samples that are possible at all."""
    law = build.choose(name, "toy", TOYS)()
    masks = lambda part, rows: np.full((len(rows), law.ndim), 2, np.int32)
    possible = lambda part, rows, tokens: (law[tuple(tokens.T)] > 0).astype(float)
    table = analysis.table_denoiser(analysis.true_conditionals(law).astype(np.float32))
    return Target(
        name, lambda table: table, table, 2, law.ndim, law.ndim, masks, possible, "possible samples", "share", True,
        lambda: analysis.information_curve(law),
    )  # fmt: skip


def chain(c: ConfigDict) -> Target:
    """A Markov chain with its true conditionals: -log p of a sample less the entropy, on average 0 if exact."""
    markov = analysis.MarkovChain(analysis.cycle(c.vocab, c.noise), c.length)
    masks = lambda part, rows: np.full((len(rows), c.length), c.vocab, np.int32)
    entropy = markov.entropy
    excess = lambda part, rows, tokens: -markov.log_prob(tokens) - entropy

    def pairs(tokens: np.ndarray) -> float:
        found = np.zeros((c.vocab, c.vocab))
        np.add.at(found, (tokens[:, :-1], tokens[:, 1:]), 1)
        return analysis.total_variation(found / found.sum(), markov.pairs())

    return Target(
        "chain", lambda denoiser: denoiser, markov.denoiser(), c.vocab, c.length, c.length, masks, excess,
        "-log p of a sample, less the entropy", "nats", False, markov.information_curve,
        statistic=("total variation of neighbours", pairs),
    )  # fmt: skip


def checkpoint(config: ConfigDict, say: Callable) -> Target:
    """A trained model, by `metric`, on held-out rows of which a share `checkpoint.hidden` is hidden at random.

    `infill`: the share of hidden tokens that are restored. `rows`: the share of rows that are restored as a whole, the
    accuracy of a task. `ngram`: bits of a sampled token under the order-4 n-gram of the training text, which samples
    that repeat themselves make small too; see the entropy beside it.
    """
    c = config.checkpoint
    trained = runs.load(c.run, c.which, say)
    experiment, corpus = trained.experiment, trained.data()
    if experiment.autoregressive:
        raise ValueError(f"checkpoint.run={c.run}: an autoregressive model has no schedule")
    if experiment.config.network.time:
        raise ValueError(f"checkpoint.run={c.run}: this model is told the time, so it has one schedule only")
    vocab, length, model = experiment.vocab, experiment.length, experiment.model
    if c.curve_rows < 1:
        raise ValueError(f"checkpoint.curve_rows={c.curve_rows}: must be at least 1")
    splits = dict(zip(PARTS, (c.split, c.held_out), strict=True))
    if c.split == c.held_out or "test" in c.split:
        raise ValueError(
            f"checkpoint.split={c.split!r}, checkpoint.held_out={c.held_out!r}: a search must not see the test split, "
            "nor the split that it is judged on; give for example validation and test"
        )
    for split in splits.values():
        if split not in corpus.splits:
            raise ValueError(f"checkpoint.split={split!r}: the data's splits are {', '.join(corpus.splits)}")

    held = {part: np.asarray(build.rows_of(corpus.splits[split], length, split)[0]) for part, split in splits.items()}
    curve = lambda: _curve(model, trained.params, held["search"], vocab, c.curve_rows)
    identity = {"run": c.run, "step": trained.step, "data": corpus.meta["sha256"]}
    common = dict(bind=model.bind, params=trained.params, vocab=vocab, length=length, curve=curve, identity=identity,
                  dtype=experiment.config.network.dtype)  # fmt: skip
    available = {part: len(rows) for part, rows in held.items()}

    def infill(whole: bool = False) -> Target:
        if not 0 < c.hidden <= 1:
            raise ValueError(f"checkpoint.hidden={c.hidden}: must be in (0, 1], a share of each row")
        count = max(1, round(c.hidden * length))

        def place(part, rows):  # a last batch may be filled up
            return np.random.default_rng(config.seed).permutation(len(held[part]))[rows % len(held[part])]

        given = lambda part, rows: held[part][place(part, rows)]

        def hidden(part, rows):
            places = np.stack([np.random.default_rng((config.seed, row)).permutation(length) for row in rows])
            return places < count

        canvas = lambda part, rows: np.where(hidden(part, rows), vocab, given(part, rows)).astype(np.int32)

        def restored(part, rows, tokens):
            right = ((tokens == given(part, rows)) & hidden(part, rows)).sum(1) / count
            return (right == 1).astype(float) if whole else right

        metric = "rows restored as a whole" if whole else "hidden tokens restored"
        return Target("whole rows" if whole else "infill", canvas=canvas, score=restored, metric=metric, unit="share",
                      higher=True, rows=available, place=place, masks=count, **common)  # fmt: skip

    def ngram() -> Target:
        if corpus.splits["train"].ndim != 1:
            raise ValueError("metric='ngram' needs a text: choose infill")
        judge = ngrams.fit(corpus.splits["train"], vocab)
        masks = lambda part, rows: np.full((len(rows), length), vocab, np.int32)
        bits = lambda part, rows, tokens: np.array([-np.log2(judge.probabilities(row)[-1]).mean() for row in tokens])

        def diversity(tokens: np.ndarray) -> float:
            p = np.bincount(tokens.ravel(), minlength=vocab) / tokens.size
            return float(-(p[p > 0] * np.log2(p[p > 0])).sum())

        return Target("ngram", canvas=masks, score=bits, metric="samples under the order-4 n-gram of the training text",
                      unit="bits/token", higher=False, masks=length,
                      statistic=("entropy of single tokens, bits", diversity), **common)  # fmt: skip

    return build.choose(config.metric, "metric", dict(infill=infill, rows=lambda: infill(True), ngram=ngram))()


def _curve(model, params, rows: np.ndarray, vocab: int, count: int) -> np.ndarray:
    """The model's information curve: h(m + 1) - h(m) is its loss on a random hidden token where m are visible.

    In each row the m + 1 visible positions are the m before and one more, so that noise is common to all m.
    """
    length = rows.shape[1]
    rows = rows[np.arange(count) * len(rows) // count] if count < len(rows) else rows
    batch = jnp.asarray(rows.astype(np.int32))

    @jax.jit
    def losses(params, visible, key):
        places = jnp.argsort(jax.random.uniform(key, batch.shape), axis=1)
        hidden = places >= visible
        logits = model.bind(params)(jnp.where(hidden, vocab, batch)).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, batch[..., None], axis=2)[..., 0]
        return jnp.where(hidden, jax.nn.logsumexp(logits, axis=2) - chosen, 0).sum() / hidden.sum()

    key = jax.random.key(0)
    return np.cumsum([0, *(float(losses(params, m, key)) for m in range(length))])

"""From a config to the library's objects: here and in `laws` strings choose, and nowhere else."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from experiments.laws import SPREADS, choose, law_of, refit_of, schedule
from experiments.planners import planner
from mdmjax import data, evaluation, networks, objectives, process, sampling, training, variance
from mdmjax.data import Corpus, Vocabulary


def adamw(c: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser of a `train` group of fields, and its rate. ValueError that names the field."""
    check_optimizer(c)
    return training.adamw(
        learning_rate=c.learning_rate, steps=c.steps, warmup=c.warmup, final=c.final, weight_decay=c.weight_decay,
        b1=c.b1, b2=c.b2, clip=c.clip, muon=c.get("muon", 0.0),
    )  # fmt: skip


def check_optimizer(c: ConfigDict) -> None:
    """ValueError that names a field of a `train` group where an optimiser cannot have its value."""
    for name in ("learning_rate", "clip"):
        if not c[name] > 0:
            raise ValueError(f"train.{name}={c[name]}: must be > 0")
    for name in ("b1", "b2", "average"):
        if not 0 <= c[name] < 1:
            raise ValueError(f"train.{name}={c[name]}: must be in [0, 1)")
    for name in ("weight_decay", "final"):
        if not c[name] >= 0:
            raise ValueError(f"train.{name}={c[name]}: must be at least 0")
    if not 0 <= c.warmup < c.steps:
        raise ValueError(f"train.warmup={c.warmup}: must be at least 0 and less than train.steps={c.steps}")
    if not c.get("muon", 0.0) >= 0:
        raise ValueError(f"train.muon={c.muon}: must be a learning rate, or 0 for none")


def check_positive(config: ConfigDict, names: Sequence[str]) -> None:
    """ValueError that names the first of these fields, such as train.steps, that is less than 1."""
    for name in names:
        if (value := functools.reduce(lambda group, field: group[field], name.split("."), config)) < 1:
            raise ValueError(f"{name}={value}: must be at least 1")


def arms_of(config: ConfigDict) -> list[str]:
    """The names of the arms. ValueError where there are none, or one twice."""
    names = list(config.arms)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"arms={tuple(names)}: at least one, each named once")
    return names


def key(seed: int, use: int) -> Key[Array, ""]:
    """The key of one use of a run's randomness, such as `training.SAMPLING`."""
    return jax.random.fold_in(jax.random.key(seed), use)


def check_path(c: ConfigDict) -> None:
    """ValueError where the data of a config are not those of the path that it names: `:quick` needs no file."""
    if c.path and c.source in ("python_docs", "tfds", "bayes", "synthetic"):
        raise ValueError(
            f"data.path={c.path!r} is not read, for data.source={c.source!r}: leave the path away, or name the source "
            "that reads it (--config.data.source=text, or table)"
        )


def corpus(config: ConfigDict, vocabulary: Vocabulary | None = None, path: str | dict | None = None) -> Corpus:
    """The data of a config. `vocabulary` is that of a trained model; `path` replaces the config's own text or table."""
    c = config.data
    check_path(c)
    if c.source in (kinds := dict(text="text file, or of a folder of them", table="CSV file", answers="JSONL file")):
        if not (path or c.path):
            raise ValueError(f"data.path is empty, and data.source={c.source!r} needs the path of a {kinds[c.source]}")
    if vocabulary is None and c.source != "table":
        if c.vocabulary == "bytes":
            vocabulary = data.Bytes()
        elif c.vocabulary != "characters":
            vocabulary = data.HuggingFace.from_file(c.vocabulary)
    cache = c.cache_dir or None
    if len(c.fields) != 2:
        raise ValueError(f"data.fields={tuple(c.fields)}: must be two, of the prompt and of the answer")
    of_file = functools.partial(
        data.answers, length=c.length, fields=tuple(c.fields), between=c.between, end=c.end, fill=c.fill,
        skip_longer=c.skip_longer, pack=c.pack,
    )  # fmt: skip
    if path is not None and c.source == "answers":
        return of_file(path, vocabulary, {"text": 1.0})
    if path is not None and c.source == "table":
        return data.table(path, {"text": 1.0}, vocabulary=vocabulary)
    if path is not None:
        return data.text_files(path, vocabulary, {"text": 1.0}, cache_dir=cache)
    sources = dict(
        python_docs=lambda: data.python_docs(vocabulary, cache_dir=cache),
        text=lambda: data.text_files(c.path, vocabulary, cache_dir=cache),
        table=lambda: data.table(c.path, vocabulary=vocabulary),
        answers=lambda: of_file(c.path, vocabulary),
        tfds=lambda: data.tfds(
            c.name,
            vocabulary,
            {k: v for k, v in c.splits.items() if v} or None,
            feature=c.feature,
            data_dir=c.data_dir or None,
            download=c.download,
            cache_dir=cache,
        ),
    )
    return choose(c.source, "data.source", sources)()


def rows_of(
    tokens: np.ndarray, length: int, split: str, eligible: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [N, L], scored [N, L]) of a held-out text or table, or of rows whose prompts are not `eligible`.
    ValueError where they are too few for an error."""
    least = 2 if tokens.ndim == 2 else length + 1  # two rows
    if len(tokens) < least:
        raise ValueError(
            f"the {split} split has {len(tokens)} {'rows' if tokens.ndim == 2 else 'tokens'}, and for an error bar it "
            f"needs at least {least}: give more data" + (f", or a length below {length}" if tokens.ndim == 1 else "")
        )
    if tokens.ndim == 2:
        return tokens, np.ones(tokens.shape, bool) if eligible is None else eligible
    return data.evaluation_windows(tokens, length)


def spaced(rows: tuple[np.ndarray, np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most that many rows, evenly spaced; all for 0. ValueError for 1, which has no error bar."""
    if most == 1 or most < 0:
        raise ValueError(f"{most} rows: an error bar needs at least 2 (0: all of them)")
    count = len(rows[0])
    if not 0 < most < count:
        return rows
    kept = np.arange(most) * count // most
    return rows[0][kept], rows[1][kept]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a training config stands for, given the size of the vocabulary. Everything is made when asked for."""

    config: ConfigDict
    vocab: int
    length: int
    devices: Sequence[Any] | None = None  # of the mesh, which may be those of a topology; None: all that are present

    def __post_init__(self):
        c = self.config.train
        for name in ("steps", "log_every", "evaluate_every", "checkpoint_every", "keep", "micro"):
            if c[name] < 1:
                raise ValueError(f"train.{name}={c[name]}: must be at least 1")
        parts = self.layout.shards * c.micro
        devices = jax.device_count() if c.batch and self.config.parallel == "pmap" else 1
        for name, batch in (("train.batch", c.batch), ("evaluate.batch", self.config.evaluate.batch)):
            divisor = (parts if name == "train.batch" else self.layout.shards) * devices
            if batch < 1 or batch % divisor:
                raise ValueError(
                    f"{name}={batch} must be a multiple of {divisor} (devices that share a batch, times micro-batches)"
                )

    @functools.cached_property
    def layout(self) -> training.MeshLayout | training.PmapLayout:
        mesh = lambda: training.MeshLayout(training.make_mesh(**self.config.mesh, devices=self.devices))
        return choose(self.config.parallel, "parallel", dict(mesh=mesh, pmap=training.PmapLayout))()

    @property
    def autoregressive(self) -> bool:
        return choose(self.config.objective, "objective", dict(masked_diffusion=False, autoregressive=True))

    @functools.cached_property
    def model(self) -> networks.Model:
        c = self.config.network
        if self.autoregressive and c.time:
            raise ValueError("network.time=True: an autoregressive model has no time; use network.time=False")
        mesh = getattr(self.layout, "mesh", None)
        attention = dict(xla=networks.xla, cudnn=networks.cudnn, splash=networks.Splash(mesh))
        dtype = choose(c.dtype, "network.dtype", dict(float32=jnp.float32, bfloat16=jnp.bfloat16))
        placed = {} if mesh is None else dict(constrain=self.layout.constrain, gather=self.layout.gather)
        return networks.transformer(
            networks.TransformerConfig(
                vocab=self.vocab,
                length=self.length,
                width=c.width,
                depth=c.depth,
                heads=c.heads,
                kv_heads=c.kv_heads or None,
                ff=c.ff or None,
                qk_norm=c.qk_norm,
                time=c.time,
                tied=c.tied,
                causal=self.autoregressive,
                attention=choose(c.attention, "network.attention", attention),
                pads=self.config.data.source == "answers" and not self.config.data.fill,
                dtype=dtype,
                scan=c.scan,
                remat=c.remat,
                **placed,
            )
        )

    def check_attention(self) -> None:
        """Lowers the attention alone, for this length and these devices. ValueError where it is not to be had there.

        Lowering the whole step says the same, and takes ten times as long: a second at the size of the demo.
        """
        c = self.model.config
        shape = lambda heads: (self.layout.shards, self.length, heads, c.width // c.heads)
        q, k = (jax.ShapeDtypeStruct(shape(heads), c.dtype) for heads in (c.heads, c.key_heads))
        jax.jit(functools.partial(c.attention, causal=c.causal)).lower(q, k, k)

    def nll(self, capacity: float | Callable = 1.0, groups: int | None = None) -> Callable:
        """The cross-entropy, `capacity` being the share of the positions that is read out in one call.

        The rows are packed in `groups`: one for each device that shares a batch, if not given.
        """
        c = self.config.readout
        name = c.name if c.name != "auto" else ("packed" if self.vocab >= 1000 else "dense")
        packed = objectives.Packed(capacity, groups=groups or self.layout.shards, chunk=c.chunk)
        return choose(name, "readout.name", dict(dense=objectives.dense, packed=packed))

    @property
    def law(self):
        return law_of(self.config, self.vocab)

    @property
    def refit(self) -> variance.Refit | None:
        """What fits the law anew during a run, where it is one that is fitted."""
        c = self.config.law
        if self.autoregressive or c.name != "importance":
            return None
        if c.refit_every < 1:
            raise ValueError(f"law.refit_every={c.refit_every}: must be at least 1")
        gradient = choose(c.probe, "law.probe", dict(loss=False, gradient=True))
        if gradient and self.config.network.attention == "splash":
            raise ValueError("law.probe='gradient' takes one row at a time, which network.attention='splash' cannot")
        rows = -(-c.probe_rows // self.layout.shards) * self.layout.shards  # splash shares rows out
        return refit_of(c, self.vocab, gradient, "law.", rows=rows, nll=self.nll(groups=1), axis=self.layout.axis)

    @property
    def baseline(self) -> variance.Baseline | None:
        """What the logged loss is held against, where that is asked for. ValueError that names the field."""
        c = self.config.baseline
        if c.bins == 0:
            return None
        if self.autoregressive:
            raise ValueError(f"baseline.bins={c.bins}: an autoregressive model hides nothing; use 0")
        coefficient = choose(c.coefficient, "baseline.coefficient", dict(fitted=None, one=1.0))
        try:
            return variance.Baseline.start(c.bins, c.rate, coefficient)
        except ValueError as error:
            raise ValueError(f"baseline.{error}") from None

    @property
    def objective(self) -> Callable:
        if self.autoregressive:
            return objectives.Autoregressive(self.nll())
        law = self.config.law
        spread_evenly = (law.name, law.spread, law.ways) == ("exact_count", "systematic", "single")
        nll = self.nll(objectives.systematic_share if spread_evenly else 1.0)
        own = process.ExactCount() if self.refit else self.law  # a law that is fitted is the state's
        return objectives.MaskedDiffusion(self.vocab, own, nll)

    @functools.cached_property
    def optimizer(self):
        return adamw(self.config.train)

    def make_state(self) -> training.TrainState:
        """The state before the first step; traced, never called as it is."""
        law = None if self.refit is None else self.law
        seed = jax.random.key(self.config.seed)
        return training.init_state(self.model.init, self.optimizer[0], seed, law, self.baseline)

    @property
    def step(self) -> training.Step:
        c = self.config.train
        optimizer, rate = self.optimizer
        return training.Step(
            self.model.bind, self.objective, optimizer, rate, size=c.batch, average_decay=c.average, micro=c.micro,
            shards=self.layout.shards, axis=self.layout.axis, refit=self.refit, refit_every=self.config.law.refit_every,
        )  # fmt: skip

    def scorer(self, draws: int, groups: int, counts: str = "systematic") -> Callable:
        """The bound's scorer, always under the exact-count law, whatever the training law is; `counts` says how the
        numbers of masks are spread over the draws, or that all masks are enumerated."""
        spread = choose(counts, "counts", SPREADS | dict(enumerate=None))
        if self.autoregressive:
            return evaluation.ExactScorer(self.nll())
        if spread is None:
            if self.config.network.time:
                raise ValueError("counts='enumerate': this model is told the time, and masks alone have none")
            return evaluation.EnumeratedScorer(self.vocab, nll=self.nll())
        law = process.ExactCount(spread, schedule(self.config.law, "law"))
        return evaluation.Scorer(self.vocab, draws, groups, law, self.nll(objectives.independent_share))

    @property
    def estimator(self) -> str:
        return "exact chain rule" if self.autoregressive else "exact-count negative ELBO"

    def score(self, draws: int, groups: int, seed: int, counts: str = "systematic") -> Callable:
        """The evaluation step `(params, batch) -> nats [B, groups]`, compiled once."""
        root, scorer = key(seed, training.EVALUATION), self.scorer(draws, groups, counts)
        return self.layout.map(lambda params, batch: scorer(self.model.bind(params), batch, root))

    def row_scorer(self, draws: int, groups: int, batch: int, seed: int, counts: str = "systematic") -> Callable:
        """`nats(params, rows, progress) -> [N, groups]`, compiled once. Its draws depend on `seed` and the row only."""
        score = self.score(draws, groups, seed, counts)
        rank, ranks = self.layout.share

        def nats(params, rows, progress=lambda rows: None) -> np.ndarray:
            return evaluation.score_rows(
                functools.partial(score, params), *rows, size=batch, put=self.layout.put, progress=progress, rank=rank,
                ranks=ranks,
            )  # fmt: skip

        return nats

    def evaluator(self, draws: int, groups: int, batch: int, seed: int) -> Callable:
        """`evaluate(params, rows, progress) -> Bound`: the summary of `row_scorer`."""
        nats = self.row_scorer(draws, groups, batch, seed)
        return lambda params, rows, *progress: evaluation.summarise(
            nats(params, rows, *progress), rows[1].sum(1), self.estimator
        )

    def planner(self, c: ConfigDict):
        """The planner of a `sample` group of fields."""
        name = c.planner
        if name == "auto":
            name = "left_to_right" if self.autoregressive else "first_hitting"
        if self.autoregressive and name != "left_to_right":
            raise ValueError(f"sample.planner={name!r}: an autoregressive model samples with left_to_right only")
        if c.schedule_args and not c.schedule:
            raise ValueError(f"sample.schedule_args={tuple(c.schedule_args)} without sample.schedule: give that too")
        law, given = schedule(self.config.law, "law"), schedule(c, "sample") if c.schedule else None
        if self.config.network.time and given not in (None, law):
            raise ValueError(
                f"sample.schedule={c.schedule!r}: this model is told the time, and knows that of law.schedule="
                f"{self.config.law.schedule!r} only: leave sample.schedule empty"
            )
        made = planner(name, "sample.planner", given or law, c.steps, self.config.network.dtype, c)
        if c.rounding != "nearest":
            if not hasattr(made, "rounding"):
                raise ValueError(
                    f"sample.rounding={c.rounding!r}: only confidence, random_count, path_planning have counts to round"
                )
            made = dataclasses.replace(made, rounding=c.rounding)
        if not 0 <= c.block <= self.length:
            raise ValueError(f"sample.block={c.block}: must be in 0..{self.length}; 0 is the whole row")
        return sampling.Blocks(made, c.block) if c.block else made

    def sampler(self, c: ConfigDict, trace: bool = False) -> Callable:
        """`run(params, tokens, key)`, compiled once, from a `sample` group of fields."""
        if c.capacity < 0:
            raise ValueError(f"sample.capacity={c.capacity}: must be at least 1, or 0 for a guess")
        draw, planner, model = sampling.TokenDraw(c.temperature, c.top_p), self.planner(c), self.model
        # Twice what a step reveals on average, and a little: more is rare. A planner that ranks looks at all.
        inside = planner.planner if c.block else planner
        guess = None if hasattr(inside, "tie") else 3 + -(-2 * self.length // max(c.steps, 1))
        if isinstance(model.config.attention, networks.Splash) and c.rows % self.layout.shards:
            # The kernel cannot share out so few rows: every device works on all of them.
            attention = dataclasses.replace(model.config.attention, batch_axes=())
            model = networks.transformer(dataclasses.replace(model.config, attention=attention))
        bind = model.bind
        if isinstance(inside, sampling.InformedCorrector):
            bind = lambda params: sampling.MaskOne(model.bind(params), self.vocab)
        if not -1 <= c.guidance < math.inf or (c.guidance and self.autoregressive):
            raise ValueError(
                f"sample.guidance={c.guidance}: must be finite, at least -1, and 0 for autoregressive models"
            )
        return sampling.jit_sampler(
            bind, planner, vocab=self.vocab, guidance=c.guidance, draw=draw, capacity=c.capacity or guess, trace=trace
        )

    def canvas(self, vocabulary: Vocabulary, rows: int, prompt: str = "") -> np.ndarray:
        """Rows of masks [rows, L] that start with the prompt. ValueError where it does not fit or has no token."""
        if rows < 1:
            raise ValueError(f"sample.rows={rows}: must be at least 1")
        tokens = np.full((rows, self.length), self.vocab, np.int32)
        given = vocabulary.encode(prompt) if prompt else np.zeros(0, np.int32)
        if len(given) > self.length:
            raise ValueError(
                f"the prompt has {len(given)} tokens and the model's length is {self.length}: "
                f"shorten it to {self.length} tokens at most"
            )
        tokens[:, : len(given)] = given
        return tokens

"""From a config to the library's objects: the only place where strings choose."""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mdmjax import data, evaluation, networks, objectives, process, sampling, training
from mdmjax.data import Corpus, Vocabulary
from mdmjax.reports import to_json, write_atomic

SCHEDULES = dict(
    linear=process.Linear,
    cosine=process.Cosine,
    sine_squared=process.SineSquared,
    polynomial=process.Polynomial,
    geometric=process.Geometric,
)
SPREADS = dict(iid=process.iid, stratified=process.stratified, systematic=process.systematic)
PLANNERS = dict(
    first_hitting=lambda schedule, steps: sampling.FirstHitting(schedule),
    left_to_right=lambda schedule, steps: sampling.LeftToRight(schedule),
    ancestral=sampling.Ancestral,
    confidence=sampling.Confidence,
    random_count=sampling.RandomCount,
)


def choose(name: str, field: str, choices: dict[str, Any]) -> Any:
    """The choice of that name. ValueError that names the field and all choices for any other."""
    if name not in choices:
        raise ValueError(f"{field}={name!r}: choose one of {', '.join(choices)}")
    return choices[name]


def corpus(config: ConfigDict, vocabulary: Vocabulary | None = None, path: str | dict | None = None) -> Corpus:
    """The data of a config. `vocabulary` is that of a trained model; `path` replaces the config's own text."""
    c = config.data
    if vocabulary is None and c.source != "table":
        if c.vocabulary == "bytes":
            vocabulary = data.Bytes()
        elif c.vocabulary != "characters":
            vocabulary = data.HuggingFace.from_file(c.vocabulary)
    cache = c.cache_dir or None
    if path is not None:
        return data.text_files(path, vocabulary, {"text": 1.0}, cache_dir=cache)
    sources = dict(
        python_docs=lambda: data.python_docs(vocabulary, cache_dir=cache),
        text=lambda: data.text_files(c.path, vocabulary, cache_dir=cache),
        table=lambda: data.table(c.path),
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


def rows_of(tokens: np.ndarray, length: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [N, L], scored [N, L]) of a held-out text or table. ValueError where they are too few for an error."""
    least = 2 if tokens.ndim == 2 else length + 1  # two rows
    if len(tokens) < least:
        raise ValueError(
            f"the {split} split has {len(tokens)} {'rows' if tokens.ndim == 2 else 'tokens'}, and for an error bar it "
            f"needs at least {least}: give more data" + (f", or a length below {length}" if tokens.ndim == 1 else "")
        )
    if tokens.ndim == 2:
        return tokens, np.ones(tokens.shape, bool)
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
                dtype=dtype,
                scan=c.scan,
                remat=c.remat,
                **placed,
            )
        )

    @property
    def nll(self) -> Callable:
        c = self.config.readout
        name = c.name if c.name != "auto" else ("packed" if self.vocab >= 1000 else "dense")
        capacity = 1.0 if self.autoregressive else None
        packed = objectives.Packed(capacity, groups=self.layout.shards, chunk=c.chunk)
        return choose(name, "readout.name", dict(dense=objectives.dense, packed=packed))

    @property
    def law(self):
        c = self.config.law
        schedule = choose(c.schedule, "law.schedule", SCHEDULES)()
        spread = choose(c.spread, "law.spread", SPREADS)
        laws = dict(
            exact_count=lambda: process.ExactCount(spread, schedule),
            continuous=lambda: process.Continuous(schedule, spread),
            discrete=lambda: process.Discrete(c.steps, schedule, spread),
        )
        return choose(c.name, "law.name", laws)()

    @property
    def objective(self) -> Callable:
        if self.autoregressive:
            return objectives.Autoregressive(self.nll)
        return objectives.MaskedDiffusion(self.vocab, self.law, self.nll)

    @functools.cached_property
    def optimizer(self):
        c = self.config.train
        return training.adamw(
            learning_rate=c.learning_rate, steps=c.steps, warmup=c.warmup, final=c.final, weight_decay=c.weight_decay,
            b1=c.b1, b2=c.b2, clip=c.clip,
        )  # fmt: skip

    def make_state(self) -> training.TrainState:
        """The state before the first step; traced, never called as it is."""
        return training.init_state(self.model.init, self.optimizer[0], jax.random.key(self.config.seed))

    @property
    def step(self) -> training.Step:
        c = self.config.train
        optimizer, rate = self.optimizer
        return training.Step(
            self.model.bind, self.objective, optimizer, rate, size=c.batch, average_decay=c.average, micro=c.micro,
            shards=self.layout.shards, axis=self.layout.axis,
        )  # fmt: skip

    def scorer(self, draws: int, groups: int) -> Callable:
        """The bound's scorer, always under the exact-count law, whatever the training law is."""
        if self.autoregressive:
            return evaluation.ExactScorer(self.nll)
        law = process.ExactCount(process.systematic, choose(self.config.law.schedule, "law.schedule", SCHEDULES)())
        return evaluation.Scorer(self.vocab, draws, groups, law, self.nll)

    @property
    def estimator(self) -> str:
        return "exact chain rule" if self.autoregressive else "exact-count negative ELBO"

    def score(self, params: Any, draws: int, groups: int, seed: int) -> Callable:
        """The evaluation step `(params, batch) -> nats [B, groups]`, compiled once for parameters placed like these."""
        key = jax.random.key(seed)
        scorer = self.scorer(draws, groups)
        return self.layout.map(lambda params, batch: scorer(self.model.bind(params), batch, key), params)

    def evaluator(self, params: Any, draws: int, groups: int, batch: int, seed: int) -> Callable:
        """`evaluate(params, rows, progress) -> Bound`, compiled once. Its draws depend on `seed` and the row only."""
        score = self.score(params, draws, groups, seed)
        rank, ranks = self.layout.share

        def evaluate(params, rows, progress=lambda rows: None) -> evaluation.Bound:
            return evaluation.evaluate(
                functools.partial(score, params), *rows, size=batch, estimator=self.estimator, put=self.layout.put,
                progress=progress, rank=rank, ranks=ranks,
            )  # fmt: skip

        return evaluate

    def planner(self, c: ConfigDict):
        """The planner of a `sample` group of fields."""
        name = c.planner
        if name == "auto":
            name = "left_to_right" if self.autoregressive else "first_hitting"
        if self.autoregressive and name != "left_to_right":
            raise ValueError(f"sample.planner={name!r}: an autoregressive model samples with left_to_right only")
        schedule = choose(c.schedule, "sample.schedule", SCHEDULES)()
        return choose(name, "sample.planner", PLANNERS)(schedule, c.steps)

    def sampler(self, c: ConfigDict, trace: bool = False) -> Callable:
        """`run(params, tokens, key)`, compiled once, from a `sample` group of fields."""
        draw = sampling.TokenDraw(c.temperature, c.top_p)
        model = self.model
        if isinstance(model.config.attention, networks.Splash) and c.rows % self.layout.shards:
            # The kernel cannot share out so few rows: every device works on all of them.
            attention = dataclasses.replace(model.config.attention, batch_axes=())
            model = networks.transformer(dataclasses.replace(model.config, attention=attention))
        return sampling.jit_sampler(model.bind, self.planner(c), vocab=self.vocab, draw=draw, trace=trace)

    def canvas(self, vocabulary: Vocabulary, rows: int, prompt: str = "") -> np.ndarray:
        """Rows of masks [rows, L] that start with the prompt. ValueError where it does not fit or has no token."""
        tokens = np.full((rows, self.length), self.vocab, np.int32)
        given = vocabulary.encode(prompt) if prompt else np.zeros(0, np.int32)
        if len(given) > self.length:
            raise ValueError(
                f"the prompt has {len(given)} tokens and the model's length is {self.length}: "
                f"shorten it to {self.length} tokens at most"
            )
        tokens[:, : len(given)] = given
        return tokens


def quiet_orbax() -> None:
    """Orbax also logs what it raises, in hundreds of lines, from threads of its own; the program says it in one."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def keep_vocabulary(workdir: Path, corpus: Corpus, length: int) -> None:
    """Beside the config: what a checkpoint's tokens mean, and the hash of the data that they are from.

    Raises ValueError where the run in the workdir was trained on other data.
    """
    path = workdir / "vocabulary.json"
    text = to_json({"length": length, "sha256": corpus.meta["sha256"], **corpus.vocabulary.to_dict()})
    if path.exists() and path.read_text() != text:
        raise ValueError(
            f"{workdir} holds a run on other data (its hash is in {path}; now it is {corpus.meta['sha256'][:12]}...): "
            "give that data, or another --workdir"
        )
    write_atomic(path, text)


def load(workdir: str, which: str = "last", say: Callable = lambda line: None):
    """(experiment, vocabulary, step, parameters) of a `train` run: its averaged parameters at a checkpoint.

    Raises FileNotFoundError where there is no run, ValueError for a checkpoint that is not there.
    """
    quiet_orbax()
    root = Path(workdir)
    for name in ("config.json", "vocabulary.json", "checkpoints"):
        if not (root / name).exists():
            raise FileNotFoundError(f"no training run at {workdir} ({name} is missing): give the --workdir of `train`")
    config = ConfigDict(json.loads((root / "config.json").read_text()))
    config.mesh, config.parallel = ConfigDict(dict(data=-1, fsdp=1, tensor=1)), "mesh"
    config.train.batch = config.evaluate.batch = jax.device_count() * config.train.micro
    description = json.loads((root / "vocabulary.json").read_text())
    length = description.pop("length")
    description.pop("sha256")
    vocabulary = data.vocabulary_from_dict(description)
    experiment = Experiment(config, vocabulary.size, length)
    checkpoints = training.Checkpoints(root / "checkpoints", read_only=True)
    steps = checkpoints.steps()
    step = None
    if which == "best":
        step = checkpoints.best_step()
    elif which != "last":
        if not (which.isdigit() and int(which) in steps):
            raise ValueError(f"which={which!r}: choose last, best, or one of the steps {steps} of {workdir}")
        step = int(which)
    restored = training.restore(experiment.layout, experiment.make_state, checkpoints, say, step)
    checkpoints.close()
    if restored is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet: let `train` reach its first one")
    return experiment, vocabulary, restored.step, restored.state.average


def per_character(estimate, characters_per_token: float | None):
    """An estimate in nats/token as bits/char, or as bits/token where there are no characters."""
    bits = estimate.scaled(1 / np.log(2), "bits/token")
    return bits.scaled(1 / characters_per_token, "bits/char") if characters_per_token else bits


def pieces(vocabulary: Vocabulary, row: np.ndarray) -> list[str]:
    """The text of each token of a row."""
    return [vocabulary.decode(row[i : i + 1]) for i in range(len(row))]

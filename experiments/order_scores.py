"""What a run with an order is measured by: its bounds, its order, its samples. Everything is compiled once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import build
from experiments.order_arms import Bench, entropy
from experiments.order_steps import few_steps
from mdmjax import analysis, evaluation, sampling, training

SCALE = 5  # use of the seed's key (training.state has the others)


class Scores:
    """The measurements of the runs of a bench. `params` are {"network": ..., "order": log-weights}.

    Bounds are in nats a row: exact, and less the entropy of the data, where the law is known; else estimated with an
    error bar. The draws of an estimate, and of samples, are of the run's seed: arms are compared in pairs, and an error
    over seeds holds the draws. ValueError where the config will not do.
    """

    def __init__(self, bench: Bench):
        self.bench, self.config = bench, bench.config
        rows, c = bench.rows, bench.config.evaluate
        self.exact = rows.law is not None
        if self.exact:
            self.floor = rows.law.entropy()
            every, p = rows.law.rows(), rows.law.probabilities()
            self._losses = jax.jit(lambda params: analysis.expected_losses(bench.bind(params), every, p, rows.vocab))
            self._bound = jax.jit(analysis.order_bound)
            self._gradient = jax.jit(jax.grad(analysis.order_bound, 1))
            self._orders = jax.jit(analysis.order_losses)
            self._samples_law = jax.jit(functools.partial(self._law_of_samples, jnp.asarray(every)))
            return
        scorer = evaluation.OrderScorer(rows.vocab, c.draws, c.groups)
        self._score = bench.layout.map(lambda run, batch: scorer(bench.bind(run["params"]), batch, run["key"]))
        whole = lambda tokens: (tokens, np.ones(tokens.shape, bool))
        self._monitored = build.spaced(whole(rows.validation), c.rows)
        self._held_out = {"validation": whole(rows.validation), "test": build.spaced(whole(rows.test), c.test_rows)}
        if rows.judge and self.config.sample.rows < 1:
            raise ValueError(f"sample.rows={self.config.sample.rows}: must be at least 1")

    # ---- while it trains

    def during(self, params: dict[str, Any], seed: int) -> dict[str, float]:
        """The bound on some validation rows under the run's own order."""
        if self.exact:
            return {"bound": self._above(self._losses(params), self.bench.by_position(params["order"]))}
        bound = self._bound_of(self._rows(params, seed, self._monitored))
        return {"bound": bound[0], "bound_error": bound[1]}

    # ---- when it is done

    def final(self, params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Everything that the report says of a run, as JSON can hold it."""
        weights = self.bench.log_weights(params)
        result = {
            "log_weights": weights.tolist(),
            "entropy": entropy(weights),
            "scale": self._scale(params, seed),
            **(self._exact_bounds(params) if self.exact else self._bounds(params, seed)),
        }
        if self.bench.rows.judge:
            result |= self._samples(params, seed)
        return result

    def _exact_bounds(self, params):
        losses = self._losses(params)
        orders = np.asarray(self._orders(losses))
        equal = jnp.zeros(self.bench.rows.length, losses.dtype)
        own = self._above(losses, self.bench.by_position(params["order"]))
        return {
            "own": [own, 0.0],
            "uniform": [self._above(losses, equal), 0.0],
            "validation": own,
            "best order": analysis.all_orders(self.bench.rows.length)[orders.argmin()].tolist(),
            "best": float(orders.min() - self.floor),
            "gradient": np.asarray(self._gradient(losses, equal)).tolist(),
            "apart": [self._apart(params, v) for v in (self.bench.by_position(params["order"]), equal)],
            "few steps": few_steps(losses, self.bench.by_position(params["order"]), self.floor),
        }

    def _law_of_samples(self, every, params, log_weights):
        """P(x) of every row, of samples drawn one position a call."""
        losses = functools.partial(analysis.masked_losses, self.bench.bind(params), vocab=self.bench.rows.vocab)
        return jnp.exp(jax.lax.map(lambda x: analysis.order_log_likelihood(losses(x), log_weights), every))

    def _apart(self, params, log_weights) -> float:
        """Total variation between the law of samples in these orders and the data's."""
        law = np.asarray(self._samples_law(params, log_weights), np.float64)
        return analysis.total_variation(law, self.bench.rows.law.probabilities())

    def _bounds(self, params, seed):
        equal = params | {"order": jnp.zeros_like(params["order"])}
        own, uniform = (self._rows(p, seed, self._held_out["test"]) for p in (params, equal))
        return {
            "own": self._bound_of(own),
            "uniform": self._bound_of(uniform),
            "validation": self._bound_of(self._rows(params, seed, self._held_out["validation"]))[0],
            "rows": own.mean(1).tolist(),
        }

    def _samples(self, params, seed):
        """How good rows are that are drawn in the run's own order and in a random order, by the same keys."""
        rows, result = self.bench.rows, {}
        key = jax.random.fold_in(build.key(self.config.seed, training.SAMPLING), seed)
        for name, weights in (("own", self.bench.log_weights(params)), ("random", np.zeros(rows.length))):
            canvas = np.full((self.config.sample.rows, rows.length), rows.vocab, np.int32)
            drawn = np.asarray(self._draw(params, canvas, jnp.asarray(weights, jnp.float32), key))
            result |= {f"{score}, {name}": value for score, value in rows.judge(drawn).items()}
        return result

    # ---- parts

    def _above(self, losses, weights) -> float:
        return float(self._bound(losses, weights)) - self.floor

    def _rows(self, params, seed, rows) -> Float[np.ndarray, "N G"]:
        """Independent estimates of the bound of each row, in nats."""
        layout = self.bench.layout
        key = jax.random.fold_in(build.key(self.config.seed, training.EVALUATION), seed)
        rank, ranks = layout.share
        score = functools.partial(self._score, {"params": params, "key": key})
        size = self.config.evaluate.batch
        nats = evaluation.score_rows(score, *rows, size=size, put=layout.put, rank=rank, ranks=ranks)
        return np.asarray(nats, np.float64)

    def _bound_of(self, rows) -> list[float]:
        """[mean, standard error, its Monte Carlo part], in nats a row."""
        bound = evaluation.summarise(rows, np.ones(len(rows), int), "")
        return [bound.per_token.mean, bound.per_token.standard_error, bound.monte_carlo]

    def _scale(self, params, seed) -> list[float]:
        """sum_l d bound / d log w_l as training estimates it, in nats a row, and its standard error over 32 batches.

        0 in the mean where no times are left out: the bound knows only differences of log-weights.
        """
        if self.config.order.estimator == "order":
            return [0.0, 0.0]
        batch = self.bench.rows.source.gather(np.arange(min(256, len(self.bench.rows.source))))
        batch["ids"] = np.arange(len(batch["tokens"]))
        keys = jax.random.split(jax.random.fold_in(build.key(self.config.seed, SCALE), seed), 32)
        sums = np.asarray(self._slopes(params, batch, keys), np.float64).sum(1)
        return [sums.mean(), sums.std(ddof=1) / np.sqrt(len(sums))]

    @functools.cached_property
    def _slopes(self):
        bench = self.bench

        @jax.jit
        def slopes(params, batch, keys):
            def bound(order, key):
                size = len(batch["ids"])
                return bench.objective(bench.bind(params | {"order": order}), batch, key, size).nats.mean()

            return jax.lax.map(lambda key: jax.grad(bound)(params["order"], key), keys)

        return slopes

    @functools.cached_property
    def _draw(self):
        bench = self.bench

        @jax.jit
        def draw(params, canvas, weights, key):
            planner = sampling.DrawnOrder(weights)
            return sampling.sample(bench.bind(params), planner, canvas, vocab=bench.rows.vocab, key=key).tokens

        return draw

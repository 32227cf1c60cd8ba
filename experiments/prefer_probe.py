"""What is measured of a policy that has learned preferences: exact answers, and what its estimates of the score are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import studies
from experiments.prefer_tasks import Task
from mdmjax import networks, process, sampling
from mdmjax.variance import gradient_bias_bound, gradient_variance_bound, loss_bias_bound

SLOPES = 4  # pairs of gradients of each score


def right(model: networks.Model, params: Any, task: Task) -> np.ndarray:
    """The share of judged prompts that each seed answers exactly, decoded greedily, a token a call."""
    planner = sampling.Confidence(process.Linear(), int(task.judged[1][0].sum()))
    return studies.right(model, planner, task.vocab, params, *task.judged)


def probe(arm: Any, params: Any, keys: jax.Array) -> dict[str, Any]:
    """Of each seed, on held-out pairs, from `repeats` estimates with draws of their own, whatever the arm's are fixed
    to: mean over pairs of the variance of the score (no less than that of the loss) and of the bound on the bias of the
    loss, the mean score, the share of pairs in order, the mean loss; the variance of the gradient of the mean loss, and
    its squared length; means over pairs of the bounds on bias and variance of the gradient of a pair's loss (without
    the term of fine-tuning), from `SLOPES` pairs of estimates of grad s, whose product and squares are unbiased."""
    c, source = arm.config.evaluate, arm.task.held_out
    count, repeats = min(c.pairs, len(source)), c.repeats
    batch = {name: jnp.asarray(x) for name, x in source.gather(np.arange(count)).items()} | {"ids": jnp.arange(count)}
    objective = dataclasses.replace(arm.objective, fixed=None)

    def slopes(params, start, key):
        """For each pair the mean of grad s . grad s' and of (|grad s|^2 + |grad s'|^2) / 2, of independent draws."""

        def of_pair(row):
            row = {name: x[None] for name, x in row.items()}
            scores = lambda params, key: objective.scores(arm.bind(params, (start, None)), row, key)
            slope = lambda key: jax.grad(lambda params: scores(params, key).score(objective.beta)[0])(params)
            dot = lambda a, b: sum((x * y).sum() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

            def once(key):
                a, b = map(slope, jax.random.split(key))
                return dot(a, b), (dot(a, a) + dot(b, b)) / 2

            return jax.tree.map(jnp.mean, jax.vmap(once)(jax.random.split(key, SLOPES)))

        return jax.lax.map(of_pair, batch)

    @jax.jit
    def measured(params, start, keys):
        def one(params, start, key):
            def loss(params, key):
                both = arm.bind(params, (start, None))
                found = objective.scores(both, batch, key)
                return objective.loss(found).mean(), found.score(objective.beta)

            def estimate(sums, key):
                (_, score), slope = jax.value_and_grad(loss, has_aux=True)(params, key)
                square = sum((x**2).sum() for x in jax.tree.leaves(slope))
                return jax.tree.map(jnp.add, sums, (slope, square)), score

            zero = jax.tree.map(jnp.zeros_like, params), jnp.zeros(())
            (total, squares), scores = jax.lax.scan(estimate, zero, jax.random.split(key, repeats))
            length = sum(((x / repeats) ** 2).sum() for x in jax.tree.leaves(total))
            product, square = slopes(params, start, key)
            noise = (squares - repeats * length) / (repeats - 1)
            return {
                "score variance": scores.var(0, ddof=1),
                "loss variance": jax.nn.softplus(-scores).var(0, ddof=1).mean(),
                "score": scores.mean(),
                "preferred": (scores.mean(0) > 0).mean(),
                "loss": jax.nn.softplus(-scores).mean(),
                "product": product,
                "square": square,
                "gradient variance": noise,
                "gradient squared": length - noise / repeats,
            }

        return jax.vmap(one)(params, start, keys)

    found = {name: np.asarray(x, np.float64) for name, x in measured(params, arm.start, keys).items()}
    variance, product, square = found["score variance"], found.pop("product"), found.pop("square")
    found |= {
        "score variance": variance.mean(1),
        "bias bound": loss_bias_bound(variance).mean(1),
        "gradient bias bound": gradient_bias_bound(variance, product, square - product).mean(1),
        "gradient variance bound": gradient_variance_bound(variance, product, square - product).mean(1),
    }
    return {name: x.tolist() for name, x in found.items()}

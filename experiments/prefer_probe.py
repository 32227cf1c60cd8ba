"""What is measured of a policy that has learned preferences: exact answers, and what its estimates of the score are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import studies
from experiments.prefer_tasks import Task
from mdmjax import networks, process, sampling


def right(model: networks.Model, params: Any, task: Task) -> np.ndarray:
    """The share of judged prompts that each seed answers exactly, decoded greedily, a token a call."""
    planner = sampling.Confidence(process.Linear(), int(task.judged[1][0].sum()))
    return studies.right(model, planner, task.vocab, params, *task.judged)


def probe(arm: Any, params: Any, keys: jax.Array) -> dict[str, Any]:
    """Of each seed, on held-out pairs, from `repeats` estimates with draws of their own, whatever the arm's are fixed
    to: mean over pairs of the variance of the score and of the bound on the bias of the loss, the mean score, the share
    of pairs in order, the mean loss; the variance of the gradient of the mean loss, and its squared length."""
    c, source = arm.config.evaluate, arm.task.held_out
    count, repeats = min(c.pairs, len(source)), c.repeats
    batch = {name: jnp.asarray(x) for name, x in source.gather(np.arange(count)).items()} | {"ids": jnp.arange(count)}
    objective = dataclasses.replace(arm.objective, fixed=None)

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
            noise = (squares - repeats * length) / (repeats - 1)
            variance = scores.var(0, ddof=1)
            return {
                "score variance": variance.mean(),
                "score": scores.mean(),
                "preferred": (scores.mean(0) > 0).mean(),
                "loss": jax.nn.softplus(-scores).mean(),
                "bias bound": jnp.minimum(variance / 8, jnp.sqrt(variance) / 2).mean(),
                "gradient variance": noise,
                "gradient squared": length - noise / repeats,
            }

        return jax.vmap(one)(params, start, keys)

    return {name: np.asarray(x).tolist() for name, x in measured(params, arm.start, keys).items()}

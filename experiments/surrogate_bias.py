"""What policy gradients take for the likelihood of an answer, against its bound B: by enumeration, so without noise."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reinforce_tasks import Problems
from mdmjax import analysis, networks, variance
from mdmjax.objectives import policy_gradient as pg
from mdmjax.variance.enumeration import MAX_LENGTH

ROWS = 64  # judged prompts, with their right answers

# The names of `variance.surrogate_means`, and what a method's own fields say of them.
SURROGATES: dict[type, tuple[tuple[str, ...], Any]] = {
    pg.DiffuGRPO: (("mean field",), lambda m: {}),
    pg.CoupledGRPO: (("coupled rates",), lambda m: dict(low=m.low, high=m.high)),
    pg.UniGRPO: (("mean of masked",), lambda m: {}),
    pg.ESPO: (("coupled counts",), lambda m: {}),
    pg.GDPO: (("quadrature",), lambda m: dict(nodes=m.law.nodes)),
    pg.SPG: (("exact count", "upper, one draw", "upper, many draws"), lambda m: dict(beta=m.beta)),
    pg.WD1: (("mean field",), lambda m: {}),
}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _losses(model, answer, vocab, params, rows):
    """-log p [S, N, M, n] of the tokens of each answer under all masks of it, the prompt given."""
    places = jnp.asarray(answer)

    def of_row(policy, row):
        inner = lambda x: policy(jnp.broadcast_to(row, (len(x), len(row))).at[:, places].set(x))[:, places]
        return analysis.masked_losses(inner, row[places], vocab)

    one = lambda p: jax.lax.map(functools.partial(of_row, model.bind(p)), rows)
    return jax.vmap(one)(params)


def biases(model: networks.Model, params: Any, task: Problems, method: Any) -> dict[str, list[float]]:
    """E of the method's surrogates - B in nats, for each of the seeds in `params` [S, ...]; `bound` is B.

    Means over right answers to the first judged prompts, with prompts in full view (diffu-GRPO and wd1 hide some of
    theirs in training). Of one draw (SPG's upper surrogate also of many): averages of draws have the same mean.
    Nothing for answers of more than 10 tokens, whose masks are too many.
    """
    names, own = SURROGATES[type(method)]
    tokens, eligible = task.judged
    if eligible[0].sum() > MAX_LENGTH:
        return {}
    losses = _losses(model, tuple(np.flatnonzero(eligible[0]).tolist()), task.vocab, params, jnp.asarray(tokens[:ROWS]))
    found = [[variance.surrogate_means(-row, **own(method)) for row in seed] for seed in np.asarray(losses)]
    return {
        "bound": [float(np.mean([m["bound"] for m in seed])) for seed in found],
        **{name: [float(np.mean([m[name] - m["bound"] for m in seed])) for seed in found] for name in names},
    }

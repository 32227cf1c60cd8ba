"""The audit of surrogates on a network: against the enumerated bound, which knows nothing of them."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import surrogate_bias
from experiments.configs.base_reinforce import reinforce
from experiments.reinforce_arms import methods
from experiments.reinforce_tasks import countdown
from mdmjax import networks
from mdmjax.evaluation import EnumeratedScorer


def test_biases_of_an_answer_given_its_prompt():
    config = reinforce()
    config.data.update(numbers=2, rows=20, prompts=10, judged=6)
    task = countdown(config.data)
    model = networks.transformer(networks.TransformerConfig(task.vocab, task.length, 8, 1, 2))
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0)))
    params = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(1), x.shape), params)  # no zeros left
    found = {
        name: surrogate_bias.biases(model, params, task, method) for name, method in methods(config.reward).items()
    }
    tokens, scored = map(jnp.asarray, task.judged)
    score = EnumeratedScorer(task.vocab, most=5)
    one = jax.jit(lambda p: score(model.bind(p), dict(tokens=tokens, scored=scored), None).mean())
    exact = [-float(one(jax.tree.map(lambda x, i=i: x[i], params))) for i in range(2)]
    for name, biases in found.items():
        np.testing.assert_allclose(biases["bound"], exact, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(found["espo"]["coupled counts"], 0, atol=1e-5)
    np.testing.assert_allclose(found["spg"]["exact count"], 0, atol=1e-5)
    many, first = found["spg"]["upper, many draws"], found["spg"]["upper, one draw"]
    assert min(many) > 1e-4 and np.all(np.asarray(first) != many)
    length = int(task.judged[1][0].sum())  # no token is hidden in one of so many counts + 1
    np.testing.assert_allclose(found["unigrpo"]["mean of masked"], -np.asarray(exact) / (length + 1), rtol=1e-4)
    assert found["wd1"] == found["diffu_grpo"] and min(np.abs(found["wd1"]["mean field"])) > 1e-3
    assert min(np.abs(found["coupled_grpo"]["coupled rates"])) > 1e-3

"""What one draw of training gives, as `nested` takes it: the loss, and the gradient in groups of parameters."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdmjax.objectives import autoregressive, dense, negative_elbo
from mdmjax.process import iid


@dataclasses.dataclass(frozen=True)
class DrawStatistic:
    """Of one row: the estimate of its bound per token under one draw of `law`, and the gradient of that.

    `bind(params) -> denoiser`. Groups are `loss` and, of the gradient, those of `groups`: names and regular expressions
    over the path of a parameter, of which the first that is found counts; parameters that none finds are left out, and
    with no groups no gradient is taken. A draw is all ways of hiding a row that share a rate. `law` None is an
    autoregressive network, which draws nothing. Rates of a row are independent, whatever the spread of the law is.
    """

    bind: Callable
    law: Any
    vocab: int
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    nll: Callable = dense

    def __call__(
        self, params: Any, example: dict[str, Array], i: Array, key_rate: Key[Array, ""], key_mask: Key[Array, ""]
    ) -> tuple[Array, dict[str, Any]]:
        """(mask rate, groups). `example` holds `tokens` [L] and, where some are a prompt, `eligible` [L]."""
        tokens = example["tokens"][None]
        eligible = example.get("eligible", jnp.ones(tokens.shape[1:], bool))[None]
        size = jnp.maximum(eligible.sum(), 1)
        if self.law is None:
            rate, loss = jnp.ones(()), lambda p: self._autoregressive(p, tokens, eligible, size)
        else:
            law = dataclasses.replace(self.law, spread=iid)
            rates = law.rates(key_rate, i[None], eligible, batch=1)
            draws = law.hide(key_mask, i[None], eligible, rates)
            counted = jnp.issubdtype(rates.value.dtype, jnp.integer)
            rate = rates.value[0] / size if counted else rates.value[0]
            loss = lambda p: self._loss(p, tokens, eligible, size, draws)
        if not self.groups:
            return rate, {"loss": loss(params)}
        value, gradient = jax.value_and_grad(loss)(params)
        return rate, {"loss": value, **grouped(gradient, self.groups)}

    def _loss(self, params, tokens, eligible, size, draws):
        ways = len(draws.ids)
        repeated = lambda x: jnp.repeat(x, ways, axis=0)
        terms = negative_elbo(
            self.bind(params), repeated(tokens), draws, vocab=self.vocab, eligible=repeated(eligible), nll=self.nll
        )
        return terms.nats.mean() / size

    def _autoregressive(self, params, tokens, eligible, size):
        return autoregressive(self.bind(params), tokens, eligible=eligible, nll=self.nll).nats[0] / size


def grouped(tree: Any, groups: Mapping[str, str]) -> dict[str, list[Array]]:
    """The leaves of each group: of the first regular expression found in their path. ValueError for an empty group."""
    found: dict[str, list[Array]] = {name: [] for name in groups}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        name = next((name for name, pattern in groups.items() if re.search(pattern, where)), None)
        if name is not None:
            found[name].append(leaf)
    for name, leaves in found.items():
        if not leaves:
            raise ValueError(f"groups[{name!r}]={groups[name]!r}: no parameter has a path in which this is found")
    return found

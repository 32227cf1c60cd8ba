"""What one draw of training gives, as `nested` takes it: the loss, and the gradient in groups of parameters."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mdmjax.objectives import MaskedDiffusion, autoregressive, dense, negative_elbo
from mdmjax.process import Delimiters, Importance, iid


@dataclasses.dataclass(frozen=True)
class DrawStatistic:
    """Of one row: the estimate of its bound per token under one draw of `law`, and the gradient of that.

    `bind(params) -> denoiser`. Groups are `loss` and, of the gradient, those of `groups`: names and regular expressions
    over the path of a parameter, of which the first that is found counts; parameters that none finds are left out, and
    with no groups no gradient is taken. A draw is all ways of hiding a row that share a rate. `law` None is an
    autoregressive network, which draws nothing. Rates of a row are independent, whatever the spread of the law is.

    A row's nats are divided by the number of its own tokens, or by `size` if given. Where rows are of unequal length
    the two differ, C most of all: training divides the nats of a batch by its tokens, as a `size` of their mean does.
    """

    bind: Callable
    law: Any
    vocab: int
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    nll: Callable = dense
    size: float | None = None

    def __call__(
        self, params: Any, example: dict[str, Array], i: Array, key_rate: Key[Array, ""], key_mask: Key[Array, ""]
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """(facts, groups). `example` holds `tokens` [L] and, where some are a prompt, `eligible` [L].

        Facts: `rate`, the mask rate (l / L of exact counts); `weight`, the factor of the losses; `empty`, the share of
        ways with nothing hidden; `clamped`, whether the weight was capped; `losses` [K], those of the ways.
        """
        tokens = example["tokens"][None]
        eligible = example.get("eligible", jnp.ones(tokens.shape[1:], bool))[None]
        own = jnp.maximum(eligible.sum(), 1)
        size = own if self.size is None else self.size
        if self.law is None:
            facts = {"rate": jnp.ones(()), "weight": jnp.ones(()), "empty": jnp.zeros(()), "clamped": jnp.zeros(())}
            losses = lambda p: autoregressive(self.bind(p), tokens, eligible=eligible, nll=self.nll).nats / size
        else:
            law = dataclasses.replace(self.law, spread=iid)
            rates = law.rates(key_rate, i[None], eligible, batch=1)
            special = {"often": law.marked(tokens)} if isinstance(law, Delimiters) else {}
            draws = law.hide(key_mask, i[None], eligible, rates, **special)
            counted = jnp.issubdtype(rates.value.dtype, jnp.integer)
            rate = rates.value[0] / own if counted else rates.value[0]
            facts = {"rate": rate, "weight": rates.weights[0], "empty": 1.0 - draws.masks.any(1).mean()}
            capped = law.clamped(rates.value)[0] if isinstance(law, Importance) else False
            facts["clamped"] = jnp.asarray(capped, rate.dtype)
            how = dict(vocab=self.vocab, eligible=eligible, nll=self.nll)
            losses = lambda p: negative_elbo(self.bind(p), tokens, draws, **how).nats / size

        def loss(params):
            each = losses(params)
            return each.mean(), each

        if not self.groups:
            value, each = loss(params)
            return facts | {"losses": each}, {"loss": value}
        (value, each), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return facts | {"losses": each}, {"loss": value, **grouped(gradient, self.groups)}


@dataclasses.dataclass(frozen=True)
class BatchStatistic:
    """As `DrawStatistic`, of the nats of a batch by its tokens, as training has them; rates spread as by the law."""

    bind: Callable
    law: Any
    vocab: int
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    nll: Callable = dense

    def __call__(self, params: Any, batch: dict[str, Array], key: Key[Array, ""]) -> dict[str, Any]:
        """{group: value}. `batch` holds `tokens` [B, L] and maybe `eligible`; the draws are those of ids 0..B-1."""
        objective, size = MaskedDiffusion(self.vocab, self.law, self.nll), len(batch["tokens"])
        batch = batch | {"ids": jnp.arange(size)}

        def loss(params):
            terms = objective(self.bind(params), batch, key, size)
            return terms.nats.sum() / jnp.maximum(terms.tokens.sum(), 1)

        if not self.groups:
            return {"loss": loss(params)}
        value, gradient = jax.value_and_grad(loss)(params)
        return {"loss": value, **grouped(gradient, self.groups)}


def grouped(tree: Any, groups: Mapping[str, str]) -> dict[str, list[Any]]:
    """The leaves of each group: of the first regular expression found in their path. ValueError for an empty group."""
    if reserved := {"loss", "gradient"} & set(groups):
        raise ValueError(f"groups={list(groups)}: {', '.join(sorted(reserved))} is no name for a group of parameters")
    found: dict[str, list[Any]] = {name: [] for name in groups}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        name = next((name for name, pattern in groups.items() if re.search(pattern, where)), None)
        if name is not None:
            found[name].append(leaf)
    for name, leaves in found.items():
        if not leaves:
            raise ValueError(f"groups[{name!r}]={groups[name]!r}: no parameter has a path in which this is found")
    return found

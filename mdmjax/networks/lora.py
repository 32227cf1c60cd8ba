"""LoRA (arXiv 2106.09685): a network is fine-tuned by small matrices beside its own, as a change of parameters."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from mdmjax.networks.functional import Params

KERNELS = r"/(query|key|value|qkv|out|gate|up|down)/kernel$"  # of the blocks


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Each kernel W [..., I, O] whose path matches becomes W + (alpha / rank) A B, A [..., I, rank], B [..., rank, O].

    The adapters are the parameters that are trained, and W is not: `Step(bind=lambda adapters, base:
    model.bind(lora.merged(base, adapters)))` with the base as `frozen`. B is 0 at first, so the network is then the
    base's exactly; A is N(0, 1 / I). A checkpoint and the optimiser hold the adapters alone, rank (I + O) numbers for
    I O. A step holds the sums W + AB beside W, and their gradients: it saves the optimiser's memory, not these.
    Weight decay, which is of leaves named `kernel`, passes adapters over.
    ValueError for rank < 1.
    """

    rank: int
    alpha: float = 16.0
    kernels: str = KERNELS

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"LoRA(rank={self.rank}): must be at least 1")

    def init(self, base: Params, key: Key[Array, ""]) -> Params:
        """The first adapters for a base, of which the shapes are read: {path of a kernel: {"a": A, "b": B}}.

        Consumes the key. ValueError where no kernel matches.
        """
        named = {path: leaf for path, leaf in _paths(base).items() if re.search(self.kernels, path)}
        if not named:
            known = ", ".join(sorted(_paths(base)))
            raise ValueError(f"LoRA(kernels={self.kernels!r}): no parameter has such a path; there are {known}")
        adapters = {}
        for (path, leaf), own in zip(sorted(named.items()), jax.random.split(key, len(named)), strict=True):
            *stack, inputs, outputs = leaf.shape
            a = jax.random.normal(own, (*stack, inputs, self.rank), leaf.dtype) / np.sqrt(inputs)
            adapters[path] = {"a": a, "b": jnp.zeros((*stack, self.rank, outputs), leaf.dtype)}
        return adapters

    def merged(self, base: Params, adapters: Params) -> Params:
        """The parameters of the network: what `save_parameters` and the sampler of the base take."""

        def add(path, leaf):
            own = adapters.get(jax.tree_util.keystr(path, simple=True, separator="/"))
            if own is None:
                return leaf
            return leaf + (self.alpha / self.rank * (own["a"] @ own["b"])).astype(leaf.dtype)

        return jax.tree_util.tree_map_with_path(add, base)


def _paths(params: Params) -> dict[str, jax.ShapeDtypeStruct | Array]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

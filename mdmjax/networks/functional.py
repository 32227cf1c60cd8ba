"""The functional boundary: a Flax NNX module on one side, plain parameters and a pure `SplitDenoiser` on the other."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

Params = dict[str, Any]  # nested, with names as keys and arrays as leaves


@dataclasses.dataclass(frozen=True)
class Model:
    """A network without its parameters.

    `module(config, rngs)` is an NNX module with methods `features(tokens, t)` and `logits(features)`; `config` is
    hashable.
    """

    module: type
    config: Any

    def init(self, key: Key[Array, ""]) -> Params:
        """Initial parameters, float32, as a nested dict such as `blocks/0/attention/query/kernel`. Consumes the key.

        Traceable: `jax.jit(model.init, out_shardings=...)(key)` makes every parameter where it belongs.
        """
        return _named(nnx.to_pure_dict(nnx.state(self._build(key), nnx.Param)))

    def bind(self, params: Params) -> "Bound":
        """The network with these parameters: a pure function, and a pytree whose leaves are the parameters."""
        return Bound(params, self)

    def _build(self, key):
        return self.module(self.config, nnx.Rngs(params=key))

    @functools.cached_property
    def _graph(self):
        key = jax.eval_shape(lambda: jax.random.key(0))
        return nnx.split(nnx.eval_shape(self._build, key))[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bound:
    """A network with its parameters, as a `SplitDenoiser`."""

    params: Params
    model: Model = dataclasses.field(metadata=dict(static=True))
    segments: Int[Array, "B L"] | None = None

    def within(self, segments: Int[Array, "B L"]) -> "Bound":
        """The network on rows in which several texts stand, of which none sees another: positions with one number are
        of one text. Rows that come several times, one after the other, need no more segments."""
        return dataclasses.replace(self, segments=segments)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        t: Float[Array, "B"] | None = None,
        *,
        at: Int[Array, "B K"] | None = None,
    ) -> Float[Array, "B K V"]:
        """Logits of every position, or of the positions `at` only: float32, never one for the mask."""
        features = self.features(tokens, t)
        if at is not None:
            features = jnp.take_along_axis(features, at[:, :, None], axis=1)
        return self.readout(features)

    def features(self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None = None) -> Float[Array, "B L D"]:
        """What the readout reads. Raises ValueError for rows that are too long, or a time that is missing."""
        if self.segments is None:
            return self._module.features(tokens, t)
        segments = jnp.repeat(self.segments, len(tokens) // len(self.segments), axis=0)
        return self._module.features(tokens, t, segments)

    def memory(self, rows: int, length: int) -> Any:
        """An empty memory for `features_at`."""
        return self._module.memory(rows, length)

    def features_at(
        self, tokens: Int[Array, "B L"], t: Float[Array, "B"] | None, at: Int[Array, "B K"], memory: Any
    ) -> tuple[Float[Array, "B K D"], Any]:
        """(features, memory) of some positions, with what a memory has of the others. ValueError as the network."""
        return self._module.features_at(tokens, t, at, memory)

    def readout(self, features: Float[Array, "*n D"]) -> Float[Array, "*n V"]:
        """Logits, of each position by itself."""
        return self._module.logits(features)

    @property
    def _module(self):
        return nnx.merge(self.model._graph, _numbered(self.params))


def parameter_count(params: Params) -> int:
    """How many numbers the parameters are."""
    return sum(x.size for x in jax.tree.leaves(params))


def _named(tree):
    """NNX numbers the members of a list; names are what JSON, checkpoints and sharding rules agree on."""
    return {str(k): _named(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def _numbered(tree):
    if not isinstance(tree, dict):
        return tree
    return {int(k) if k.isdigit() else k: _numbered(v) for k, v in tree.items()}

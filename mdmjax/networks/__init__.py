"""Networks as pure functions: a transformer, its attention, and the boundary between Flax modules and parameters."""

from mdmjax.networks.attention import Attend, Splash, cudnn, naive, xla
from mdmjax.networks.functional import Bound, Model, parameter_count
from mdmjax.networks.transformer import TransformerConfig, forward_flops, transformer

__all__ = [
    "Attend",
    "Bound",
    "Model",
    "Splash",
    "TransformerConfig",
    "cudnn",
    "forward_flops",
    "naive",
    "parameter_count",
    "transformer",
    "xla",
]

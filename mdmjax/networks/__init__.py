"""Networks as pure functions: a transformer, a linear denoiser, and what stands between Flax modules and parameters."""

from mdmjax.networks.attention import Attend, Splash, cudnn, naive, xla
from mdmjax.networks.functional import Bound, Model, parameter_count
from mdmjax.networks.legality import Legal
from mdmjax.networks.linear import LinearConfig, linear
from mdmjax.networks.transformer import TransformerConfig, forward_flops, transformer

__all__ = [
    "Attend",
    "Bound",
    "Legal",
    "LinearConfig",
    "Model",
    "Splash",
    "TransformerConfig",
    "cudnn",
    "forward_flops",
    "linear",
    "naive",
    "parameter_count",
    "transformer",
    "xla",
]

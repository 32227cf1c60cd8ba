"""Networks as pure functions: a transformer, a linear denoiser, and what stands between Flax modules and parameters."""

from mdmjax.networks.attention import Attend, Splash, cudnn, naive, xla
from mdmjax.networks.functional import Bound, Model, parameter_count
from mdmjax.networks.legality import Legal
from mdmjax.networks.linear import LinearConfig, linear
from mdmjax.networks.looped import PaddedLooped, PaddedLoopedConfig, padded_looped
from mdmjax.networks.lora import LoRA
from mdmjax.networks.policy import PolicyConfig, policy_network
from mdmjax.networks.relations import BlockCausal, Relations, grid_relations
from mdmjax.networks.transformer import TransformerConfig, forward_flops, transformer

__all__ = [
    "Attend",
    "BlockCausal",
    "Bound",
    "Legal",
    "LinearConfig",
    "LoRA",
    "Model",
    "PaddedLooped",
    "PaddedLoopedConfig",
    "PolicyConfig",
    "Relations",
    "Splash",
    "TransformerConfig",
    "cudnn",
    "forward_flops",
    "grid_relations",
    "linear",
    "naive",
    "padded_looped",
    "parameter_count",
    "policy_network",
    "transformer",
    "xla",
]

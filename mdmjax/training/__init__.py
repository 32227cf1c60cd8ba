"""The one training loop, its state, its layouts over devices, and its checkpoints."""

from mdmjax.training.checkpoints import Checkpoints, NoIntactCheckpoint, Restored, fingerprint
from mdmjax.training.loop import NonFiniteLoss, Outcome, Plan, restore, train
from mdmjax.training.metrics import MetricWriter, read_rows
from mdmjax.training.monitor import Monitor
from mdmjax.training.orders import NEVER, with_order
from mdmjax.training.parallel import RULES, MeshLayout, PmapLayout, infer_sharding, make_mesh
from mdmjax.training.seeds import Seeds
from mdmjax.training.state import EVALUATION, RUNS, SAMPLING, Step, TrainState, adamw, decay_mask, init_state

__all__ = [
    "EVALUATION",
    "NEVER",
    "RULES",
    "RUNS",
    "SAMPLING",
    "Checkpoints",
    "MeshLayout",
    "MetricWriter",
    "Monitor",
    "NoIntactCheckpoint",
    "NonFiniteLoss",
    "Outcome",
    "Plan",
    "PmapLayout",
    "Restored",
    "Seeds",
    "Step",
    "TrainState",
    "adamw",
    "decay_mask",
    "fingerprint",
    "infer_sharding",
    "init_state",
    "make_mesh",
    "read_rows",
    "restore",
    "train",
    "with_order",
]

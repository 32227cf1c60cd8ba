"""What masked diffusion can compute, and in how many steps: constructions of arXiv 2510.13117 that run.

A regular language is an `Automaton` (`regular_expression`, `parity`, `s3`, `a5`, `s5`, `ends_with`); `monoid_task`
makes a product of elements of it, which the circuits `tree` (log N steps), `level_expanded`, `two_sweep`,
`hillis_steele` and `chain_of_thought` (N steps) compute: on integers by `evaluate`, on the engine by `Predictor` with
the planners `Dependency` and `AtSteps`, and by a transformer with weights written down, `explicit_denoiser`.
`CircuitSteps` is the law of masks by which a model learns their steps.

`Looped` runs a padded looped transformer in `FixedPoint`; `LoopedAsDenoiser` is one as an MDM and `mdm_as_looped` an
MDM as one, equal step by step. `unmasked_by_causal` and `causal_by_unmasked` are two kinds of attention by each other.
`accounting` has the steps and cells of all of these; `order_statistics` says how often a planner writes a circuit in a
valid order.

What the paper calls, and what it is here:

    MDM[T, P]: planner and predictor   a planner and a denoiser of `sampling.sample`; `Explicit` and `Headed` from one
                                       network
    PLT[T, P]                          `Looped`, of a `networks.PaddedLooped` or of any block
    CoT[T]                             `chain_of_thought`, a symbol a step
    pCoT[T, P]                         the causal side of `unmasked_by_causal` and `causal_by_unmasked`
    resampling                         `AtSteps`, `Headed(resample=True)`
    uniform unmasking                  `sampling.FirstHitting` (one cell a step), `sampling.Ancestral`
"""

from mdmjax.expressivity import accounting
from mdmjax.expressivity.automata import Automaton, a5, ends_with, minimised, parity, permutations, s3, s5
from mdmjax.expressivity.circuits import Circuit, Counts, Run, Stages, canvas, evaluate, read
from mdmjax.expressivity.converters import GumbelMax, LoopedAsDenoiser, engine_noise, mdm_as_looped
from mdmjax.expressivity.decoding import AtSteps, Dependency, Headed, Predictor, trace_counts, valid_orders, with_head
from mdmjax.expressivity.explicit import (
    Explicit,
    Positions,
    explicit_denoiser,
    margins,
    off_target,
    safe_scale,
    sharp_scale,
)
from mdmjax.expressivity.learning import CircuitSteps, at_once, share_right
from mdmjax.expressivity.looped import FixedPoint, Looped, padded
from mdmjax.expressivity.monoids import MonoidTask, monoid_task
from mdmjax.expressivity.orders import order_statistics, tree_order_probability, tree_steps_probability
from mdmjax.expressivity.regular import regular_expression
from mdmjax.expressivity.scans import chain_of_thought, hillis_steele, level_expanded, scan_run, two_sweep
from mdmjax.expressivity.simulations import Layers, causal_by_unmasked, transform, unmasked_by_causal
from mdmjax.expressivity.trees import leaves, tree, tree_run

__all__ = [
    "AtSteps",
    "Automaton",
    "Circuit",
    "CircuitSteps",
    "Counts",
    "Dependency",
    "Explicit",
    "FixedPoint",
    "GumbelMax",
    "Headed",
    "Layers",
    "Looped",
    "LoopedAsDenoiser",
    "MonoidTask",
    "Positions",
    "Predictor",
    "Run",
    "Stages",
    "a5",
    "at_once",
    "accounting",
    "canvas",
    "causal_by_unmasked",
    "chain_of_thought",
    "ends_with",
    "engine_noise",
    "evaluate",
    "explicit_denoiser",
    "hillis_steele",
    "leaves",
    "level_expanded",
    "margins",
    "mdm_as_looped",
    "minimised",
    "monoid_task",
    "off_target",
    "order_statistics",
    "padded",
    "parity",
    "permutations",
    "read",
    "regular_expression",
    "s3",
    "s5",
    "safe_scale",
    "scan_run",
    "sharp_scale",
    "share_right",
    "trace_counts",
    "transform",
    "tree",
    "tree_order_probability",
    "tree_run",
    "tree_steps_probability",
    "two_sweep",
    "unmasked_by_causal",
    "valid_orders",
    "with_head",
]

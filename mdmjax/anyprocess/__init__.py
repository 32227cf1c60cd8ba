"""Generation that may remask, insert and delete: the transition, teachers, and the losses of a policy.

Its neighbours are on the same canvas: FlexMDM, Edit Flows, PRISM and DreamOn.
"""

from mdmjax.anyprocess import corruptions
from mdmjax.anyprocess.alignment import GAP, align, aligned
from mdmjax.anyprocess.buffers import TwoBuffers
from mdmjax.anyprocess.corruptions import Corrupted, Corruption, Noise
from mdmjax.anyprocess.counter import Counter
from mdmjax.anyprocess.dreamon import DreamOn, ExpandingModel, expand_controls, expanding_policy
from mdmjax.anyprocess.dyck import Dyck
from mdmjax.anyprocess.edit_flows import (
    EditFlow,
    EditModel,
    Edits,
    Expected,
    edit_losses,
    edited,
    edits_from_policy,
    generate_edits,
)
from mdmjax.anyprocess.edits import Delete, Insert, Substitute, compile_edits
from mdmjax.anyprocess.flexible import FlexibleModel, FlexMDM, Lives, flexible_losses, from_policy, generate_flexible
from mdmjax.anyprocess.generation import (
    REASONS,
    Counts,
    Decoding,
    Generated,
    Halting,
    canvas_of,
    check_overflow,
    generate,
)
from mdmjax.anyprocess.list_ranking import list_memory, list_ranking
from mdmjax.anyprocess.lookup import PairLog
from mdmjax.anyprocess.losses import (
    Decisions,
    Losses,
    Supervised,
    Targets,
    balance_of,
    check_bits,
    decisions,
    policy_losses,
    process_targets,
    supervised_loss,
)
from mdmjax.anyprocess.many import Finished, generate_all
from mdmjax.anyprocess.mincut import Graph, MinCut, graph_state, random_graph
from mdmjax.anyprocess.parity import PairParity, WindowParity, parity_state
from mdmjax.anyprocess.policy import CONTROLS, Policy, Window
from mdmjax.anyprocess.prism import Prism, quality, quality_loss, remask_logit, with_quality
from mdmjax.anyprocess.self_supervised import SelfSupervised
from mdmjax.anyprocess.sudoku import GaveUp, Sudoku, sudoku_trajectory
from mdmjax.anyprocess.sudoku_many import FORMS, asked_together, candidates
from mdmjax.anyprocess.teachers import (
    IGNORE,
    Move,
    Teacher,
    apply,
    check_move,
    consistent,
    make_move,
    move_between,
    padded,
    trajectory,
)
from mdmjax.anyprocess.timed import Timed
from mdmjax.anyprocess.transition import Controls, Effects, effects, protect, transition

__all__ = [
    "CONTROLS",
    "Controls",
    "Corrupted",
    "Corruption",
    "Counts",
    "Counter",
    "Decisions",
    "Decoding",
    "Delete",
    "DreamOn",
    "Dyck",
    "EditFlow",
    "EditModel",
    "Edits",
    "Effects",
    "Finished",
    "ExpandingModel",
    "Expected",
    "FORMS",
    "FlexMDM",
    "FlexibleModel",
    "GAP",
    "GaveUp",
    "Generated",
    "Graph",
    "Halting",
    "IGNORE",
    "Insert",
    "Lives",
    "Losses",
    "MinCut",
    "Move",
    "Noise",
    "PairLog",
    "PairParity",
    "Policy",
    "Prism",
    "REASONS",
    "SelfSupervised",
    "Substitute",
    "Sudoku",
    "Supervised",
    "Targets",
    "Teacher",
    "Timed",
    "TwoBuffers",
    "Window",
    "WindowParity",
    "align",
    "aligned",
    "apply",
    "asked_together",
    "balance_of",
    "candidates",
    "canvas_of",
    "check_bits",
    "check_move",
    "check_overflow",
    "compile_edits",
    "consistent",
    "corruptions",
    "decisions",
    "edit_losses",
    "edited",
    "edits_from_policy",
    "effects",
    "expand_controls",
    "expanding_policy",
    "flexible_losses",
    "from_policy",
    "generate",
    "generate_all",
    "generate_edits",
    "generate_flexible",
    "graph_state",
    "list_memory",
    "list_ranking",
    "make_move",
    "move_between",
    "padded",
    "parity_state",
    "policy_losses",
    "process_targets",
    "protect",
    "quality",
    "quality_loss",
    "random_graph",
    "remask_logit",
    "sudoku_trajectory",
    "supervised_loss",
    "trajectory",
    "transition",
    "with_quality",
]

"""Generation that may remask, insert and delete: the transition, teachers, and the supervision they give."""

from mdmjax.anyprocess.buffers import TwoBuffers
from mdmjax.anyprocess.counter import Counter
from mdmjax.anyprocess.dyck import Dyck
from mdmjax.anyprocess.edits import Delete, Insert, Substitute, compile_edits
from mdmjax.anyprocess.generation import REASONS, Decoding, Generated, Halting, canvas_of, check_overflow, generate
from mdmjax.anyprocess.list_ranking import list_memory, list_ranking
from mdmjax.anyprocess.lookup import PairLog
from mdmjax.anyprocess.mincut import Graph, MinCut, graph_state, random_graph
from mdmjax.anyprocess.parity import PairParity, WindowParity, parity_state
from mdmjax.anyprocess.sudoku import GaveUp, Sudoku, sudoku_trajectory
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
from mdmjax.anyprocess.transition import Controls, Effects, effects, protect, transition

__all__ = [
    "Controls",
    "Counter",
    "Decoding",
    "Delete",
    "Dyck",
    "Effects",
    "GaveUp",
    "Generated",
    "Graph",
    "Halting",
    "IGNORE",
    "Insert",
    "MinCut",
    "Move",
    "PairLog",
    "PairParity",
    "REASONS",
    "Substitute",
    "Sudoku",
    "Teacher",
    "TwoBuffers",
    "WindowParity",
    "apply",
    "canvas_of",
    "check_move",
    "check_overflow",
    "compile_edits",
    "consistent",
    "effects",
    "generate",
    "graph_state",
    "list_memory",
    "list_ranking",
    "make_move",
    "move_between",
    "padded",
    "parity_state",
    "protect",
    "random_graph",
    "sudoku_trajectory",
    "trajectory",
    "transition",
]

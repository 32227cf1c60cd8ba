"""Generation that may remask, insert and delete: teachers, the transition, and supervision."""

from mdmjax.anyprocess.teachers import (
    IGNORE,
    Move,
    Teacher,
    apply,
    consistent,
    make_move,
    move_between,
    padded,
    trajectory,
)

__all__ = [
    "IGNORE",
    "Move",
    "Teacher",
    "apply",
    "consistent",
    "make_move",
    "move_between",
    "padded",
    "trajectory",
]

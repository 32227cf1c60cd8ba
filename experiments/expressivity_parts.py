"""What the studies of expressivity share: automata by name, circuits with their accounting."""

import bisect
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import build
from experiments.found import Found
from mdmjax import expressivity
from mdmjax.base import Estimate
from mdmjax.expressivity import Circuit, MonoidTask, Stages, accounting

AUTOMATA = {name: getattr(expressivity, name) for name in ("parity", "s3", "a5", "s5")}
REGEX = "regex:"


class Method(NamedTuple):
    """A way to compute a word problem, and the steps and cells that it is said to take."""

    build: Callable[[MonoidTask, int], Circuit | Stages]
    cost: Callable[[int], accounting.Cost]


CHAIN = "chain of thought"
METHODS = {
    "tree": Method(expressivity.tree, accounting.tree),
    "level-expanded scan": Method(expressivity.level_expanded, accounting.level_expanded),
    "two-sweep scan": Method(expressivity.two_sweep, accounting.two_sweep),
    "Hillis-Steele": Method(expressivity.hillis_steele, accounting.hillis_steele),
    "Hillis-Steele, copied": Method(
        functools.partial(expressivity.hillis_steele, copied=True),
        functools.partial(accounting.hillis_steele, copied=True),
    ),
    CHAIN: Method(expressivity.chain_of_thought, accounting.chain_of_thought),
}


class Part(NamedTuple):
    """A part of a study: what has to be measured, by name, and what is told of all that was."""

    jobs: Mapping[str, Callable[[], Any]]  # each gives a row of numbers
    told: Callable[[Mapping[str, np.ndarray]], Found]


def task_of(name: str, max_size: int, field: str = "constructions.automata") -> MonoidTask:
    """The word problem of a name, or of `regex:PATTERN/ALPHABET`. ValueError in one line for what is neither."""
    try:
        if not name.startswith(REGEX):
            known = {**AUTOMATA, f"{REGEX}PATTERN/ALPHABET": None}
            return expressivity.monoid_task(build.choose(name, field, known)(), max_size)
        pattern, slash, alphabet = name.removeprefix(REGEX).rpartition("/")
        if not slash:
            raise ValueError("must be regex:PATTERN/ALPHABET, such as regex:(a|b)*abb/ab")
        return expressivity.monoid_task(expressivity.regular_expression(pattern, alphabet), max_size)
    except ValueError as error:
        said = str(error).replace("max_size=", "constructions.max_size=")
        raise ValueError(said if said.startswith(f"{field}=") else f"{field}={name!r}: {said}") from None


def tasks_of(c) -> dict[str, MonoidTask]:
    """The word problems of a group of fields. ValueError where there are none, or one twice."""
    check_names("constructions.automata", c.automata)
    return {name: task_of(name, c.max_size) for name in c.automata}


def check_names(field: str, names: Sequence[str]) -> None:
    """ValueError that names the field for names that are none, no texts, or one of them twice."""
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{field}={names}: {name!r} must be a name")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{field}={names}: at least one, each named once")


def check_numbers(
    field: str, values: Sequence[float], least: float = 1, most: float = math.inf, *,
    rising: bool = True, whole: bool = True,
) -> None:  # fmt: skip
    """ValueError that names the field for values that are none, not numbers, outside least..most, or do not rise; or,
    where they need not rise, for one of them twice."""
    values = tuple(values)
    limits = f"at least {least}" if most == math.inf else f"in {least}..{most}"
    for x in values:
        if isinstance(x, bool) or not isinstance(x, int if whole else (int, float)):
            raise ValueError(f"{field}={values}: {x!r} must be a {'whole ' * whole}number")
        if not least <= x <= most:
            raise ValueError(f"{field}={values}: {x} must be {limits}")
    if not values or len(set(values)) != len(values) or (rising and sorted(values) != list(values)):
        order = "each larger than the one before" if rising else "each once"
        raise ValueError(f"{field}={values}: at least one, and {order}")


def check_size(field: str, length: int, size: Callable[[int], int], most: int, what: str) -> None:
    """ValueError that names the field where `size(N)`, which grows with N, is more than `most`, and says which N would
    do."""
    if size(length) > most:
        largest = bisect.bisect_right(range(1, min(length, 1 << 40)), most, key=size)
        possible = f"N at most {largest:,}" if largest else "fewer words"
        raise ValueError(f"{field}: N={length}: {size(length):,} {what}, more than {most:,}: {possible}")


def words_of(task: MonoidTask, seed: int, count: int, length: int) -> np.ndarray:
    """Uniform words, which depend on the seed and the length alone."""
    return np.random.default_rng([seed, length]).integers(0, len(task.label), (count, length)).astype(np.int32)


def wrong_words(circuit: Circuit | Stages, task: MonoidTask, words: np.ndarray, tokens: np.ndarray) -> int:
    """Words with a wrong state of the automaton behind any prefix that the final canvas tells, by reading along."""
    found = expressivity.read(circuit, np.asarray(tokens))
    states = task.elements[found, task.automaton.start] if circuit.op is task.mul else found
    exact = task.automaton.states(words)[:, -states.shape[1] :]
    return int((states != exact).any(1).sum())


def share(p: float, rows: int, what: str) -> Estimate:
    """A share of independent rows, with its standard error."""
    return Estimate(float(p), math.sqrt(p * (1 - p) / (rows - 1)), "share", rows, f"share of {what}")


def jit_briefly(f: Callable) -> Callable:
    """`jax.jit` of what runs once: compiled with as little effort as can be, for that is most of the time."""
    options = dict(xla_backend_optimization_level=0, xla_llvm_disable_expensive_passes=True)
    cpu = dict(xla_cpu_use_fusion_emitters=False) if jax.default_backend() == "cpu" else {}  # others do not know it
    return jax.jit(f, compiler_options=options | cpu)

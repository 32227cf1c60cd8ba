"""Strings, their alignments and what remains of them at a time, enumerated in plain Python."""

import functools
import itertools
from collections import defaultdict

import jax.numpy as jnp
import numpy as np

from mdmjax.anyprocess import GAP, Expected, align
from mdmjax.process import Polynomial

V, N = 3, 5  # two letters, and the token that every row begins with; columns and positions
START, PAD = 2, V + 1
EMPTY = {(): 1.0}
SOURCES = {(): 0.3, (0,): 0.3, (1, 0): 0.4}
TARGETS = [w for n in range(3) for w in itertools.product(range(2), repeat=n)]
STATES = [(START, *w) for n in range(N) for w in itertools.product(range(2), repeat=n)]


@functools.cache
def language():
    p = np.random.default_rng(5).gamma(0.5, size=len(TARGETS))
    return dict(zip(TARGETS, p / p.sum(), strict=True))


SCHEDULE = Polynomial(2.0)
alpha = lambda t: 1 - t * t


@functools.cache
def cases(kind):
    """(P(pair), columns, which of them show the target) for each source, target and choice of differing columns."""
    found = []
    for (a, p), (b, q) in itertools.product((EMPTY if kind == "empty" else SOURCES).items(), language().items()):
        columns = align((START, *a), (START, *b))
        differ = [i for i, (x, y) in enumerate(columns) if x != y]
        for chosen in itertools.product((False, True), repeat=len(differ)):
            shows = {i: c for i, c in zip(differ, chosen, strict=True)}
            found.append((p * q, columns, tuple(shows.get(i, True) for i in range(len(columns))), b))
    return found


def switched(columns, shows):
    """(how many columns have switched, how many remain), of those that differ."""
    on = [s for (x, y), s in zip(columns, shows, strict=True) if x != y]
    return sum(on), len(on) - sum(on)


def chance(kappa, p, columns, shows):
    on, off = switched(columns, shows)
    return p * kappa**on * (1 - kappa) ** off


def remaining(columns, shows):
    """(state, [(kind, position, token)] of the edits that remain)."""
    state, edits = [], []
    for (x, y), shown in zip(columns, shows, strict=True):
        z = y if shown else x
        state += [] if z == GAP else [z]
        if x != y and not shown:
            edits.append(("insert" if x == GAP else "delete" if y == GAP else "substitute", len(state) - 1, y))
    return tuple(state), edits


@functools.cache
def posterior(kind, kappa):
    """{state: expected number of each edit} where a column shows the target with probability kappa, and P(state)."""
    mass, table = defaultdict(float), {}
    for p, columns, shows, _ in cases(kind):
        state, edits = remaining(columns, shows)
        m = chance(kappa, p, columns, shows)
        if m == 0:
            continue
        mass[state] += m
        counts = table.setdefault(state, dict(insert=np.zeros((N, V)), substitute=np.zeros((N, V)), delete=np.zeros(N)))
        for name, i, y in edits:
            counts[name][i if name == "delete" else (i, y)] += m
    return {s: {k: x / mass[s] for k, x in counts.items()} for s, counts in table.items()}, mass


def rows(kind):
    """source, target, shows [C, N] of the cases."""
    source = np.full((len(cases(kind)), N), GAP, np.int32)
    target, shows = source.copy(), np.zeros(source.shape, bool)
    for row, (_, columns, shown, _) in enumerate(cases(kind)):
        source[row, : len(columns)], target[row, : len(columns)] = np.array(columns).T
        shows[row, : len(columns)] = shown
    return jnp.asarray(source), jnp.asarray(target), jnp.asarray(shows)


def says(kind, kappa, states):
    """The logarithms that the posterior says of the states, [S, N, ...]."""
    known, _ = posterior(kind, kappa)
    none = dict(insert=np.zeros((N, V)), substitute=np.zeros((N, V)), delete=np.zeros(N))
    with np.errstate(divide="ignore"):
        return [np.log(np.stack([known.get(s, none)[k] for s in states])) for k in Expected._fields]


def of_cases(kind):
    return [remaining(columns, shows)[0] for _, columns, shows, _ in cases(kind)]

"""Exact output laws of planners that look at what is drawn, or take tokens back: twins of `mdmjax.sampling` on tables.

A planner is a list of kernels, one for each step: `kernel(state) -> [(next state, probability), ...]` on the partially
masked sequences, tuples of L tokens, the mask being V. Written to be read, in float64 on the host: for L up to 4 or so.
"""

import collections
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float

from mdmjax.analysis.sampler_laws import Law, Table

State = tuple
Kernel = Callable[[State], list[tuple[State, float]]]


def chain_law(table: Table, kernels: Iterable[Kernel], start: Sequence[float]) -> Law:
    """The law, of shape [V] * L, of what the kernels make of `start`. ValueError where masks may be left."""
    length, vocab = table.shape[1:]
    states = {tuple(start): 1.0}
    for kernel in kernels:
        after = collections.defaultdict(float)
        for state, weight in states.items():
            for other, p in kernel(state):
                after[other] += weight * p
        states = after
    law = np.zeros((vocab,) * length)
    for state, weight in states.items():
        if vocab in state[:length]:
            raise ValueError(f"the last step leaves masks: {state}")
        law[state[:length]] += weight
    return law


class Conditionals:
    """p[state] [L, V]: softmax of the logits in a state, of which the first L entries are read."""

    def __init__(self, table: Table):
        self.length, self.vocab = table.shape[1:]
        logits = np.asarray(table, np.float64)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        self.p = (p / p.sum(-1, keepdims=True)).reshape(*[self.vocab + 1] * self.length, self.length, self.vocab)

    def __getitem__(self, state: State) -> Float[np.ndarray, "L V"]:
        return self.p[tuple(state[: self.length])]

    def masks(self, state: State) -> list[int]:
        return [i for i in range(self.length) if state[i] == self.vocab]


def proposals(table: Table, rule: Callable) -> Kernel:
    """A token is drawn at each mask, and `rule(state, drawn, p)` is the next state. `drawn` has visible tokens too."""
    p = Conditionals(table)

    def kernel(state: State):
        masks, here, out = p.masks(state), p[state], []
        for values in itertools.product(range(p.vocab), repeat=len(masks)):
            drawn = list(state)
            for i, v in zip(masks, values, strict=True):
                drawn[i] = v
            out.append((tuple(rule(state, drawn, here)), math.prod(here[i, v] for i, v in zip(masks, values))))  # noqa: B905
        return out

    return kernel


def at_once(table: Table, choices: Callable[[State], list[tuple[tuple[int, ...], float]]]) -> Kernel:
    """Some positions are drawn anew: `choices(state) -> [(positions, probability), ...]`, whatever stands there.

    Each from its own conditional, with that position masked and all others as they are.
    """
    p = Conditionals(table)

    def kernel(state: State):
        out = []
        for positions, weight in choices(state):
            own = [p[(*state[:i], p.vocab, *state[i + 1 :])][i] for i in positions]
            for values in itertools.product(range(p.vocab), repeat=len(positions)):
                after = list(state)
                for i, v in zip(positions, values, strict=True):
                    after[i] = v
                out.append((tuple(after), weight * math.prod(q[v] for q, v in zip(own, values, strict=True))))
        return out

    return kernel


def plackett_luce_sets(weights: dict[int, float], count: int) -> list[tuple[tuple[int, ...], float]]:
    """(set, probability) of the first `count` of a Plackett-Luce order of the keys; all keys where they are fewer."""
    sets = collections.defaultdict(float)
    for order in itertools.permutations(weights, min(count, len(weights))):
        p, left = 1.0, sum(weights.values())
        for i in order:
            p, left = p * weights[i] / left, left - weights[i]
        sets[tuple(sorted(order))] += p
    return list(sets.items())


def informed_sweep(table: Table, start: Sequence[int], count: int, temperature: float) -> Kernel:
    """The sweep of `InformedCorrector`, temperature > 0, with exact conditionals; `start` says what was given."""
    p = Conditionals(table)

    def choices(state: State):
        weights = {}
        for i in range(p.length):
            if start[i] == p.vocab != state[i]:
                own = np.log(p[(*state[:i], p.vocab, *state[i + 1 :])][i])
                advantage = own[state[i]] - np.delete(own, state[i]).max()
                weights[i] = math.exp(-advantage / temperature)
        return plackett_luce_sets(weights, count)

    return at_once(table, choices)


def remasking(table: Table, start: Sequence[int], sigma: float, reveal: float, by_confidence: bool = False) -> Kernel:
    """A step of `ReMDM`: each token masked with probability sigma, each mask revealed with probability `reveal`.

    By confidence a state has L more entries, the probabilities of its tokens when they were written, and sigma is
    shared out by softmax(-those) over the tokens that were not given.
    """
    p = Conditionals(table)

    def kernel(state: State):
        here, length = p[state], p.length
        sure = state[length:]
        written = [i for i in range(length) if start[i] == p.vocab != state[i]]
        rates = {i: sigma for i in written}
        if by_confidence:
            total = sum(math.exp(-sure[i]) for i in written)
            rates = {i: sigma * math.exp(-sure[i]) / total for i in written}
        options: list[list] = []  # of each position: (token, its probability when written, probability)
        for i in range(length):
            old = sure[i] if by_confidence else 0.0
            if i in rates:
                options.append([(state[i], old, 1 - rates[i]), (p.vocab, 0.0, rates[i])])
            elif state[i] == p.vocab:
                new = [(v, here[i, v] if by_confidence else 0.0, reveal * here[i, v]) for v in range(p.vocab)]
                options.append([(p.vocab, 0.0, 1 - reveal), *new])
            else:
                options.append([(state[i], old, 1.0)])
        out = []
        for combination in itertools.product(*options):
            weight = math.prod(c[2] for c in combination)
            if weight:
                tail = tuple(c[1] for c in combination) if by_confidence else ()
                out.append(((*(c[0] for c in combination), *tail), weight))
        return out

    return kernel

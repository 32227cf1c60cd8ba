"""Regular expressions to minimal automata: Thompson's construction (1968), then subsets (Rabin and Scott, 1959)."""

import re
from typing import NamedTuple

import numpy as np

from mdmjax.expressivity.automata import Automaton, check_alphabet, minimised

MAX_STATES = 4096  # of the automaton before it is made minimal
MAX_PARTS = 20_000  # of the nondeterministic one
MAX_DEPTH = 25  # of parentheses


class _Machine(NamedTuple):
    free: list[list[int]]  # state -> states that are reached without a symbol
    read: list[tuple[frozenset[str], int] | None]  # state -> (symbols, next state)

    def state(self) -> int:
        if len(self.free) >= MAX_PARTS:
            raise ValueError(f"the pattern has more than {MAX_PARTS} parts: repeat less")
        self.free.append([])
        self.read.append(None)
        return len(self.free) - 1


def regular_expression(pattern: str, alphabet: str, max_states: int = MAX_STATES) -> Automaton:
    """The minimal automaton of the words over `alphabet` that match all of `pattern`.

    Understood are symbols, `.` (any symbol), `[ab]`, `[a-c]`, `[^a]`, `(...)`, `|`, `*`, `+`, `?`, `{m}`, `{m,}`,
    `{m,n}` and `\\` before a symbol that would mean one of these. ValueError that says where and what for everything
    else, for symbols outside the alphabet, and above `max_states` states.
    """
    check_alphabet(alphabet)
    tree = _Parser(pattern, alphabet).parse()
    machine = _Machine([], [])
    start, end = _build(machine, tree)

    def closed(states):
        found, stack = set(states), list(states)
        while stack:
            for after in machine.free[stack.pop()]:
                if after not in found:
                    found.add(after)
                    stack.append(after)
        return frozenset(found)

    order = [closed([start])]
    number, rows = {order[0]: 0}, []
    for subset in order:
        moves = [machine.read[q] for q in subset if machine.read[q] is not None]
        row = []
        for symbol in alphabet:
            after = closed([to for symbols, to in moves if symbol in symbols])
            if after not in number:
                if len(order) >= max_states:
                    raise ValueError(f"pattern {pattern!r}: more than {max_states} states, the limit")
                number[after] = len(order)
                order.append(after)
            row.append(number[after])
        rows.append(row)
    accepting = np.array([end in subset for subset in order])
    return minimised(Automaton(np.array(rows, np.int32).T, 0, accepting, tuple(alphabet)))


class _Parser:
    """Recursive descent. A tree is ("set", symbols), ("join", parts), ("either", parts) or ("repeat", part, m, n)."""

    def __init__(self, pattern: str, alphabet: str):
        self.pattern, self.alphabet, self.at, self.depth = pattern, alphabet, 0, 0

    def parse(self):
        tree = self.either()
        if self.at < len(self.pattern):
            raise self.wrong("closes no parenthesis")
        return tree

    def wrong(self, what: str) -> ValueError:
        place = f"{self.pattern[self.at]!r} at {self.at}" if self.at < len(self.pattern) else "its end"
        return ValueError(f"pattern {self.pattern!r}: {place} {what}")

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self, symbol: str) -> bool:
        found = self.peek() == symbol
        self.at += found
        return found

    def either(self):
        parts = [self.join()]
        while self.take("|"):
            parts.append(self.join())
        return ("either", parts)

    def join(self):
        parts = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.repeat())
        return ("join", parts)

    def repeat(self):
        part = self.atom()
        if self.peek() == "{":
            found = re.compile(r"\{(\d+)(,?)(\d*)\}", re.ASCII).match(self.pattern, self.at)
            if found is None or (found[3] and not found[2]):
                raise self.wrong("begins no count such as {2}, {2,} or {2,5}")
            least = int(found[1])
            most = None if found[2] and not found[3] else int(found[3] or found[1])
            if (most is not None and most < least) or max(least, most or 0) > MAX_PARTS:
                raise self.wrong(f"begins a count that must rise, and be at most {MAX_PARTS}")
            self.at = found.end()
            part = ("repeat", part, least, most)
        elif self.peek() in ("*", "+", "?") and self.peek():
            part = ("repeat", part, *{"*": (0, None), "+": (1, None), "?": (0, 1)}[self.peek()])
            self.at += 1
        if self.peek() in ("*", "+", "?", "{") and self.peek():
            raise self.wrong("repeats a repetition: use parentheses")
        return part

    def atom(self):
        if self.take("("):
            if self.peek() == "?":
                raise self.wrong("is not understood: groups are plain (...)")
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.wrong(f"is inside more than {MAX_DEPTH} parentheses")
            tree = self.either()
            if not self.take(")"):
                raise self.wrong("leaves a parenthesis open")
            self.depth -= 1
            return tree
        if self.take("["):
            return ("set", self.symbols())
        if self.take("."):
            return ("set", frozenset(self.alphabet))
        if self.peek() in "*+?{}]^$":
            raise self.wrong("has nothing to act on, or is not understood: write \\ before it if it is a symbol")
        return ("set", frozenset(self.symbol()))

    def symbol(self) -> str:
        if self.take("\\") and not self.peek():
            raise self.wrong("follows a \\ that needs a symbol")
        found = self.peek()
        if not found or found not in self.alphabet:
            raise self.wrong(f"is not in the alphabet {self.alphabet!r}")
        self.at += 1
        return found

    def symbols(self) -> frozenset[str]:
        others, found = self.take("^"), set()
        while self.peek() != "]":
            if not self.peek():
                raise self.wrong("leaves a bracket open")
            first = last = self.symbol()
            if self.take("-"):
                last = self.symbol()
            if last < first:
                self.at -= 1
                raise self.wrong(f"ends a range that does not rise from {first!r}")
            found |= {symbol for symbol in self.alphabet if first <= symbol <= last}
        if not found:
            raise self.wrong("closes a bracket without a symbol")
        self.at += 1
        return frozenset(set(self.alphabet) - found if others else found)


def _build(machine: _Machine, tree) -> tuple[int, int]:
    """(start, end) of the part of the machine that reads what `tree` matches."""
    kind, inner, *counts = tree
    start, end = machine.state(), machine.state()
    if kind == "set":
        machine.read[start] = (inner, end)
    elif kind == "either":
        for part in inner:
            first, last = _build(machine, part)
            machine.free[start].append(first)
            machine.free[last].append(end)
    else:
        least, most = counts or (0, 0)
        at = start
        parts = inner if kind == "join" else [inner] * (least if most is None else most)
        for k, part in enumerate(parts):
            if kind == "repeat" and k >= least:
                machine.free[at].append(end)
            first, last = _build(machine, part)
            machine.free[at].append(first)
            at = last
        if kind == "repeat" and most is None:
            first, last = _build(machine, inner)
            again = machine.state()
            machine.free[at].append(again)
            machine.free[again].append(first)
            machine.free[last].append(again)
            at = again
        machine.free[at].append(end)
    return start, end

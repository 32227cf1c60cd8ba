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


def regular_expression(pattern: str | None, alphabet: str, max_states: int = MAX_STATES) -> Automaton:
    """The minimal automaton of the words over `alphabet` that match all of `pattern`.

    Understood are symbols, `.` (any symbol), `[ab]`, `[a-c]`, `[^a]`, `(...)`, `|`, `*`, `+`, `?`, `{m}`, `{m,}`,
    `{m,n}`, and `\\` before a symbol that is no letter or digit (before these it means something else, as in `\\d`).
    ValueError that says where and what for everything else, for symbols outside the alphabet, and above `max_states`
    states.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"pattern={pattern!r}: must be a string")
    check_alphabet(alphabet)
    machine = _Machine([], [])
    start, end = _build(machine, _Parser(pattern, alphabet).parse())
    readers, closed = _closures(machine, end)
    width = -(-(len(readers) + 1) // 64) * 8  # bytes of a subset of the readers and the end
    packed = lambda masks: np.frombuffer(b"".join(m.to_bytes(width, "little") for m in masks), np.uint64)
    rows = []
    for symbol in alphabet:
        after = (machine.read[q] for q in readers)
        masks = [closed[to] if symbol in symbols else 0 for symbols, to in after]
        rows.append(packed(masks).reshape(len(readers), width // 8))
    order = [packed([closed[start]]).tobytes()]
    number, delta = {order[0]: 0}, []
    members = lambda subset: np.unpackbits(np.frombuffer(subset, np.uint8), bitorder="little")[: len(readers) + 1]
    for subset in order:
        at = np.flatnonzero(members(subset)[:-1])
        delta.append([])
        for row in rows:
            after = np.bitwise_or.reduce(row[at], 0).tobytes()
            if after not in number:
                if len(order) >= max_states:
                    raise ValueError(f"pattern {pattern!r}: more than {max_states} states, the limit")
                number[after] = len(order)
                order.append(after)
            delta[-1].append(number[after])
    accepting = np.array([members(subset)[-1] for subset in order], bool)
    return minimised(Automaton(np.array(delta, np.int32).T, 0, accepting, tuple(alphabet)))


def _closures(machine: _Machine, end: int) -> tuple[list[int], list[int]]:
    """(states that read a symbol, for every state the bits of those that it reaches without one; the last is `end`)."""
    readers = [q for q, read in enumerate(machine.read) if read is not None]
    closed = [0] * len(machine.free)
    for bit, q in enumerate([*readers, end]):
        closed[q] = 1 << bit
    order, seen = [], set()  # what a state reaches comes before it, but for loops
    for root in range(len(machine.free)):
        stack = [(root, iter(machine.free[root]))] if root not in seen else []
        seen.add(root)
        while stack:
            state, rest = stack[-1]
            after = next((q for q in rest if q not in seen), None)
            if after is None:
                order.append(state)
                stack.pop()
            else:
                seen.add(after)
                stack.append((after, iter(machine.free[after])))
    changed = True
    while changed:  # once more for each loop inside a loop
        changed = False
        for state in order:
            more = closed[state]
            for after in machine.free[state]:
                more |= closed[after]
            changed |= more != closed[state]
            closed[state] = more
    return readers, closed


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
            if re.compile(r"\{,\d*\}", re.ASCII).match(self.pattern, self.at):
                raise self.wrong("begins a count without its least number: write {0,2} for {,2}")
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
        if self.take("\\"):
            if not self.peek():
                raise self.wrong("follows a \\ that needs a symbol")
            if self.peek().isascii() and self.peek().isalnum():
                raise self.wrong("follows a \\, which stands only before what is no letter or digit")
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

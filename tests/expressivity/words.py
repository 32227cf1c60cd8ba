"""Tasks and random words of the tests about expressivity."""

import functools

import numpy as np

from mdmjax.expressivity import a5, ends_with, monoid_task, parity, s3, s5

AUTOMATA = {"parity": parity, "s3": s3, "a5": a5, "s5": s5, "ends with ab": lambda: ends_with("ab", "ab")}


@functools.cache
def task(name):
    return monoid_task(AUTOMATA[name]())


def random_words(count, length, symbols=2, seed=0):
    return np.random.default_rng(seed).integers(0, symbols, (count, length)).astype(np.int32)

"""Clean rows, corrupted in each way."""

import functools

import jax
import jax.numpy as jnp

from mdmjax.anyprocess.corruptions import delete, insert, mixed, remask, unmask
from mdmjax.process import ExactCount

KINDS = dict(
    unmask=unmask(ExactCount()),
    remask=remask(),
    insert=insert(),
    delete=delete(),
    released=delete(labels="iid"),
    mixed=mixed(),
)


@functools.partial(jax.jit, static_argnames=("corruption", "vocab", "batch"))
def draw(corruption, key, ids, tokens, lengths, vocab, batch):
    return corruption.draw(key, ids, tokens, lengths, vocab=vocab, batch=batch)


@functools.partial(jax.jit, static_argnames=("corruption", "vocab", "size"))
def corrupt(corruption, tokens, lengths, noise, vocab, size=None):
    return corruption.corrupt(tokens, lengths, noise, vocab=vocab, size=size)


@functools.partial(jax.jit, static_argnames=("corruption", "vocab"))
def both(corruption, key, tokens, lengths, vocab):
    noise = corruption.draw(key, jnp.arange(len(tokens)), tokens, lengths, vocab=vocab, batch=len(tokens))
    return noise, corruption.corrupt(tokens, lengths, noise, vocab=vocab)


def made(corruption, tokens, vocab, seed=0, lengths=None):
    """(noise, corrupted rows) of clean rows that are one batch."""
    rows, size = tokens.shape
    lengths = jnp.full(rows, size) if lengths is None else lengths
    return both(corruption, jax.random.key(seed), tokens, lengths, vocab)

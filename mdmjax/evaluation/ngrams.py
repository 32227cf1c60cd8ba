"""N-gram baselines: what a model of a few tokens of context reaches on the same split.

Order k looks at the k tokens before. Each order is interpolated with the next lower one by the rule of Witten and Bell
(1991, "The zero-frequency problem"; method C in Chen and Goodman 1999, eq. 8), which has no parameter to fit:

    p_k(w | h) = (c(h w) + T(h) p_{k-1}(w | h')) / (c(h) + T(h)),      p_{-1}(w) = 1 / V

with h the k tokens before w, h' the last k - 1 of them, c(h w) the count of h followed by w in the training text,
c(h) = sum_w c(h w), and T(h) the number of distinct w that followed h. A context that never occurred has c = T = 0 and
p_k = p_{k-1}. The first tokens of a text, which have fewer than k before them, are predicted by the order they allow.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Float64, Integer

from mdmjax.base import Estimate
from mdmjax.evaluation.blocks import BLOCKS, ratio


@dataclasses.dataclass(frozen=True)
class _Order:
    """The counts of one order. A (k+1)-gram is named by its rank among those of the training text."""

    keys: np.ndarray  # sorted int64: (rank of the k-gram) * V + (next token), one for each (k+1)-gram
    counts: np.ndarray  # c(h w), for each key
    context_count: np.ndarray  # c(h), by the rank of h among the k-grams
    context_types: np.ndarray  # T(h), by the same rank


@dataclasses.dataclass(frozen=True)
class NGrams:
    """Counts of a training text, for all orders up to `len(orders) - 1`."""

    vocab: int
    orders: tuple[_Order, ...]

    def probabilities(self, tokens: Integer[np.ndarray, "N"]) -> Float64[np.ndarray, "K N"]:
        """p_k(tokens[i] | tokens[:i]) for each order k = 0..K-1."""
        tokens = _checked(tokens, self.vocab)
        result = np.empty((len(self.orders), len(tokens)))
        p = np.full(len(tokens), 1 / self.vocab)
        # rank[i]: of the k-gram that ends before token i; -1 if it is unseen, or cut off by the start of the text
        rank = np.zeros(len(tokens) + 1, np.int64)
        for k, order in enumerate(self.orders):
            context = rank[:-1]
            keys = context * self.vocab + tokens
            place = np.minimum(np.searchsorted(order.keys, keys), len(order.keys) - 1)
            seen = (context >= 0) & (order.keys[place] == keys)
            types = np.where(context >= 0, order.context_types[context], 0)
            total = np.where(context >= 0, order.context_count[context], 0) + types
            p = np.where(total > 0, (np.where(seen, order.counts[place], 0) + types * p) / np.maximum(total, 1), p)
            result[k] = p
            rank = np.concatenate([np.full(1, -1), np.where(seen, place, -1)])
        return result


def fit(tokens: Integer[np.ndarray, "N"], vocab: int, max_order: int = 4) -> NGrams:
    """Counts all n-grams of a text [N], up to `max_order` tokens of context. ValueError for ids outside 0..V-1.

    Names of n-grams are ranks < N, so their keys stay below N V and fit 64 bits at any order and vocabulary.
    """
    tokens = _checked(tokens, vocab)
    if len(tokens) == 0:
        raise ValueError("the training text of the n-grams is empty: at least one token is needed")
    orders = []
    rank, contexts = np.zeros(len(tokens), np.int64), 1  # rank[i]: of the k-gram before token i + k
    for k in range(min(max_order + 1, len(tokens))):
        keys, inverse, counts = np.unique(rank * vocab + tokens[k:], return_inverse=True, return_counts=True)
        context = keys // vocab
        orders.append(
            _Order(
                keys=keys,
                counts=counts,
                context_count=np.bincount(context, weights=counts, minlength=contexts).astype(np.int64),
                context_types=np.bincount(context, minlength=contexts),
            )
        )
        rank, contexts = inverse.reshape(-1)[:-1], len(keys)  # the last one is followed by nothing
    while len(orders) < max_order + 1:  # a text of k tokens has no contexts of k: those orders know nothing
        orders.append(_Order(np.full(1, -1), np.zeros(1, np.int64), np.zeros(contexts, int), np.zeros(contexts, int)))
    return NGrams(vocab, tuple(orders))


def baselines(
    train: Integer[np.ndarray, "N"],
    held_out: Integer[np.ndarray, "M"],
    vocab: int,
    max_order: int = 4,
    max_train: int = 10_000_000,
    max_held_out: int = 2_000_000,
    chunk: int = 2**18,
) -> tuple[Estimate, ...]:
    """Cross-entropy of orders 0..max_order on a held-out text, in nats/token, each an Estimate.

    The error bar is that of `blocks.ratio` over runs of text. At most `chunk` tokens are scored at a time, so memory
    does not grow with the held-out text. At most the first `max_train` training tokens are counted and the first
    `max_held_out` of the others scored, which `estimator` then says. ValueError for an empty text or ids outside
    0..V-1.
    """
    if len(held_out) == 0:
        raise ValueError("the held-out text is empty: at least one token is needed")
    limits = [
        f", first {most} {name} tokens"
        for name, text, most in (("training", train, max_train), ("held-out", held_out, max_held_out))
        if len(text) > most
    ]
    held_out = held_out[:max_held_out]
    model = fit(train[:max_train], vocab, max_order)
    blocks = min(BLOCKS, len(held_out))
    edges = np.arange(blocks + 1) * len(held_out) // blocks

    def nats(start: int, end: int) -> Float64[np.ndarray, "K"]:
        before = min(start, max_order)  # tokens that are context only
        return -np.log(model.probabilities(held_out[start - before : end])[:, before:]).sum(1)

    sums = np.stack(
        [
            sum(nats(place, min(place + chunk, end)) for place in range(start, end, chunk))
            for start, end in itertools.pairwise(edges.tolist())
        ]
    )
    return tuple(
        ratio(sums[:, k], np.diff(edges), "nats/token", f"order-{k} n-gram, Witten-Bell{''.join(limits)}")
        for k in range(max_order + 1)
    )


def _checked(tokens: np.ndarray, vocab: int) -> np.ndarray:
    tokens = np.asarray(tokens).astype(np.int64)
    if tokens.size and not (0 <= tokens.min() and tokens.max() < vocab):
        raise ValueError(f"the text holds ids {tokens.min()}..{tokens.max()} where 0..{vocab - 1} are expected")
    return tokens

"""Decoding in blocks with keys and values that are kept: how much quicker, and how far from the network itself.

    python -m benchmarks.block_cache [--run runs/demo] [--out results/benchmarks/block_cache.json]

Rows of masks are filled in blocks from left to right, each in so many steps by confidence: as it is, with the exact
cache (the network is then block-causal) and with the approximate ones, of the prefix and of both sides (it sees
everything). Ratios of seconds are taken within a round. The error is the total variation between the distributions that
such a cache and the network give for a mask of the current block, over the masks and calls of a run of the cached
sampler: a mean and the largest. Without `--run`, a folder of `experiments.train` whose network knows no time, the
parameters are random, and so is the error.
"""

import argparse
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import interleaved, matmul, write
from mdmjax.networks import BlockCausal, TransformerConfig, parameter_count, transformer
from mdmjax.process import Linear
from mdmjax.reports import environment
from mdmjax.sampling import BlockCache, Blocks, Confidence, sample


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = dict(depth=6, width=384, heads=6, length=256, batch=4, vocab=35, block=32, steps=8, rounds=3)
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--run", default="", help="folder of a training run; its sizes take the place of the others")
    parser.add_argument("--matmul", type=int, help="rows of the yardstick")
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def trained(folder: str) -> tuple[TransformerConfig, dict]:
    """The network of a run and its averaged parameters. ValueError for one that is conditioned on time."""
    from experiments import runs

    run = runs.load(folder)
    config = run.experiment.model.config
    if config.time or config.causal:
        raise ValueError(f"--run {folder}: the network must be bidirectional, and know no time")
    return config, run.params


def errors(cache: BlockCache, tokens: jax.Array, vocab: int) -> tuple[jax.Array, jax.Array]:
    """(mean, largest) total variation at the masks of the current block, over the canvases `tokens` [T + 1, B, L] that
    a run went through."""
    length = tokens.shape[2]
    positions = jnp.arange(length)

    def call(kept, canvas):
        masks = canvas == vocab
        block = jnp.argmax(masks, 1) // cache.length
        start = jnp.minimum(block * cache.length, length - cache.length)
        at = start[:, None] + jnp.arange(cache.length)[None]
        logits, kept = cache.remember(canvas, None, at, kept, vocab)
        exact = cache.network(canvas, at=at)
        apart = jnp.abs(jax.nn.softmax(logits) - jax.nn.softmax(exact)).sum(-1) / 2
        asked = jnp.take_along_axis(masks, at, 1) & (positions[at] // cache.length == block[:, None])
        return kept, (jnp.where(asked, apart, 0).sum(), asked.sum(), jnp.where(asked, apart, 0).max())

    _, (total, count, most) = jax.lax.scan(call, cache.begin(tokens[0], vocab), tokens[:-1])
    return total.sum() / count.sum(), most.max()


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON."""
    if args.run:
        config, params = trained(args.run)
    else:
        config = TransformerConfig(args.vocab, args.length, args.width, args.depth, args.heads)
        params = jax.jit(transformer(config).init)(jax.random.key(0))
    causal = dataclasses.replace(config, attention=BlockCausal(args.block))
    planner, vocab = Blocks(Confidence(Linear(), args.steps), args.block), config.vocab
    masks = jnp.full((args.batch, config.length), vocab)

    def run(denoiser, trace=False):
        return jax.jit(
            lambda params, tokens: sample(
                denoiser(params), planner, tokens, vocab=vocab, key=jax.random.key(0), trace=trace
            )
        )

    approximate = {
        kind: lambda params, kind=kind: BlockCache(transformer(config).bind(params), args.block, kind)
        for kind in ("prefix", "dual")
    }
    ways = {
        "whole rows": run(transformer(config).bind),
        "block-causal": run(transformer(causal).bind),
        "exact": run(lambda params: BlockCache(transformer(causal).bind(params), args.block)),
        **{kind: run(made) for kind, made in approximate.items()},
    }
    multiply, flops = matmul(jax.devices()[:1], jnp.float32, args.matmul)
    seconds = interleaved(*(lambda way=way: way(params, masks) for way in ways.values()), multiply, rounds=args.rounds)
    calls = int(ways["exact"](params, masks).calls)
    found = {}
    for kind, made in approximate.items():
        trace = run(made, trace=True)(params, masks).trace
        mean, most = jax.jit(lambda params, tokens, made=made: errors(made(params), tokens, vocab))(
            params, trace.tokens
        )
        found[kind] = {"mean": float(mean), "largest": float(most)}
    column = dict(zip(ways, seconds.T, strict=False))
    return {
        "benchmark": "block_cache",
        "environment": environment(),
        "config": {k: v for k, v in vars(args).items() if k not in ("out", "run")} | {"length": config.length},
        "trained": bool(args.run),
        "parameters": parameter_count(params),
        "calls": calls,
        "matmul_flops_per_second": float(np.median(flops / seconds[:, -1])),
        "call_seconds": {name: float(np.median(x)) / calls for name, x in column.items()},
        "speedup": {
            "exact": float(np.median(column["block-causal"] / column["exact"])),
            **{kind: float(np.median(column["whole rows"] / column[kind])) for kind in found},
        },
        "error": found,
    }


def main() -> None:
    args = arguments()
    write(measure(args), args.out)


if __name__ == "__main__":
    main()

"""Cost of a sampling step: against a bare forward pass, and with the readout at some positions only.

    python -m benchmarks.sample_step [--vocab 50257 --steps 32] [--out results/benchmarks/sample_step.json]

The defaults are 6 layers, width 384, 6 heads, length 256, batch 4, V = 35, float32. A step is a whole run of the engine
divided by its denoiser calls, so planning, the token draw and the writing are in it; the bare forward pass is one of as
many in a compiled loop, each waiting for the one before. "full" asks logits of all
positions at each call; "asked" of `capacity` positions a row (one for first-hitting), and of all where a row needs
more. Tokens/s are those that a forward pass reads, and those that a run writes.

Model FLOPs are 2 for each parameter that multiplies and each token that it multiplies: the readout counts the positions
asked for, the embedding none; attention's own products are not counted. Each round times a matmul, the forward pass,
the runs, and the matmul again, one after the other; what is printed are medians over rounds, and ratios are taken
within a round, fractions of the matmul against the mean of the two.
"""

import argparse
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import forward_matmuls, interleaved, matmul, measured_peak, memory, write
from mdmjax.networks import TransformerConfig, forward_flops, parameter_count, transformer
from mdmjax.process import Linear
from mdmjax.reports import environment
from mdmjax.sampling import Ancestral, Confidence, FirstHitting, sample


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = dict(depth=6, width=384, heads=6, length=256, batch=4, vocab=35, steps=8, rounds=5)
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--capacity", type=int, help="positions asked at once; default: twice length / steps")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of activations")
    parser.add_argument("--matmul", type=int, help="rows of the yardstick; default: 2048 on CPU, 8192 elsewhere")
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def positions_read(run) -> int:
    """Positions whose logits `run(denoiser)` asked for in all its calls, counted with a denoiser that costs nothing.

    How many they are depends on the plan of the sampler, and for no planner here on the logits.
    """
    asked = []

    def denoiser(tokens, t=None, *, at=None):
        shape = (tokens if at is None else at).shape
        jax.debug.callback(lambda: asked.append(shape))
        return jnp.zeros((*shape, 2))

    jax.block_until_ready(jax.jit(lambda: run(denoiser).tokens)())
    jax.effects_barrier()
    return int(sum(np.prod(shape) for shape in asked))


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON."""
    capacity = min(args.length, args.capacity or 2 * -(-args.length // args.steps))
    dtype = jnp.dtype(args.dtype)
    config = TransformerConfig(
        vocab=args.vocab, length=args.length, width=args.width, depth=args.depth, heads=args.heads, dtype=dtype
    )
    model = transformer(config)
    params = jax.jit(model.init)(jax.random.key(0))
    masks = jnp.full((args.batch, args.length), args.vocab)
    infill = jnp.where(jnp.arange(args.length)[None] < args.steps, args.vocab, jnp.zeros_like(masks))
    runs = {
        "ancestral, full": (Ancestral(Linear(), args.steps), masks, None),
        "ancestral, asked": (Ancestral(Linear(), args.steps), masks, capacity),
        "confidence, full": (Confidence(Linear(), args.steps), masks, None),
        "first-hitting, asked": (FirstHitting(), infill, None),
    }

    multiply, matmul_flops = matmul(jax.devices()[:1], dtype, args.matmul)

    def passes(params, tokens):
        again = lambda _, tokens: jnp.where(jnp.isnan(model.bind(params)(tokens)).any(-1), 0, tokens)
        return jax.lax.fori_loop(0, args.steps, again, tokens)

    forward = jax.jit(passes).lower(params, masks).compile()
    timed, details = [lambda: forward(params, masks)], {}
    flops = [args.steps * forward_matmuls(params, masks.size, masks.size)]
    written = [args.steps * masks.size]
    for name, (planner, tokens, limit) in runs.items():

        def run(denoiser, tokens=tokens, planner=planner, limit=limit):
            return sample(denoiser, planner, tokens, vocab=args.vocab, key=jax.random.key(0), capacity=limit)

        began = time.perf_counter()
        whole = jax.jit(lambda params, tokens, run=run: run(model.bind(params), tokens))
        compiled = whole.lower(params, tokens).compile()
        compile_seconds = time.perf_counter() - began
        calls = int(compiled(params, tokens).calls)
        read = calls * args.batch * planner.width(args.length) if limit is None else positions_read(run)
        details[name] = {
            "calls": calls,
            "positions_read": read,
            "compile_seconds": compile_seconds,
            "memory_bytes": memory(compiled),
        }
        timed.append(lambda compiled=compiled, tokens=tokens: compiled(params, tokens))
        flops.append(forward_matmuls(params, calls * tokens.size, read))
        written.append(int((tokens == args.vocab).sum()))

    seconds = interleaved(multiply, *timed, multiply, rounds=args.rounds)
    reached = 2 * matmul_flops / (seconds[:, 0] + seconds[:, -1])
    seconds = seconds[:, 1:-1]
    steps = seconds / [args.steps, *(of["calls"] for of in details.values())]
    forward_details = {"memory_bytes": memory(forward)}
    for i, of in enumerate([forward_details, *details.values()]):
        of["seconds"] = float(np.median(seconds[:, i]))
        of["tokens_per_second"] = float(np.median(written[i] / seconds[:, i]))
        of["model_flops_per_second"] = float(np.median(flops[i] / seconds[:, i]))
        of["fraction_of_matmul"] = float(np.median(flops[i] / seconds[:, i] / reached))
        of["step_seconds"] = float(np.median(steps[:, i]))
        of["forward_passes_per_step"] = float(np.median(steps[:, i] / steps[:, 0]))
    return {
        "benchmark": "sample_step",
        "environment": environment(),
        "config": {**{k: v for k, v in vars(args).items() if k != "out"}, "capacity": capacity},
        "parameters": parameter_count(params),
        "forward_flops": forward_flops(config, args.batch, args.length),
        "matmul_flops_per_second": float(np.median(reached)),
        "forward": forward_details,
        "saving_by_asking": float(1 - np.median(steps[:, 2] / steps[:, 1])),
        "runs": details,
        "peak_bytes": measured_peak(),
    }


def main() -> None:
    args = arguments()
    jax.config.update("jax_enable_compilation_cache", False)  # or the compile time would be that of reading a file
    write(measure(args), args.out)


if __name__ == "__main__":
    main()

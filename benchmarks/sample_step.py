"""Cost of a sampling step: against a bare forward pass, and with the readout at some positions only.

    python -m benchmarks.sample_step [--vocab 50257 --steps 32 --capacity 16] [--out results/sample_step.json]

The defaults are 6 layers, width 384, 6 heads, length 256, batch 4, V = 35, float32. A step is a whole run of the engine
divided by its denoiser calls, so planning, the token draw and the writing are in it. "full" asks logits of all
positions at each call; "asked" of `capacity` positions a row (one for first-hitting), and of all where a row needs
more. Each round times a matmul, the forward passes and the runs one after the other; what is printed are medians over
rounds, and ratios are taken within a round.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import interleaved, machine, matmul, memory, write
from mdmjax.networks import TransformerConfig, parameter_count, transformer
from mdmjax.process import Linear
from mdmjax.sampling import Ancestral, Confidence, FirstHitting, sample


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = dict(depth=6, width=384, heads=6, length=256, batch=4, vocab=35, steps=8, rounds=5)
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--capacity", type=int, help="positions asked at once; default: twice length / steps")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of activations")
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    jax.config.update("jax_enable_compilation_cache", False)  # or the compile time would be that of reading a file
    capacity = min(args.length, args.capacity or 2 * -(-args.length // args.steps))
    config = TransformerConfig(
        vocab=args.vocab, length=args.length, width=args.width, depth=args.depth, heads=args.heads,
        dtype=jnp.dtype(args.dtype),
    )  # fmt: skip
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

    multiply, matmul_flops = matmul()
    forward = jax.jit(lambda params, tokens: model.bind(params)(tokens)).lower(params, masks).compile()
    timed, calls, details = [multiply, lambda: forward(params, masks)], [], {}
    for name, (planner, tokens, limit) in runs.items():

        def run(params, tokens, key, planner=planner, limit=limit):
            return sample(model.bind(params), planner, tokens, vocab=args.vocab, key=key, capacity=limit)

        began = time.perf_counter()
        compiled = jax.jit(run).lower(params, tokens, jax.random.key(0)).compile()
        seconds = time.perf_counter() - began
        calls.append(int(compiled(params, tokens, jax.random.key(0)).calls))
        details[name] = {"calls": calls[-1], "compile_seconds": round(seconds, 2), "memory_bytes": memory(compiled)}
        timed.append(lambda compiled=compiled, tokens=tokens: compiled(params, tokens, jax.random.key(0)))

    seconds = interleaved(*timed, rounds=args.rounds)
    steps = seconds[:, 2:] / np.array(calls)
    for i, name in enumerate(runs):
        details[name]["milliseconds_per_step"] = round(1e3 * float(np.median(steps[:, i])), 2)
        details[name]["forward_passes_per_step"] = round(float(np.median(steps[:, i] / seconds[:, 1])), 4)
    write(
        {
            "benchmark": "sample_step",
            "machine": machine(),
            "config": {**vars(args), "capacity": capacity},
            "parameters": parameter_count(params),
            "matmul_flops_per_second": matmul_flops / float(np.median(seconds[:, 0])),
            "forward_milliseconds": round(1e3 * float(np.median(seconds[:, 1])), 2),
            "forward_memory_bytes": memory(forward),
            "saving_by_asking": round(float(1 - np.median(steps[:, 1] / steps[:, 0])), 4),
            "runs": details,
        },
        args.out,
    )


if __name__ == "__main__":
    main()

"""Speed of a training step, as a fraction of what a plain matmul reaches on the same machine in the same run.

    python -m benchmarks.train_step [--vocab 50257 --head packed] [--out results/train_step.json]

The defaults are 6 layers, width 384, 6 heads, length 256, batch 8, V = 35, float32: 10.6M parameters. Model FLOPs are
6 x parameters x tokens (the convention; attention's own are not counted). Each round times a matmul, a step and a
matmul; the fraction is the median over rounds of the step's FLOP/s over that of the two matmuls.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import interleaved, machine, matmul, memory, write
from mdmjax import networks
from mdmjax.networks import TransformerConfig, forward_flops, parameter_count, transformer
from mdmjax.objectives import MaskedDiffusion, Packed, dense
from mdmjax.training import MeshLayout, Step, adamw, init_state, make_mesh


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(depth=6, width=384, heads=6, length=256, batch=8, vocab=35, rounds=10).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of activations")
    parser.add_argument("--attention", choices=["xla", "naive", "cudnn", "splash"], default="xla")
    parser.add_argument("--head", choices=["dense", "packed"], default="dense", help="packed: masked positions only")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    jax.config.update("jax_enable_compilation_cache", False)  # or the compile time would be that of reading a file
    layout = MeshLayout(make_mesh())
    dtype = jnp.dtype(args.dtype)
    attention = networks.Splash(mesh=layout.mesh) if args.attention == "splash" else getattr(networks, args.attention)
    config = TransformerConfig(
        vocab=args.vocab, length=args.length, width=args.width, depth=args.depth, heads=args.heads,
        attention=attention, dtype=dtype, remat=args.remat, scan=args.scan,
        constrain=layout.constrain, gather=layout.gather,
    )  # fmt: skip
    model = transformer(config)
    optimizer, rate = adamw(learning_rate=1e-3, steps=1000)
    nll = Packed(groups=layout.shards) if args.head == "packed" else dense
    step = Step(model.bind, MaskedDiffusion(args.vocab, nll=nll), optimizer, rate, size=args.batch)
    state = layout.init(lambda: init_state(model.init, optimizer, jax.random.key(0)))
    parameters = parameter_count(state.params)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, args.vocab, (args.batch, args.length), dtype=np.int32)
    batch = layout.put({"tokens": tokens, "ids": np.arange(args.batch, dtype=np.int32)})

    began = time.perf_counter()
    compiled = layout.step(step, state).lower(state, batch).compile()
    compile_seconds = time.perf_counter() - began

    def one_step():
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics["loss"]

    yardstick, matmul_flops = matmul(dtype=dtype)
    before, seconds, after = interleaved(yardstick, one_step, yardstick, rounds=args.rounds, warmup=3).T
    matmul_flops_per_second = 2 * matmul_flops / (before + after) * len(jax.devices())
    flops = 6 * parameters * tokens.size  # of the step
    median = float(np.median(seconds))
    result = {
        "benchmark": "train_step",
        "machine": machine(),
        "config": {k: v for k, v in vars(args).items() if k != "out"},
        "parameters": parameters,
        "forward_flops": forward_flops(config, args.batch, args.length),
        "step_seconds": {"median": median, "min": float(seconds.min()), "max": float(seconds.max())},
        "tokens_per_second": tokens.size / median,
        "model_flops_per_second": flops / median,
        "matmul_flops_per_second": float(np.median(matmul_flops_per_second)),
        "fraction_of_matmul": float(np.median(flops / seconds / matmul_flops_per_second)),
        "fraction_quartiles": np.quantile(flops / seconds / matmul_flops_per_second, [0.25, 0.75]).tolist(),
        "memory_bytes": memory(compiled),
        "logits_bytes": 4 * tokens.size * args.vocab,  # float32 [B, L, V] once, for comparison
        "compile_seconds": compile_seconds,
    }
    write(result, args.out)


if __name__ == "__main__":
    main()

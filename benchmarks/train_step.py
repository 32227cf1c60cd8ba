"""Speed of a training step, as a fraction of what a plain matmul reaches on the same machine in the same run.

    python -m benchmarks.train_step [--vocab 50257 --head packed] [--out results/benchmarks/train_step.json]

The defaults are 6 layers, width 384, 6 heads, length 256, batch 8, V = 35, float32: 10.6M parameters. Each round times
a matmul, a step and a matmul; a fraction is the median over rounds of the step's FLOP/s over that of the two matmuls.

Model FLOPs are 6 for each parameter that multiplies and each token that it multiplies, forward and backward: the
readout counts the tokens that are read (with `--head packed` a share of them, `read_share`), the embedding none, and
what is computed anew in the backward pass, and attention's own products, are not counted. Beside it stands the usual
convention, 6 x all parameters x all tokens (`..._by_convention`). At V = 35 they agree within 1 %; at V = 50,257, where
two thirds of the parameters are embedding and readout, the convention counts work that nobody does.

On Linux with a CPU, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment (huge pages for large arrays) matters;
`environment.variables` tells whether it was set.
"""

import argparse
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import forward_matmuls, interleaved, matmul, measured_peak, memory, write
from mdmjax import networks
from mdmjax.networks import TransformerConfig, forward_flops, parameter_count, transformer
from mdmjax.objectives import MaskedDiffusion, Packed, dense, systematic_share
from mdmjax.reports import environment
from mdmjax.training import MeshLayout, Step, adamw, init_state, make_mesh


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(depth=6, width=384, heads=6, length=256, batch=8, vocab=35, rounds=10).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of activations")
    parser.add_argument("--attention", choices=["xla", "naive", "cudnn", "splash"], default="xla")
    parser.add_argument("--head", choices=["dense", "packed"], default="dense", help="packed: masked positions only")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--matmul", type=int, help="rows of the yardstick; default: 2048 on CPU, 8192 elsewhere")
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON."""
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
    # Packed's own default, said here because it is what the FLOPs count.
    room = min(1.0, systematic_share(args.batch // layout.shards, args.length))
    nll, read_share = (Packed(room, layout.shards), room) if args.head == "packed" else (dense, 1.0)
    step = Step(model.bind, MaskedDiffusion(args.vocab, nll=nll), optimizer, rate, size=args.batch)
    state = layout.init(lambda: init_state(model.init, optimizer, jax.random.key(0)))
    parameters = parameter_count(state.params)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, args.vocab, (args.batch, args.length), dtype=np.int32)
    batch = layout.put({"tokens": tokens, "ids": np.arange(args.batch, dtype=np.int32)})
    flops = 3 * forward_matmuls(state.params, tokens.size, round(read_share * tokens.size))
    convention = 6.0 * parameters * tokens.size

    began = time.perf_counter()
    compiled = layout.step(step, state).lower(state, batch).compile()
    compile_seconds = time.perf_counter() - began

    def one_step():
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics["loss"]

    yardstick, matmul_flops = matmul(jax.devices(), dtype, args.matmul)
    before, seconds, after = interleaved(yardstick, one_step, yardstick, rounds=args.rounds, warmup=3).T
    reached = 2 * matmul_flops / (before + after)
    median = float(np.median(seconds))
    return {
        "benchmark": "train_step",
        "environment": environment(),
        "config": {k: v for k, v in vars(args).items() if k != "out"},
        "parameters": parameters,
        "read_share": read_share,
        "step_flops": flops,
        "step_flops_by_convention": convention,
        "forward_flops": forward_flops(config, args.batch, args.length),
        "step_seconds": {"median": median, "min": float(seconds.min()), "max": float(seconds.max())},
        "tokens_per_second": tokens.size / median,
        "model_flops_per_second": flops / median,
        "matmul_flops_per_second": float(np.median(reached)),
        "fraction_of_matmul": float(np.median(flops / seconds / reached)),
        "fraction_quartiles": np.quantile(flops / seconds / reached, [0.25, 0.75]).tolist(),
        "fraction_of_matmul_by_convention": float(np.median(convention / seconds / reached)),
        "memory_bytes": memory(compiled),
        "peak_bytes": measured_peak(),
        "logits_bytes": 4 * tokens.size * args.vocab,  # float32 [B, L, V] once, for comparison
        "compile_seconds": compile_seconds,
    }


def main() -> None:
    args = arguments()
    jax.config.update("jax_enable_compilation_cache", False)  # or the compile time would be that of reading a file
    write(measure(args), args.out)


if __name__ == "__main__":
    main()

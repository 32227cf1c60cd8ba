"""Cost of a step of preference optimisation for n draws of each bound: seconds and memory, in one pass and in two.

    python -m benchmarks.preference_step [--draws 1 8] [--out results/benchmarks/preference_step.json]

The step of `objectives.Preference` against a frozen reference, float32, interleaved with n = 1 in two passes, before
and after each. "Of the ideal" is n times the seconds of n = 1 over those of n draws: 1 where n draws cost n
times one, less where there is more to them. Temporaries are those of the compiled step.
"""

import argparse
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.common import interleaved, memory, write
from mdmjax.networks import TransformerConfig, parameter_count, transformer
from mdmjax.objectives import Against, Preference
from mdmjax.process import Allocation
from mdmjax.reports import environment
from mdmjax.training import MeshLayout, Step, adamw, init_state, make_mesh


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(depth=4, width=256, heads=4, length=128, pairs=4, vocab=256, rounds=8).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON."""
    layout = MeshLayout(make_mesh(devices=jax.devices()[:1]))
    model = transformer(TransformerConfig(args.vocab, args.length, args.width, args.depth, args.heads))
    optimizer, rate = adamw(learning_rate=1e-5, steps=1000)
    bind = lambda params, reference: Against(model.bind(params), model.bind(reference))
    reference = layout.place(jax.device_get(jax.jit(model.init)(jax.random.key(0))))
    tokens = np.random.default_rng(0).integers(0, args.vocab, (args.pairs, 2, args.length), dtype=np.int32)
    answers = np.broadcast_to(np.arange(args.length) >= args.length // 4, tokens.shape)
    ids = np.arange(args.pairs, dtype=np.int32)
    batch = layout.put(dict(tokens=tokens, eligible=answers, pair=ids, ids=ids))

    def made(draws: int, two_pass: bool):
        objective = Preference(args.vocab, allocation=Allocation(draws), two_pass=two_pass)
        step = Step(bind, objective, optimizer, rate, size=args.pairs)
        state = layout.init(lambda: init_state(model.init, optimizer, jax.random.key(0)))
        compiled = layout.step(step, state, reference).lower(state, batch, reference).compile()

        def run():
            nonlocal state
            state, metrics = compiled(state, batch, reference)
            return metrics["loss"]

        return run, memory(compiled)

    one, held = made(1, True)
    runs = []
    for draws in args.draws:
        for two_pass in (True, False):
            run, own = made(draws, two_pass)
            before, seconds, after = interleaved(one, run, one, rounds=args.rounds).T
            share = draws * (before + after) / 2 / seconds
            runs.append(
                {
                    "draws": draws,
                    "passes": 2 if two_pass else 1,
                    "step_seconds": float(np.median(seconds)),
                    "of_the_ideal": float(np.median(share)),
                    "quartiles": np.quantile(share, [0.25, 0.75]).tolist(),
                    "temporaries": own and own["temporaries"],
                    "temporaries_of_one": own and own["temporaries"] / held["temporaries"],
                }
            )
    return {
        "benchmark": "preference_step",
        "environment": environment(),
        "config": {k: v for k, v in vars(args).items() if k != "out"},
        "parameters": parameter_count(reference),
        "runs": runs,
    }


def main() -> None:
    args = arguments()
    write(measure(args), args.out)


if __name__ == "__main__":
    main()

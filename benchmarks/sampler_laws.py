"""How far the law of each sampler is from that of first-hitting, exactly, on a problem small enough to enumerate.

    python -m benchmarks.sampler_laws [--length 3 --vocab 3] [--out results/benchmarks/sampler_laws.json]

The denoiser is a table of independent normal logits, conditionals of no joint law. First-hitting samples the
continuous-time process exactly; the numbers are total variations between its law and that of each other sampler in T
steps, both by enumeration (`mdmjax.analysis.sampler_laws`): no sampling, no error bar. Ancestral sampling falls as 1/T.
Revealing a fixed number of random positions is exact once no step reveals two. Confidence, a heuristic, tends to
another law.
"""

import argparse
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.common import write
from mdmjax.analysis.sampler_laws import (
    ancestral_law,
    confidence_law,
    first_hitting_law,
    random_count_law,
    total_variation,
)
from mdmjax.analysis.tables import random_table
from mdmjax.process import Linear
from mdmjax.reports import environment
from mdmjax.sampling import Confidence, visible_counts

STEPS = (1, 2, 3, 4, 8, 16, 32, 64)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("length", "vocab"):
        parser.add_argument(f"--{name}", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="standard deviation of the logits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="write the JSON here too")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict:
    """What is written as JSON: `total_variation[sampler][T]` against first-hitting, for the linear schedule."""
    table = np.asarray(random_table(jax.random.key(args.seed), args.length, args.vocab, args.scale), np.float64)
    schedule, exact = Linear(), first_hitting_law(table)

    def counts(steps: int) -> list[int]:
        revealed = np.diff(visible_counts(schedule, steps, args.length)).tolist()
        return [count for count in revealed if count]  # a step that reveals nothing makes no call

    laws = {
        "ancestral": lambda steps: ancestral_law(table, np.arange(steps, -1, -1) / steps),
        "random count": lambda steps: random_count_law(table, counts(steps)),
        "confidence": lambda steps: confidence_law(table, counts(steps), tie=Confidence(schedule, steps).tie),
    }
    return {
        "benchmark": "sampler_laws",
        "environment": environment(),
        "config": {k: v for k, v in vars(args).items() if k != "out"},
        "total_variation": {
            name: {str(steps): total_variation(law(steps), exact) for steps in STEPS} for name, law in laws.items()
        },
    }


def main() -> None:
    args = arguments()
    write(measure(args), args.out)


if __name__ == "__main__":
    main()

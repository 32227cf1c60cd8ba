"""Every Beta schedule on two laws on five bits, by enumeration: which half of the grid each prefers.

    python -m experiments.schedules --config=experiments/configs/schedules_toy.py --workdir=runs/schedules-toy

Seconds on 2 CPU cores. To expect, in 3 steps of the ancestral sampler: `extreme` prefers b < a, `middle` a < b, and the
best of the grid is better than linear, sine, sine squared and cosine on both; for linear a total variation of 0.4051 on
`extreme` (arXiv 2509.13866, figure 4, whose setting this is, prints no numbers).
"""

from experiments.configs.base import search, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = search()
    config.planners = ("ancestral", "random_count")
    return variant(config, name, grid__a=(0.3, 0.5), grid__b=(0.3, 0.5))

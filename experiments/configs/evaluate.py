"""The likelihood bound of a trained model, with confidence, on its own held-out data or on any text file.

    python -m experiments.evaluate --config=experiments/configs/evaluate.py --workdir=runs/demo-evaluation \
        --config.checkpoint=runs/demo [--config.path=some.txt]

About a minute for the demo model on 2 CPU cores; the number to expect is the test column of its row in the README.
`:quick` takes seconds, for the model that `:quick` of a training config leaves in runs/quick.
"""

from ml_collections import ConfigDict

from experiments.configs.base import variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = ConfigDict(
        dict(
            seed=0,
            checkpoint="runs/demo",  # the workdir of a `train` run
            which="last",  # last | best | the number of a step
            path="",  # a text file or folder, or a CSV file for a model of tables; empty: the model's own data
            split="test",  # of the model's own data
            rows=0,  # at most that many rows, evenly spaced; 0: all
            batch=32,
            against="",  # the workdir of another run, whose bound is subtracted row by row, under the same draws
            counts="systematic",  # of masks in a set: iid | stratified | systematic | enumerate: all of short rows
            draws=8,  # masks in a set
            groups=4,  # independent sets, for the Monte Carlo error
            baselines=True,  # n-grams of order 0 to 4, counted on the model's training text
        )
    )
    return variant(config, name, checkpoint="runs/quick", rows=64, draws=2, groups=2)

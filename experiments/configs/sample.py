"""Text from a trained model: unconditional, prompted, or infilled, with the trace as a page.

    python -m experiments.sample --config=experiments/configs/sample.py --workdir=runs/demo-samples \
        --config.checkpoint=runs/demo [--config.sample.prompt="The "] [--config.infill="The ____ statement"]

Seconds for the demo model on 2 CPU cores; first-hitting, the default, makes 64 denoiser calls a row there. `:quick` is
one row, from the model that `:quick` of a training config leaves in runs/quick.
"""

from ml_collections import ConfigDict

from experiments.configs.base import sampling, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = ConfigDict(
        dict(
            seed=0,
            checkpoint="runs/demo",  # the workdir of a `train` run
            which="last",  # last | best | the number of a step
            sample=sampling(rows=4),
            infill="",  # text with blanks; what follows it is open too
            blank="_",  # the character of `infill` that stands for one open token
            trace=True,  # write trace.html
        )
    )
    return variant(config, name, checkpoint="runs/quick", sample__rows=1)

"""text8 (27 characters): 12 layers, width 768, length 256, as in MD4 (arXiv 2406.04329, table 2). For a pod or a GPU.

    python -m experiments.train --config=experiments/configs/text8.py --workdir=runs/text8 --config.data.path=text8.txt

The file is the first 100 MB of the cleaned Wikipedia dump of Mahoney, split 90/5/5 by position as is usual.

Not run here. The number to expect is that of MD4: at most 1.37 bits/char on the test split. The variant `quick` is a
small model of the Python docs.
"""

from experiments.configs.base import QUICK, base, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = base()
    config.data.source = "text"
    config.data.path = "text8.txt"
    config.data.length = 256
    config.network.update(width=768, depth=12, heads=12, dtype="bfloat16")
    config.law.schedule = "linear"
    config.train.update(
        steps=1_000_000, batch=512, learning_rate=5e-4, warmup=2000, weight_decay=0.03, average=0.9999,
        log_every=100, evaluate_every=10_000, checkpoint_every=5000,
    )  # fmt: skip
    config.evaluate.update(batch=512, rows=2048)
    return variant(config, name, **QUICK)

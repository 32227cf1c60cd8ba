"""A masked diffusion model on crossbars: its bound in bits/char against wire resistance, by how its weights are mapped.

    python -m experiments.crossbar --config=experiments/configs/diffusion_model.py --workdir=runs/diffusion-model

27 minutes on one busy CPU core, first the training of the models on the Python language reference, as one program. To
expect: a bound of 3.07 bits/char; at 5e-4 R_on a segment the crossbar as it is loses 0.23, with a gain for each output
0.036; with full mapping 0.31 and 0.005.
"""

from experiments.configs.base import variant
from experiments.configs.base_crossbar import crossbar


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = crossbar()
    config.update(study="diffusion_model", resistances=(0.0, 2.5e-5, 8e-5, 2.5e-4, 5e-4))
    config.data.update(length=64)
    config.train.update(steps=1500, batch=32, learning_rate=3e-3, evaluate_every=150)
    config.evaluate.update(rows=128, draws=2)
    return variant(
        config, name, seeds=2, resistances=(2.5e-4,), mappings=("conventional", "full"), data__length=16,
        network__width=16, network__depth=1, network__heads=2, train__steps=24, train__batch=8, train__warmup=4,
        train__evaluate_every=12, evaluate__rows=16, evaluate__batch=16,
    )  # fmt: skip

"""What draws of the score are worth, in little: rows of one Markov chain preferred to those of another, linear logits.

python -m experiments.prefer --config=experiments/configs/prefer_ablation.py --workdir=runs/prefer-ablation

3 minutes on one core. To expect: a variance of the score of 0.78 for one draw, 0.13 where the reference shares it, and
0.02 for eight shared ones; eight masks of one rate are worth less than eight of their own.
"""

from experiments.configs.base import variant
from experiments.configs.base_prefer import prefer


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = prefer()
    config.task, config.seeds = "markov", 6
    config.arms = (
        "1x1+apart+iid", "1x1+iid", "1x1+together+iid", "4x1+apart+iid", "4x1+iid", "1x4+iid", "8x1+apart+iid",
        "1x8+iid", "8x1+iid", "8x1",
    )  # fmt: skip
    config.data.pairs = 256
    config.network.name = "linear"
    config.start.update(steps=1500, batch=16, learning_rate=0.3, muon=0.0, warmup=0, final=0.0, average=0.0)
    config.prefer.update(beta=0.2, sft=0.0, two_pass=False)
    config.train.update(
        steps=150, batch=4, optimizer="sgd", learning_rate=0.15, warmup=0, final=1.0, average=0.0, evaluate_every=150,
    )  # fmt: skip
    config.evaluate.update(pairs=16, repeats=40)
    return variant(config, name, seeds=2, start__steps=30, train__steps=10, train__evaluate_every=10)

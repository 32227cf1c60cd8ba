"""Fine-tuning on prompts with answers: word problems of GSM8K (arXiv 2110.14168), as bytes, prompts never masked.

python -m experiments.train --config=experiments/configs/sft_gsm8k.py --config.data.path=FILE.jsonl --workdir=runs/sft

Any file with a JSON object on each line will do: `--config.data.fields="('question','answer')"` names the two. The end
of an answer is learnt and fills the row, so that a canvas of any length can be answered. Records that are longer than a
row, 45 % of the 7,473 of GSM8K with 512 bytes, are left out, and counted in the report.

An hour on one core. To expect: 1.7 bits a byte, and answers that have the form of an answer.
"""

from experiments.configs.base import base, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = base()
    config.data.update(
        source="answers", vocabulary="bytes", fields=("question", "answer"), length=512, skip_longer=True
    )
    config.network.update(width=128, depth=4, heads=4, qk_norm=True)
    config.train.update(steps=1500, batch=16, learning_rate=4e-3, warmup=100)
    config.sample.prompt = "Tom has 3 apples and buys 4 more. How many apples does he have?\n"
    quick = dict(
        data__length=256, network__width=32, network__depth=1, network__heads=2, train__steps=20, train__batch=8,
        train__warmup=4, train__evaluate_every=10, train__checkpoint_every=10, evaluate__rows=16, sample__rows=2,
    )  # fmt: skip
    return variant(config, name, **quick)

"""One Billion Words through TFDS, length 128, 12 layers, width 768: the network of MDLM (arXiv 2406.07524). For a pod.

    python -m experiments.train --config=experiments/configs/lm1b.py --workdir=runs/lm1b \
        --config.data.vocabulary=tokenizer.json [--config.data.data_dir=DIR]

TFDS must have prepared the data, which for this data set needs TensorFlow, once, on any machine (the program says by
which command); reading it does not. The paper uses the bert-base-uncased tokenizer (V = 30,522): give its
tokenizer.json. Documents are packed end to end.

Not run here, so there is no number to expect. That of the paper's table 1, a test perplexity of at most 27.04, is for
rows of one padded sentence each, and so is no yardstick for packed rows. The run sees 65.5 billion tokens. The variant
`quick` is a small model of the Python docs.
"""

from experiments.configs.base import QUICK, base, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = base()
    config.data.update(source="tfds", name="lm1b", vocabulary="tokenizer.json", length=128, stride=128)
    config.data.splits.update(train="train[:99%]", validation="train[99%:]", test="test")
    config.network.update(width=768, depth=12, heads=12, dtype="bfloat16")
    config.train.update(
        steps=1_000_000, batch=512, learning_rate=3e-4, warmup=2500, weight_decay=0.0, b2=0.999, average=0.9999,
        log_every=100, evaluate_every=10_000, checkpoint_every=5000,
    )  # fmt: skip
    config.evaluate.update(batch=512, rows=4096)
    return variant(config, name, **QUICK)

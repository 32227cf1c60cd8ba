"""OpenWebText, 12 layers, width 768, length 1024, batch 512: the small row of MDLM (arXiv 2406.07524, table 2) and MD4.

    python -m experiments.train --config=experiments/configs/owt_small.py --workdir=runs/owt \
        --config.data.path=openwebtext --config.data.vocabulary=gpt2/tokenizer.json

`path` is a folder of UTF-8 .txt files; the vocabulary is that of GPT-2 (V = 50,257). Made for a pod: `python -m
experiments.plan` says what a chip must hold. On a TPU add --config.network.attention=splash.

Not run here. The number to expect is that of MDLM: a perplexity, exp(nats/token), of at most 23.21. The variant `quick`
is a small model of the Python docs.
"""

from experiments.configs.base import QUICK, base, variant


def get_config(name: str = ""):
    """The config, or its variant `quick`."""
    config = base()
    config.data.update(source="text", path="openwebtext", vocabulary="tokenizer.json", length=1024, stride=1024)
    config.network.update(width=768, depth=12, heads=12, dtype="bfloat16", remat=True)
    config.mesh.update(data=-1, fsdp=4)
    config.train.update(
        steps=1_000_000, batch=512, learning_rate=3e-4, warmup=2500, weight_decay=0.0, b2=0.999, average=0.9999,
        log_every=100, evaluate_every=10_000, checkpoint_every=5000,
    )  # fmt: skip
    config.evaluate.update(batch=512, rows=2048)
    return variant(config, name, **QUICK)

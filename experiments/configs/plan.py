"""What a training config needs of an accelerator: memory, work and communication of each chip, compiled ahead of time.

    python -m experiments.plan --config=experiments/configs/plan.py --workdir=runs/plan \
        --config.train=experiments/configs/owt_small.py --config.topology=v5e:16x16

A TPU topology needs libtpu (`make .venv-tpu/.ready`, then .venv-tpu/bin/python) and no TPU. No data is read and no
parameter is made, on any machine; compiling takes minutes on a CPU host. The numbers to expect are the plan: it says
whether a chip has room. `:quick`, a small model on the devices that are there, takes seconds.
"""

from ml_collections import ConfigDict

from experiments.configs.base import variant


def get_config(name: str = ""):
    """The config, or its variant `quick`: a small model on the present devices."""
    config = ConfigDict(
        dict(
            seed=0,
            train="experiments/configs/owt_small.py",  # a training config, FILE.py or FILE.py:quick
            change="",  # fields of it, for example "network.attention=splash mesh.fsdp=8"
            topology="v5e:16x16",  # of TPUs that need not be there, also v5e:2x2, v5p:4x4x4; or local, cpu
            vocab=50257,  # size of the vocabulary of the training data, which is not read; the default is GPT-2's
            programs=("train", "evaluate", "sample"),  # what to compile
        )
    )
    quick = "experiments/configs/demo_python_docs.py:quick"
    return variant(config, name, train=quick, topology="local", vocab=103)

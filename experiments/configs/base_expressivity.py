"""The fields of every config of `expressivity`. Not a config by itself."""

from ml_collections import ConfigDict

from experiments.configs.base_expressivity_trained import trained


def expressivity() -> ConfigDict:
    """All fields, with their defaults."""
    return ConfigDict(
        dict(
            seed=0,
            study="constructions",  # | trained
            constructions=dict(
                automata=("parity", "s3", "a5"),  # | s5 | regex:PATTERN/ALPHABET, such as "regex:(a|b)*abb/ab"
                max_size=4096,  # elements of a transition monoid
                lengths=(1, 2, 3, 7, 16, 33, 64, 100, 256, 1000, 1024, 4096),  # N, on integers
                words=20,  # of each length
                engine=dict(lengths=(64, 256, 1024, 4096), words=4, rounds=5),  # of timing
                weights=dict(  # of the transformer that is written down
                    lengths=(2, 3, 7, 16, 33, 64, 128, 256, 1024), words=10, dtypes=("float32", "bfloat16"),
                    most=120,  # elements: the layer has their square of hidden units
                    sweep=dict(length=64, words=20, scales=(0.2, 0.5, 1.0, 1.5, 2.0)),
                ),
                orders=dict(  # of writing the tree
                    automaton="s3",
                    lengths=(2, 3, 4, 5, 6, 7, 8, 16, 32), independent=8, rows=4000,  # valid orders; steps, and runs
                    length=16, steps=(1, 2, 4, 6, 8, 10, 12, 15), words=500,  # right answers by T
                    accuracy_lengths=(2, 4, 8, 16, 32, 64),  # and by N
                ),
                equal=dict(  # conversions
                    input=5, padding=3, words=30, bits=(6, 4, 8), widths=(8, 4, 16), steps=(1, 2, 5, 9),
                    corollary=(8, 64, 1024),  # N
                ),
            ),
            trained=trained(),
        )
    )  # fmt: skip

"""The fields of every config of `crossbar`. Not a config by itself."""

from ml_collections import ConfigDict

from experiments.configs.base import study


def crossbar() -> ConfigDict:
    """All fields, with their defaults."""
    trained = study()
    return ConfigDict(
        dict(
            seed=0,
            seeds=5,  # of tiles, of splits and first parameters, or of models
            study="manhattan_law",  # manhattan_law | bell_weights | digits | diffusion_model
            # How weights are written: "conventional", "sorted" (rows by popcount), "reversed" (columns), "full" (both),
            # "column", "combined", "greedy" (both, rows by another key); then any of +swaps, +bus, +active.
            mappings=("conventional", "sorted", "reversed", "full"),
            # Of one wire segment, word and bit lines alike, in units of R_on; with R_off / R_on (inf: devices that are
            # off do not conduct) the cases of the studies of tiles, and what networks are deployed at.
            law_cases=(
                ("densities .05 to .5", 2.5 / 3e5, float("inf")), ("density .2", 2.5 / 3e5, float("inf")),
                ("density .2, near or far", 2.5 / 3e5, float("inf")), ("densities .05 to .5", 2.5e-4, 100.0),
                ("densities .05 to .5", 5e-4, float("inf")),
            ),
            bell_cases=((2.5 / 3e5, float("inf")), (2.5e-5, 10.0)),
            resistances=(2.5e-4, 5e-4, 1e-3),  # of digits and diffusion_model
            tile=dict(
                rows=64, columns=64,
                bits=8,  # of a weight, on as many columns; negative weights have tiles of their own
                rounding="floor",  # | nearest
                layout="planes",  # all most significant bits first | words: the bits of an output side by side
                pad="absent",  # cells without a weight | off: devices that are off
                swaps=8,  # rounds of +swaps
            ),
            device=dict(  # of networks
                on_off=10.0,  # R_off / R_on
                variation=0.0,  # standard deviation of ln G from device to device
                read_noise=0.0,  # and from read to read: one read for all rows
            ),
            # Of manhattan_law and bell_weights: tiles of each seed, and the layers that these are cut from.
            tiles=60,
            layer=dict(laws=("gauss", "laplace", "student4"), layouts=("planes", "words"), inputs=1024, width=32),
            outputs=(8, 1),  # of a tile
            # Of digits: hidden units, and what the devices do besides, one at a time, with the mapping "full".
            hidden=128,
            share=0.6,  # of the rows that it is trained on
            penalty=1e-2,  # L2, on the weights of a layer: penalty / 2 |W|^2, a row
            variations=(0.05, 0.1, 0.2),
            read_noises=(0.05, 0.1, 0.2),
            # Of diffusion_model, and what of it applies to digits (steps, learning_rate).
            where="kernel$",  # a regular expression: parameters that are on crossbars
            **{name: trained[name].to_dict() for name in ("data", "network", "law", "train", "evaluate")},
        )
    )  # fmt: skip

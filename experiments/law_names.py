"""How laws are named in the configs that compare them: KIND, KIND+WAYS, each maybe with @SPREAD."""

from collections.abc import Sequence
from typing import Any

from experiments import laws
from mdmjax import process, variance

FITTED = {"p_pots": False, "p_pots_gradient": True}  # whether to the gradient
KINDS = ("base", "clipped", "exact_count", "complementary", "isad", *FITTED)
TRAINED = (*KINDS, "syrm")  # those that can be trained with
BIASED = ("clipped", "syrm")
WAYS = {"": process.single, "mirror": process.mirror, "copies": process.Copies(2)}


def parsed(name: str) -> tuple[str, str, str]:
    """(kind, ways, spread) of a name."""
    name, _, spread = name.partition("@")
    kind, _, ways = name.partition("+")
    return kind, ways, spread


def biased(name: str) -> bool:
    """Whether a law has another mean than the bound, whatever its numbers are."""
    return parsed(name)[0] in BIASED


def calls_of(name: str) -> int:
    """Denoiser calls of a draw of a law: the ways in which it hides a row."""
    kind, ways, _ = parsed(name)
    return 2 if ways or kind == "complementary" else 1


def law_of(
    name: str,
    eps: float,
    bins: int,
    *,
    strata: int = 4,
    max_weight: float | None = None,
    often: Sequence[int] = (),
    kinds: Sequence[str] = KINDS,
) -> Any:
    """The law of a name, with independent rates unless it says otherwise; not yet fitted. ValueError that says what.

    `strata` is the number of those of @strata, `max_weight` that of a law that is fitted, `often` the tokens of isad.
    The draws of syrm are those of base: what it changes is which positions are eligible.
    """
    kind, ways, spread = parsed(name)
    laws.choose(kind, f"the law {name!r}: its kind", dict.fromkeys(kinds))
    how = laws.choose(ways, f"the law {name!r}: its ways, after the +", WAYS)
    spreads = laws.SPREADS | {"": process.iid, "strata": process.Strata(strata)}
    spread = laws.choose(spread, f"the law {name!r}: its spread, after the @", spreads)
    own = dict(complementary="two ways of its own", isad="one way alone")
    if kind in own and ways:
        raise ValueError(f"the law {name!r}: {kind} has {own[kind]}")
    if kind == "complementary":
        return process.Complementary(eps, spread)
    if kind == "exact_count":
        return process.ExactCount(spread, ways=how)
    if kind == "clipped":
        return process.Clipped(spread=spread, ways=how)
    if kind == "isad":
        if not often:
            raise ValueError(f"the law {name!r}: no token is named that it would hide more often")
        return process.Delimiters(eps, spread=spread, often=tuple(often))
    capped = dict(max_weight=max_weight) if kind in FITTED else {}
    return variance.starting_law(eps, bins, spread=spread, ways=how, **capped)

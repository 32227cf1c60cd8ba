"""How laws are named in the configs that compare them: KIND, KIND+WAYS, each maybe with @SPREAD."""

from typing import Any

from experiments import build
from mdmjax import process, variance

FITTED = {"p_pots": False, "p_pots_gradient": True}  # whether to the gradient
KINDS = ("base", "clipped", "exact_count", "complementary", *FITTED)
BIASED = ("clipped",)
WAYS = {"": process.single, "mirror": process.mirror, "copies": process.Copies(2)}


def parsed(name: str) -> tuple[str, str, str]:
    """(kind, ways, spread) of a name."""
    name, _, spread = name.partition("@")
    kind, _, ways = name.partition("+")
    return kind, ways, spread


def biased(name: str) -> bool:
    """Whether a law has another mean than the bound."""
    return parsed(name)[0] in BIASED


def calls_of(name: str) -> int:
    """Denoiser calls of a draw of a law: the ways in which it hides a row."""
    kind, ways, _ = parsed(name)
    return 2 if ways or kind == "complementary" else 1


def law_of(name: str, eps: float, bins: int, strata: int = 4) -> Any:
    """The law of a name, with independent rates unless it says otherwise; not yet fitted. ValueError that says what."""
    kind, ways, spread = parsed(name)
    build.choose(kind, f"the law {name!r}: its kind", dict.fromkeys(KINDS))
    how = build.choose(ways, f"the law {name!r}: its ways, after the +", WAYS)
    spreads = build.SPREADS | {"": process.iid, "strata": process.Strata(strata)}
    spread = build.choose(spread, f"the law {name!r}: its spread, after the @", spreads)
    if kind == "complementary":
        if ways:
            raise ValueError(f"the law {name!r}: complementary has two ways of its own")
        return process.Complementary(eps, spread)
    if kind == "exact_count":
        return process.ExactCount(spread, ways=how)
    if kind == "clipped":
        return process.Clipped(spread=spread, ways=how)
    return variance.starting_law(eps, bins, spread=spread, ways=how)

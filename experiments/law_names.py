"""How laws are named in the configs that compare them: KIND, KIND+WAYS, each maybe with @SPREAD."""

from collections.abc import Sequence
from typing import Any

from experiments import laws
from mdmjax import process, variance

FITTED = {"p_pots": False, "p_pots_gradient": True}  # whether to the gradient
LEGEND = (
    "Laws: base, uniform mask rates r in [eps, 1] with the weight 1 / r; exact_count, a uniform number l of hidden "
    "tokens with the weight L / l; p_pots, rates from a density that is fitted to the loss, p_pots_gradient to the "
    "gradient; clipped, rates in [0.3, 0.8] only (biased); complementary, a mask and its complement; isad, tokens "
    "of the format hidden more often; syrm, tokens of the prompt hidden too (biased). +mirror: two opposite masks "
    "of a row at one rate; +copies: two independent ones. @: how the rates of a batch are spread; stratified, one "
    "in each of as many strata as rows; strata, in sqrt(rows) strata; systematic, a grid with one random shift; "
    "nothing: independently."
)
KINDS = ("base", "clipped", "exact_count", "complementary", "isad", *FITTED)
TRAINED = (*KINDS, "syrm")  # those that can be trained with
BIASED = ("clipped", "syrm")
WAYS = {"": process.single, "mirror": process.mirror, "copies": process.Copies(2)}


def parsed(name: str) -> tuple[str, str, str]:
    """(kind, ways, spread) of a name, the last two empty where they are the plain ones: one way, independent rates."""
    name, _, spread = name.partition("@")
    kind, _, ways = name.partition("+")
    return kind, ways, spread.removeprefix("iid")


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
    field: str = "laws",
) -> Any:
    """The law of a name, with independent rates unless it says otherwise; not yet fitted. ValueError with the `field`.

    `strata` is the number of those of @strata, `max_weight` that of a law that is fitted, `often` the tokens of isad.
    The draws of syrm are those of base: what it changes is which positions are eligible.
    """
    kind, ways, spread = parsed(name)
    this = f"{field}: the law {name!r}"
    if name.endswith(("+", "@")) or "+@" in name:
        raise ValueError(f"{this}: there is nothing after the + or the @")
    laws.choose(kind, f"{this}: its kind", dict.fromkeys(kinds))
    how = laws.choose(ways, f"{this}: its ways, after the +", WAYS)
    spreads = laws.SPREADS | {"": process.iid, "strata": process.Strata(strata)}
    spread = laws.choose(spread, f"{this}: its spread, after the @", spreads)
    own = dict(complementary="two ways of its own", isad="one way alone", autoregressive="no draws")
    if kind in own and (ways or kind == "autoregressive"):
        raise ValueError(f"{this}: {kind} has {own[kind]}")
    if kind == "complementary":
        return process.Complementary(eps, spread)
    if kind == "exact_count":
        return process.ExactCount(spread, ways=how)
    if kind == "clipped":
        return process.Clipped(spread=spread, ways=how)
    if kind == "isad":
        if not often:
            raise ValueError(f"{this}: no token is named that it would hide more often")
        return process.Delimiters(eps, spread=spread, often=tuple(often))
    capped = dict(max_weight=max_weight) if kind in FITTED else {}
    return variance.starting_law(eps, bins, spread=spread, ways=how, **capped)

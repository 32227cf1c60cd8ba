"""What masked diffusion computes in how many steps: constructions that run, counted and timed.

A word problem asks for the product of a word's symbols in the transition monoid of an automaton. A masked diffusion
model that writes in a good order has it in log N steps, a chain of thought in N (arXiv 2510.13117, which has no
experiments; its constructions are built here anew). Studies: `constructions`, and `trained`, models that learn the
same.
"""

import time

from experiments import build, cli, runs
from experiments.configs.base_expressivity import expressivity
from experiments.expressivity_constructions import constructions
from experiments.expressivity_trained import trained
from experiments.found import write
from experiments.train import exit_when_told

LEGEND = (
    "T denoising steps (denoiser calls), P output cells, N symbols of the input. A word is wrong where a state behind "
    "any of its prefixes that the run tells is not that of the automaton. Cells of a scan in place are written again. "
    "By confidence, uniformly and from either side equal numbers of cells are written at each of T steps, one at a "
    "time for T = N - 1; an answer that is still masked is a wrong one. eps is the mass that a head has off its "
    "target; margins are in exact arithmetic at least 1 - 4 eps and 1/2 - 2 eps. ± is a standard error."
)
STUDIES = dict(constructions=constructions, trained=trained)


@exit_when_told()
def main(config, workdir):
    """See the module."""
    began = time.monotonic()
    runs.quiet_orbax()
    found = build.choose(config.study, "study", STUDIES)(config, workdir)
    if found is None:
        return
    facts = {**found.tables, **found.facts, **({"legend": LEGEND} if config.study == "constructions" else {})}
    page = write(found, "expressivity", config, workdir, time.monotonic() - began, facts)
    for title, rows in found.tables.items():
        print(f"{title}\n{cli.table([list(row.values()) for row in rows], list(rows[0]))}", end="\n\n")
    cli.log(f"report: {page}")


if __name__ == "__main__":
    cli.run(main, expressivity)

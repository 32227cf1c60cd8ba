"""Deploys weights on memristive crossbars: what wires with resistance cost, by how the weights are mapped.

Studies: `manhattan_law` and `bell_weights`, tile by tile; `digits`, a classifier, and `diffusion_model`, models of
text, as crossbars compute them. "Manhattan distance mapping" (arXiv 2511.04798) shares its acronym with masked
diffusion models. The weighted MAC error stands beside the nonideality factor everywhere: one can fall while the other
rises.
"""

import time

from experiments import build, cli, runs
from experiments.configs.base_crossbar import crossbar
from experiments.crossbar_digits import digits
from experiments.crossbar_model import diffusion_model
from experiments.crossbar_parts import check
from experiments.crossbar_tiles import bell_weights, manhattan_law
from experiments.found import write
from experiments.train import exit_when_told
from mdmjax.crossbar import NotConverged

LEGEND = (
    "NF is the share of the current that is lost with all inputs at 1, (I0 - I) / I0 of the sums over columns; the MAC "
    "error is that of the products, whose columns count by the worth of their bits. ± is a standard error over seeds. "
    "DAC and ADC are ideal, and devices do not vary where that is not said: only wires and the on/off ratio are "
    "modelled. Which factor, resistances and tile size the paper uses is not known. NF by column is the mean over "
    "columns of |I0 - I| / I0; weight errors, relative in the Frobenius norm, hold the quantisation too."
)
STUDIES = dict(manhattan_law=manhattan_law, bell_weights=bell_weights, digits=digits, diffusion_model=diffusion_model)


@exit_when_told()
def main(config, workdir):
    """See the module."""
    began = time.monotonic()
    runs.quiet_orbax()
    study = build.choose(config.study, "study", STUDIES)
    check(config)
    try:
        found = study(config, workdir)
    except NotConverged as error:
        raise cli.RunFailed(str(error)) from error
    if found is None:
        return
    facts = {"legend": LEGEND, **found.tables, **found.facts}
    page = write(found, "crossbar", config, workdir, time.monotonic() - began, facts)
    for rows in (rows for name, rows in found.tables.items() if name != "layers"):  # which is long, and on the page
        print(cli.table([list(row.values()) for row in rows], list(rows[0])), end="\n\n")
    cli.log(f"report: {page}")


if __name__ == "__main__":
    cli.run(main, crossbar)

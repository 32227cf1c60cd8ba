"""What a study hands to its program, and the report that comes of it."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import cli
from mdmjax.base import Estimate
from mdmjax.reports import Curve, Heatmap, Report, write_report


class Found(NamedTuple):
    """What a study, or a part of one, has found."""

    title: str
    summary: str
    metrics: Mapping[str, Estimate]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    facts: Mapping[str, Any] = {}
    curves: Mapping[str, Curve] = {}
    heatmaps: Mapping[str, Heatmap] = {}
    baselines: Mapping[str, Estimate] = {}
    earlier: float = 0.0  # seconds that earlier calls of the program took, whose results were kept
    seconds: float | None = None  # in all, over all calls; None: the earlier ones and those of this call


def write(found: Found, program: str, config, workdir: Path, elapsed: float, facts: Mapping[str, Any]) -> Path:
    """The page of the report of a study of `program`, whose present call took `elapsed` seconds, with these facts."""
    report = Report(
        title=found.title,
        summary=found.summary,
        command=f"python -m experiments.{program} {shlex.join(sys.argv[1:])}",
        config=cli.to_dict(config),
        seed=config.seed,
        wall_seconds=found.earlier + elapsed if found.seconds is None else found.seconds,
        metrics=found.metrics,
        baselines=found.baselines,
        facts=facts,
        curves=found.curves,
        heatmaps=found.heatmaps,
    )
    return write_report(workdir, report)

"""What the studies of expressivity share: what a study hands back."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mdmjax.base import Estimate
from mdmjax.reports import Curve, Heatmap


class Found(NamedTuple):
    """What a study hands to the report."""

    title: str
    summary: str
    metrics: Mapping[str, Estimate]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]  # the first is printed
    facts: Mapping[str, Any] = {}
    curves: Mapping[str, Curve] = {}
    heatmaps: Mapping[str, Heatmap] = {}
    baselines: Mapping[str, Estimate] = {}

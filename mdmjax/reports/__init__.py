"""`report.json`, and self-contained pages of a run and of a sampler's trace."""

from mdmjax.reports.environment import environment
from mdmjax.reports.history import Provenance, provenance
from mdmjax.reports.html import duration, report_html
from mdmjax.reports.report import (
    Curve,
    Heatmap,
    Report,
    Sample,
    plain,
    read_report,
    to_json,
    write_atomic,
    write_report,
)
from mdmjax.reports.trace import trace_html

__all__ = [
    "Curve",
    "Heatmap",
    "Provenance",
    "Report",
    "Sample",
    "duration",
    "environment",
    "plain",
    "provenance",
    "read_report",
    "report_html",
    "to_json",
    "trace_html",
    "write_atomic",
    "write_report",
]

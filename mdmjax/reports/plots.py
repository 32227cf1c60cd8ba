"""Curves and heat maps as SVG that lives in a page and follows its colours. The only module that uses matplotlib."""

import io
import itertools
import re
from collections.abc import Mapping

import numpy as np

from mdmjax.base import Estimate
from mdmjax.reports.report import Curve, Heatmap

# Colours that stand in for the page's own: matplotlib needs a colour, the page knows light from dark.
_INK, _FAINT, _LINE = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#{i:02x}{i:02x}{i:02x}" for i in range(4, 12))
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))  # one for each time that the colours are used up
_VARIABLES = {_INK: "--muted", _FAINT: "--rule", _LINE: "--muted"} | {
    colour: f"--series-{i}" for i, colour in enumerate(_SERIES)
}
_POINTS = 300  # more points than this are averaged into as many buckets


def panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """The curves grouped by the plot they share, in order of first appearance; empty curves are left out."""
    grouped: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        if len(curve.x):
            grouped.setdefault(curve.panel or name, {})[name] = curve
    return grouped


def panel_svg(title: str, curves: Mapping[str, Curve], levels: Mapping[str, Estimate] | None = None) -> str:
    """One plot as an `<svg>` element: lines with error bands, and dashed `levels` (baselines) of the same unit.

    Values that are not finite leave gaps. A curve of many points is drawn as the mean of each of 300 buckets, with the
    spread (one standard deviation) inside a bucket as its band.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9, "axes.linewidth": 0.8}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        looks = list(itertools.product(_DASHES, _SERIES))
        unit, xlabel = next(iter(curves.values())).unit, next(iter(curves.values())).xlabel
        for (name, curve), (dash, colour) in zip(curves.items(), itertools.cycle(looks), strict=False):
            x, y, band = _thin(curve)
            marker = "o" if len(x) <= 25 or curve.points else None
            line = dict(linestyle="none", alpha=0.7) if curve.points else dict(linestyle=dash, linewidth=1.6)
            axes.plot(x, y, color=colour, marker=marker, markersize=3.5, label=name, **line)
            if band is not None:
                axes.fill_between(x, y - band, y + band, color=colour, alpha=0.22, linewidth=0)
        _draw_levels(axes, {k: v.mean for k, v in (levels or {}).items() if v.unit == unit and np.isfinite(v.mean)})
        axes.set_xlabel(xlabel, color=_INK)
        axes.set_ylabel(unit, color=_INK)
        axes.grid(color=_FAINT, linewidth=0.7)
        axes.tick_params(color=_FAINT, labelcolor=_INK)
        if next(iter(curves.values())).log:
            axes.set_xscale("log")
        else:
            axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.spines[:].set_visible(False)
        if len(curves) > 4:  # beside the curves, not on them
            figure.legend(loc="outside right upper", frameon=False, labelcolor=_INK, fontsize=7.5)
        elif len(curves) > 1:
            axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
        return _svg(figure, title)


def heatmap_svg(title: str, heatmap: Heatmap) -> str:
    """A heat map as an `<svg>` element; cells show their numbers where there are at most 12 columns."""
    import matplotlib
    from matplotlib.figure import Figure

    values = np.ma.masked_invalid(np.asarray(heatmap.values, float))
    rows, columns = values.shape
    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9, "axes.linewidth": 0.8}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.2, 1.2 + min(4.2, 0.36 * rows)), layout="constrained")
        axes = figure.add_subplot()
        image = axes.pcolormesh(values, cmap="viridis", edgecolors="face", linewidth=0.3)
        colourbar = figure.colorbar(image, ax=axes, pad=0.02)
        colourbar.set_label(heatmap.unit, color=_INK)
        colourbar.ax.tick_params(color=_FAINT, labelcolor=_INK)
        colourbar.outline.set_visible(False)
        if columns <= 12:
            for (i, j), value in np.ndenumerate(values):
                if not np.ma.is_masked(value):
                    ink = "#ffffff" if image.norm(value) < 0.55 else "#101010"
                    axes.text(j + 0.5, i + 0.5, f"{value:.3g}", ha="center", va="center", color=ink, fontsize=6.5)
        if heatmap.best is not None:
            i, j = heatmap.best
            axes.plot([j, j + 1, j + 1, j, j], [i, i, i + 1, i + 1, i], color="#e8413c", linewidth=2)
        axes.set_xticks(np.arange(columns) + 0.5, heatmap.columns, rotation=90 if columns > 12 else 0, fontsize=7.5)
        axes.set_yticks(np.arange(rows) + 0.5, heatmap.rows, fontsize=7.5)
        axes.invert_yaxis()
        axes.set_xlabel(heatmap.xlabel, color=_INK)
        axes.set_ylabel(heatmap.ylabel, color=_INK)
        axes.tick_params(color=_FAINT, labelcolor=_INK)
        axes.spines[:].set_visible(False)
        return _svg(figure, title)


def _svg(figure, title: str) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(text.getvalue(), title)


def _draw_levels(axes, levels: Mapping[str, float]) -> None:
    """Dashed lines, named at the right edge: from the top down, each label at least a line below the one before."""
    if not levels:
        return
    low, high = axes.get_ylim()
    low, high = min(low, *levels.values()), max(high, *levels.values())
    margin, line = 0.03 * (high - low), 0.075 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    free = np.inf
    for name, level in sorted(levels.items(), key=lambda item: -item[1]):
        axes.axhline(level, color=_LINE, linewidth=0.9, linestyle=(0, (4, 3)))
        free = min(level, free - line)
        place = {"xy": (1, level), "xytext": (1.02, free), "xycoords": axes.get_yaxis_transform()}
        axes.annotate(name, **place, textcoords=axes.get_yaxis_transform(), color=_INK, fontsize=7.5, va="center")


def _thin(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x, y and the half-width of the band."""
    x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
    if len(x) <= _POINTS:
        return x, y, None if curve.error is None else np.asarray(curve.error, float)
    edges = np.linspace(0, len(x), _POINTS + 1).astype(int)
    buckets = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    mean = np.array([y[s].mean() for s in buckets])
    return np.array([x[s].mean() for s in buckets]), mean, np.array([y[s].std() for s in buckets])


def _inline(svg: str, title: str) -> str:
    """The `<svg>` element alone, without metadata, with the page's colours and with ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg, count=1)
    slug = re.sub(r"\W+", "-", title)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{slug}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg

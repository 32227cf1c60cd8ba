"""A report as one self-contained page: it works from disk, in light and dark, on a phone and on paper."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mdmjax.base import Estimate
from mdmjax.reports.plots import heatmap_svg, panel_svg, panels
from mdmjax.reports.report import Report, Sample, plain
from mdmjax.reports.theme import page


def report_html(report: Report) -> str:
    """The page of a report. Everything that comes from outside (texts, names, numbers) is escaped."""
    tables = {name: plain(value) for name, value in report.facts.items() if _is_table(plain(value))}
    rest = {name: value for name, value in report.facts.items() if name not in tables}
    sections = [
        _header(report),
        _section("Compared with", _comparison(report)),
        _section("Measured", _metrics(report.metrics), note="± one standard error"),
        *(_section(name.capitalize(), _card(_table(rows))) for name, rows in tables.items()),
        _section("Curves", _curves(report)),
        _section("Maps", _heatmaps(report)),
        _section("Samples", _samples(report.samples)),
        _section("Run", _card(_definitions(rest)) if rest else ""),
        _details("Config", _definitions(_flat(report.config), mono=True)),
        _details("Environment", _definitions(_flat(report.environment))),
    ]
    return page(report.title, "\n".join(part for part in sections if part))


def duration(seconds: float) -> str:
    """`47 s`, `5 min 12 s`, `3 h 07 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def value_and_error(estimate: Estimate) -> tuple[str, str]:
    """The mean and, where there is one, the standard error, in digits that the error supports."""
    text = str(estimate).removesuffix(estimate.unit).strip()
    mean, _, error = text.partition(" ± ")
    return mean, error


def _card(body: str) -> str:
    return f'<div class="card">{body}</div>'


def _section(title: str, body: str, note: str = "") -> str:
    note = f' <span class="muted">{escape(note)}</span>' if note else ""
    return f"<section><h2>{escape(title)}{note}</h2>{body}</section>" if body else ""


def _details(title: str, body: str) -> str:
    return f'<details class="card"><summary>{escape(title)}</summary>{body}</details>'


def _header(report: Report) -> str:
    env = report.environment
    devices, machine = env.get("devices", {}), env.get("machine", {})
    commit = env.get("commit")
    chips = [
        f"commit {commit[:10]}{' + changes' if env.get('dirty') else ''}" if commit else "",
        f"{devices.get('count')} × {devices.get('kind')}" if devices.get("platform") not in (None, "cpu") else "",
        f"{machine.get('cpu')}, {machine.get('cores')} cores" if machine else "",
        duration(report.wall_seconds),
        f"seed {report.seed}",
        report.created.replace("T", " ").replace("+00:00", " UTC"),
    ]
    headline = next(iter(report.metrics.items()), None)
    summary = f'<p class="lead">{escape(report.summary)}</p>' if report.summary else ""
    return f"""<header><h1>{escape(report.title)}</h1>{summary}
<div class="chips">{"".join(f"<span>{escape(chip)}</span>" for chip in chips if chip)}</div>
{_hero(*headline) if headline else ""}
</header>"""


def _hero(name: str, estimate: Estimate) -> str:
    mean, error = value_and_error(estimate)
    error = f'<span class="error"> ± {error}</span>' if error else ""
    return f"""<div class="card hero"><div><div class="muted">{escape(name)}</div>
<b>{mean}</b>{error} <span class="error">{escape(estimate.unit)}</span></div>
<div class="muted">{escape(estimate.estimator)}<br>n = {estimate.draws:,}</div></div>"""


def _comparison(report: Report) -> str:
    """The headline ranked among its baselines, each a bar from 0 with its 95 % interval."""
    if not report.metrics:
        return ""
    name, headline = next(iter(report.metrics.items()))
    rows = [(name, headline, True)] + [(k, v, False) for k, v in report.rivals.items()]
    if len(rows) == 1:
        return ""
    rows.sort(key=lambda row: -row[1].mean if math.isfinite(row[1].mean) else math.inf)
    tops = [value.interval()[1] for _, value, _ in rows]
    top = max([value for value in tops if math.isfinite(value)] + [value.mean for _, value, _ in rows] + [1e-12])
    body = ""
    for label, value, is_us in rows:
        mean, error = value_and_error(value)
        body += f"""<tr{' class="us"' if is_us else ""}><td>{escape(label)}</td><td class="n">{mean}</td>
<td class="n">{f"± {error}" if error else ""}</td><td style="width:55%">{_bar(value, top)}</td></tr>"""
    head = f'<tr><th></th><th class="n">{escape(headline.unit)}</th><th></th><th></th></tr>'
    return _card(f"<table>{head}{body}</table>")


def _bar(value: Estimate, top: float) -> str:
    if not math.isfinite(value.mean) or value.mean < 0:
        return ""
    tick = ""
    if math.isfinite(value.standard_error) and value.standard_error > 0:
        low, high = value.interval()
        tick = f'<u style="left:{100 * max(low, 0) / top:.2f}%;width:{100 * (high - max(low, 0)) / top:.2f}%"></u>'
    return f'<div class="track"><i style="width:{100 * value.mean / top:.2f}%"></i>{tick}</div>'


def _metrics(metrics: Mapping[str, Estimate]) -> str:
    if not metrics:
        return ""
    body = ""
    for name, value in metrics.items():
        mean, error = value_and_error(value)
        error = f"± {error}" if error else ""
        body += f"""<tr><td>{escape(name)}</td><td class="n">{mean}</td><td class="n">{error}</td>
<td>{escape(value.unit)}</td><td class="n">{value.draws:,}</td><td class="muted">{escape(value.estimator)}</td></tr>"""
    head = '<tr><th></th><th class="n">mean</th><th></th><th>unit</th><th class="n">n</th><th>estimator</th></tr>'
    return _card(f"<table>{head}{body}</table>")


def _curves(report: Report) -> str:
    figures = ""
    for title, curves in panels(report.curves).items():
        svg = panel_svg(title, curves, report.rivals)
        figures += f'<figure class="card"><h3>{escape(title)}</h3>{svg}</figure>'
    return f'<div class="grid">{figures}</div>' if figures else ""


def _heatmaps(report: Report) -> str:
    figures = "".join(
        f'<figure class="card"><h3>{escape(title)}</h3>{heatmap_svg(title, heatmap)}</figure>'
        for title, heatmap in report.heatmaps.items()
    )
    return f'<div class="grid">{figures}</div>' if figures else ""


def _samples(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    cards = ""
    for sample in samples:
        title = f"<h3>{escape(sample.title)}</h3>" if sample.title else ""
        text = "".join(f"<mark>{escape(t)}</mark>" if given else escape(t) for t, given in sample.pieces)
        cards += _card(f"{title}<pre>{text}</pre>")
    given = any(is_given for sample in samples for _, is_given in sample.pieces)
    legend = '<p class="muted"><mark>given</mark> to the sampler; the rest is generated.</p>' if given else ""
    return f'{legend}<div class="grid">{cards}</div>'


def _definitions(items: Mapping[str, Any], mono: bool = False) -> str:
    rows = ""
    for name, value in items.items():
        rows += f"<dt>{escape(name)}</dt><dd{' class=mono' if mono else ''}>{_nested(plain(value))}</dd>"
    return f"<dl>{rows}</dl>"


def _is_table(value: Any) -> bool:
    """A list of dicts that all have the same keys."""
    return bool(value) and isinstance(value, list) and all(isinstance(v, dict) and [*v] == [*value[0]] for v in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    kind = {name: ' class="n"' if all(isinstance(r[name], int | float) for r in rows) else "" for name in rows[0]}
    head = "".join(f"<th{kind[name]}>{escape(name)}</th>" for name in rows[0])
    line = lambda row: "".join(f"<td{kind[name]}>{escape(_say(value))}</td>" for name, value in row.items())
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line(row)}</tr>' for row in rows)}</table>"


def _nested(value: Any) -> str:
    """A dict as a line for each of its items, those of an inner dict indented."""
    if not isinstance(value, dict):
        return escape(_say(value))
    return "".join(f'<div><span class="muted">{escape(k)}</span> {_nested(v)}</div>' for k, v in value.items())


def _say(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_say, value)) + "]"
    return ", ".join(f"{k} {_say(v)}" for k, v in value.items())


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat

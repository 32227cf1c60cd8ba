import dataclasses
import json
import re
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from traces import edited

from mdmjax.base import DELETE, KEEP, REMASK, UNMASK, Estimate, Trace
from mdmjax.reports import Curve, Report, Sample, report_html, trace_html
from mdmjax.reports.html import duration
from mdmjax.reports.plots import panel_svg, panels

NASTY = "</script><img src=x onerror=alert(1)>&\"'"


class Page(HTMLParser):
    """Tags seen, the text outside styles and scripts, and every address a tag refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.links, self.open, self.scripts = [], "", [], [], {}
        self.feed(text)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes = dict(attributes)
        self.links += [value for name, value in attributes if name in ("href", "src", "xlink:href", "action")]
        if tag not in ("meta", "br", "input", "option"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        if tag != "option":
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[self.attributes.get("id")] = data
        elif not self.open or self.open[-1] != "style":
            self.words += data


def estimate(mean, error=0.01, unit="bits/char"):
    return Estimate(mean, error, unit, 512, f"estimator {NASTY}")


@pytest.fixture(scope="module")
def report():
    steps = np.arange(1000)
    return Report(
        title=f"title {NASTY}",
        summary=f"summary {NASTY}",
        config={NASTY: NASTY, "model": {"width": 8, "list": [1, {"a": 2}], "none": None}},
        seed=17,
        wall_seconds=312.4,
        metrics={f"bound {NASTY}": estimate(2.6134, 0.0112), "no error": estimate(5.0, float("nan"), "x")},
        baselines={f"order-{k} {NASTY}": estimate(mean) for k, mean in enumerate([4.5, 3.2, 2.4])}
        | {"other": estimate(1, 0, "s"), "elsewhere": estimate(3.3)},
        against=[*(f"order-{k} {NASTY}" for k in range(3)), "other"],
        facts={"parameters": 3201234, "nested": {"sha256": "abc", NASTY: NASTY}},
        curves={
            "loss": Curve(steps, np.exp(-steps / 100), unit="nats/token"),
            "bound": Curve([0, 500, 1000], [5, float("nan"), 2.6], [0.1, 0.1, 0.1], "bits/char"),
            "a": Curve([0, 1], [1, 2], panel="shared"),
            "b": Curve([0, 1], [2, 1], panel="shared"),
            "empty": Curve([], []),
        },
        samples=[Sample([(f"prompt {NASTY}", True), (f" text {NASTY}\n  indented", False)], f"sample {NASTY}")],
    )


@pytest.fixture(scope="module")
def html(report):
    return report_html(report)


def test_report_page_stands_alone_and_escapes_everything(html):
    page = Page(html)
    assert "img" not in page.tags and "script" not in page.tags and "link" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert "default-src 'none'" in html
    assert not re.search(r"url\((?!#)", html)
    assert page.words.count(NASTY) >= 12  # seen as text wherever it was put in


def test_report_page_shows_the_report(html):
    words = Page(html).words
    for expected in (
        "2.613",
        "± 0.011",
        "bits/char",
        "5 min 12 s",
        "seed 17",
        "3,201,234",
        "model.width",
        "  indented",
    ):
        assert expected in words, expected
    # The headline is ranked among the baselines of its unit.
    table = words[words.index("Compared with") : words.index("Measured")]
    order = [table.index(name) for name in ("order-0", "order-1", "bound", "order-2")]
    assert order == sorted(order) and "other" not in table and "elsewhere" not in table
    assert html.count("<mark>prompt") == 1 and "<mark> text" not in html


def test_report_page_draws_the_curves(html, report):
    page = Page(html)
    assert page.tags.count("svg") == 3 == len(panels(report.curves))  # `a` and `b` share one, `empty` has none
    # The baselines of the headline, where a plot has their unit: in that of the bound and in no other.
    plots = [Page(svg).words for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    assert [[f"order-{k}" in words for k in range(3)] for words in plots] == [[False] * 3, [True] * 3, [False] * 3]
    assert not any("other" in words or "elsewhere" in words for words in plots)
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert {reference[1:] for reference in page.links} | set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)
    assert not re.findall(r"#0[0-9]0[0-9]0[0-9]\b", html)  # every stand-in became a colour of the page
    assert set(re.findall(r"var\((--[\w-]+)\)", html)) <= set(re.findall(r"(--[\w-]+):", html))


def test_a_list_of_rows_is_a_table(report):
    rows = [{"schedule": "<a>", "value": 0.25}, {"schedule": "b", "value": 1.5}]
    page = report_html(dataclasses.replace(report, facts={"comparison": rows, "other": 3}))
    assert "<h2>Comparison</h2>" in page and "<dt>comparison</dt>" not in page and "<dt>other</dt>" in page
    assert '<tr><td>&lt;a&gt;</td><td class="n">0.25</td></tr>' in page


def test_an_empty_report_has_a_page():
    page = Page(report_html(Report(title="nothing", config={}, seed=0, wall_seconds=0.4, metrics={})))
    assert "nothing" in page.words and "svg" not in page.tags and "Compared" not in page.words


def test_duration():
    seconds = (0.4, 59.4, 59.9, 61, 3599.9, 4020)
    assert [duration(s) for s in seconds] == ["0 s", "59 s", "1 min 00 s", "1 min 01 s", "1 h 00 min", "1 h 07 min"]


# ---- trace -----------------------------------------------------------------------------------------------------------

V = 3
STRINGS = ["a", NASTY, "\n"]


@pytest.fixture(scope="module")
def trace():
    """Row 0 writes, takes back and writes again; row 1 has finished after two calls. PAD stands in the last column."""
    row0 = [[0, 3, 3, 4], [0, 1, 3, 4], [0, 3, 2, 4], [0, 1, 2, 4]]
    row1 = [[3, 3, 0, 4], [1, 3, 0, 4], [1, 2, 0, 4], [1, 2, 0, 4]]
    tokens = np.stack([row0, row1], 1)
    operations = np.full((3, 2, 4), KEEP)
    operations[0, 0, 1], operations[1, 0, 1], operations[1, 0, 2], operations[2, 0, 1] = UNMASK, REMASK, UNMASK, UNMASK
    operations[0, 1, 0] = operations[1, 1, 1] = UNMASK
    confidence = np.where(operations == UNMASK, 0.25, 0.0)
    steps = np.array([[0, 0], [2, 1], [3, -1]])
    return Trace(tokens, confidence, operations, steps, np.where(steps < 0, 0, 1 - steps / 4))


def replay(row):
    """What the page shows: a slot is there from the call that inserts it until one that takes it out."""
    tokens = dict(enumerate(row["start"]))
    order, gone = list(tokens), set()
    states = [list(tokens.values())]
    for slots, ids, _, operations, _, _, *moved in row["calls"]:
        tokens.update(zip(slots, ids, strict=True))
        gone |= {slot for slot, operation in zip(slots, operations, strict=True) if operation >= DELETE}
        order = [slot for slot in (moved[0] if moved else order) if slot not in gone]
        states.append([tokens[slot] for slot in order])
    return states


def test_trace_page_replays_the_trace(trace):
    data = json.loads(Page(trace_html(trace, STRINGS)).scripts["data"])
    assert replay(data["rows"][0]) == trace.tokens[:, 0].tolist()
    assert replay(data["rows"][1]) == trace.tokens[:3, 1].tolist()  # the call it did not need is left out
    assert data["rows"][0]["calls"][1] == [[1, 2], [3, 2], [0.0, 0.25], [REMASK, UNMASK], 2, 0.5]
    assert data["mask"] == V and data["strings"] == {"0": "a", "1": NASTY, "2": "\n"}


@pytest.mark.parametrize("seed", range(8))
def test_trace_page_replays_insertions_and_deletions(seed):
    trace, _, _ = edited(np.random.default_rng(seed), calls=14, size=12)
    row = json.loads(Page(trace_html(trace, "abcde")).scripts["data"])["rows"][0]
    states = zip(trace.tokens[:, 0], trace.lengths[:, 0], strict=True)
    assert replay(row) == [tokens[:length].tolist() for tokens, length in states]
    assert row["width"] == trace.lengths.max()


def test_trace_page_is_as_large_as_promised():
    """15 to 30 bytes for each position written, 6 more where a call moves it."""
    length, vocab = 2000, 50257
    tokens = np.full((4, 1, length), vocab)
    tokens[1:] = np.random.default_rng(0).integers(vocab, size=length)
    operations = np.full((3, 1, length), UNMASK)
    steps = np.arange(3)[:, None]
    confidence = np.random.default_rng(1).random((3, 1, length))
    trace, strings = Trace(tokens, confidence, operations, steps, steps / 3), [""] * vocab

    def size(trace):
        return len(re.search(r'"rows":(.*)}$', Page(trace_html(trace, strings)).scripts["data"])[1])

    writes = size(trace) / (3 * length)
    assert 15 < writes < 30
    inserted = np.zeros_like(operations)
    inserted[:, 0, 0] = 1  # each call pushes the last position off
    full = np.full((4, 1), length)
    assert size(dataclasses.replace(trace, inserted=inserted, lengths=full)) / (3 * length) < writes + 6


def test_traces_without_a_page(trace):
    with pytest.raises(ValueError, match=r"2 of 2 rows alone make \d+ bytes.*x\[:, :1\]"):
        trace_html(trace, STRINGS, limit=200)
    with pytest.raises(ValueError, match="1 of 2 rows .*into parts"):
        trace_html(trace, STRINGS, limit=10)
    with pytest.raises(ValueError, match=r"token 4, and strings for 0\.\.1"):
        trace_html(trace, STRINGS[:2])
    with pytest.raises(ValueError, match="no rows"):
        trace_html(jax.tree.map(lambda x: x[:, :0], trace), STRINGS)


def test_trace_page_stands_alone_and_escapes_everything(trace):
    text = trace_html(trace, STRINGS, title=NASTY, summary=NASTY)
    page = Page(text)
    assert "img" not in page.tags and page.tags.count("script") == 2 and page.links == []
    assert page.words.count(NASTY) == 3  # title, heading, summary; the token is in the data
    assert NASTY not in text.split("<script")[1]


def test_points_are_not_joined_and_an_axis_may_be_logarithmic():
    curve = lambda **how: panel_svg("one", {"a": Curve([1, 10, 100], [1, 2, 3], **how)})
    styles = lambda svg: re.findall(r'style="([^"]*)"', svg)
    joined = lambda svg: sum("--series" in style and "fill: none" in style for style in styles(svg))
    assert joined(curve()) == 1 and joined(curve(points=True)) == 0
    ticks = lambda svg: set(Page(svg).words.split())
    assert "20" in ticks(curve()) and "20" not in ticks(curve(log=True))


def test_many_curves_look_different():
    """Eight colours, then the same ones dashed."""
    svg = panel_svg("many", {f"curve {i}": Curve([0, 1], [i, i + 1]) for i in range(12)})
    lines = [style for style in re.findall(r'style="([^"]*)"', svg) if "--series" in style and "fill: none" in style]
    assert len({(re.search(r"--series-\d", line)[0], "dasharray" in line) for line in lines}) == 12

"""The page of a trace as a browser shows it, by its keys alone."""

import re

import jax
import numpy as np
import pytest
from chromium import PROGRAM, Browser
from traces import MASK, edited

from mdmjax.base import INSERT
from mdmjax.reports import provenance, trace_html

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium, chromium-browser or google-chrome")
STRINGS = ["a", "b", "c", "d", "<e>"]
CALLS = 14


@pytest.fixture(scope="module")
def trace():
    rows = [edited(np.random.default_rng(seed), calls=CALLS, size=12)[0] for seed in (1, 2, 3)]
    return jax.tree.map(lambda *parts: np.concatenate(parts, 1), *rows)


@pytest.fixture(scope="module")
def path(trace, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "trace.html"
    path.write_text(trace_html(trace, STRINGS))
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(running):
    yield running
    assert running.errors == []


def state(browser):
    values = browser.run("['row', 'call', 'colour'].map(id => document.getElementById(id).value)")
    return int(values[0]), int(values[1]), values[2]


def tokens(browser):
    """The text of the tokens that are in the row, without those that the call has just taken out."""
    return browser.run(
        "[...document.querySelectorAll('#canvas span')].filter(s => !s.matches('.deleted')).map(s => s.textContent)"
    )


def text(browser, name):
    return browser.run(f"document.getElementById('{name}').textContent")


def test_address_opens_a_state(browser, path):
    browser.open(path)
    assert state(browser) == (0, CALLS, "call")
    browser.open(path, "#row=2&call=3&colour=what")
    assert state(browser) == (2, 3, "what")
    browser.open(path, "#row=9&colour=none&call=99")  # what there is not is passed over
    assert state(browser) == (0, CALLS, "call")


def test_every_state_of_every_row_by_keys(browser, path, trace):
    browser.open(path, "#call=0")
    for b in range(3):
        past = provenance(trace, b)
        browser.press("Home")
        for c in range(CALLS + 1):
            assert state(browser) == (b, c, "call")
            fresh = ((past.operations[c] == INSERT) & (past.written[c] == c)).astype(int)
            row = trace.tokens[c, b, : trace.lengths[c, b]].tolist()
            shown = ["·+"[new] if id == MASK else STRINGS[id] for id, new in zip(row, fresh, strict=False)]
            assert tokens(browser) == shown
            gone = set(past.slots[max(0, c - 1)]) - set(past.slots[c]) - {-1}
            assert browser.run("document.querySelectorAll('#canvas .deleted').length") == len(gone)
            assert text(browser, "status").startswith(f"call {c} of {CALLS}")
            browser.press("ArrowRight")
        browser.press("ArrowLeft")
        assert state(browser) == (b, CALLS - 1, "call")
        browser.press("End")
        assert state(browser) == (b, CALLS, "call")
        browser.press("PageDown")
    assert state(browser)[0] == 2  # the last
    browser.press("PageUp")
    assert state(browser)[0] == 1


def test_a_followed_token_keeps_its_history_where_it_moves(browser, path, trace):
    past = provenance(trace, 0)
    last = [slot for slot in past.slots[-1] if slot >= 0]
    slot = max(last, key=lambda slot: len(set(np.nonzero(past.slots == slot)[1])))  # the one that moves most
    browser.open(path)
    browser.press(*"n" * (1 + last.index(slot)))
    moved = set()
    for c in range(CALLS, -1, -1):
        said = text(browser, "token")
        if slot in past.slots[c]:
            place = past.slots[c].tolist().index(slot)
            moved.add(place)
            assert said.startswith(f"position {place}, ")
            assert not past.written[c, place] or said.endswith(f"by call {past.written[c, place]}")
            assert browser.run(
                "[...document.querySelectorAll('#canvas span')].filter(s => !s.matches('.deleted'))"
                f"[{place}].matches('.picked')"
            )
        else:
            assert said.startswith("not in the row")
        browser.press("ArrowLeft")
    assert len(moved) >= 3
    browser.press("Escape")
    assert "follow" in text(browser, "token")


def test_map_has_a_colour_for_each_call(browser, path, trace):
    past = provenance(trace, 1)
    browser.open(path, "#row=1")
    width, height, pixels = browser.run(
        "[map.width, map.height, [...new Uint32Array(map.getContext('2d').getImageData(0, 0, map.width, map.height)"
        ".data.buffer)]]"
    )
    pixels = np.array(pixels).reshape(height, width)
    assert (width, height) == (trace.lengths[:, 1].max(), CALLS + 1)
    visible = trace.tokens[:, 1, :width] < MASK
    np.testing.assert_array_equal(pixels > 0, visible)
    colours = {(call, pixel) for call, pixel in zip(past.written[:, :width][visible], pixels[visible], strict=True)}
    calls = {call for call, _ in colours}
    assert len(calls) > 5 and len(colours) == len(calls) == len({pixel for _, pixel in colours})
    browser.press("c")
    assert state(browser)[2] == "what" and browser.run("[kinds.hidden, ramp.hidden]") == [False, True]
    browser.press("c", "c")
    assert state(browser)[2] == "call" and browser.run("[kinds.hidden, ramp.hidden]") == [True, False]


def test_controls_have_names_and_a_visible_focus(browser, path):
    browser.open(path, "#call=5")
    seen = []
    for _ in range(6):
        browser.press("Tab")
        seen.append(browser.run("document.activeElement.id"))
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid", seen[-1]
    assert seen == ["back", "play", "on", "call", "row", "colour"]
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    names = [
        node["name"]["value"]
        for node in nodes
        if node["role"]["value"] in ("button", "slider", "combobox", "image") and not node["ignored"]
    ]
    assert len(names) == 7 and all(names)
    browser.run("document.getElementById('back').focus()")
    browser.press(" ")  # presses the button, and does not play
    assert state(browser)[1] == 4 and "play" in text(browser, "play")
    browser.run("document.activeElement.blur()")
    browser.press(" ")
    assert "pause" in text(browser, "play")
    browser.press(" ")
    assert "play" in text(browser, "play")


def contrast(one, other):
    """WCAG's ratio of two colours in 0..1."""
    light = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (*one, *other)]
    high, low = sorted((np.dot(light[:3], [0.2126, 0.7152, 0.0722]), np.dot(light[3:], [0.2126, 0.7152, 0.0722])))[::-1]
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("colour", ["call", "what", "confidence"])
def test_tokens_can_be_read(browser, path, theme, colour):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    browser.open(path, f"#call={CALLS - 1}&colour={colour}")
    styles = browser.run(
        "[...document.querySelectorAll('section.card, #canvas span')].map(e => "
        "[getComputedStyle(e).color, getComputedStyle(e).backgroundColor])"
    )
    (_, card), *spans = [[[float(x) for x in re.findall(r"[\d.]+", value)] for value in pair] for pair in styles]
    card = np.array(card) / 255
    assert (card.mean() > 0.5) == (theme == "light")
    for ink, tint in spans:
        alpha = tint[3] if len(tint) == 4 else 1
        ground = alpha * np.array(tint[:3]) / 255 + (1 - alpha) * card
        assert contrast(np.array(ink) / 255, ground) > 3.5, (ink, tint)


def test_a_narrow_page_does_not_scroll_sideways(browser, path):
    browser.call("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=False)
    browser.open(path)
    assert browser.run("document.documentElement.scrollWidth") <= 320
    browser.call("Emulation.clearDeviceMetricsOverride")

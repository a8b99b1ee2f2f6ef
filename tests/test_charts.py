import base64
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab_kit.widgets import charts
from ftlab_kit.widgets.charts import Series, Trace

LOSS = [Series("training", [(1, 3.56), (200, 2.0), (400, 0.91)]), Series("held out", [(200, 2.1)])]


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_still_picture_reads_on_the_ground_that_it_brings():
    low, high = sorted([luminance(charts.STILL), luminance(charts.GROUND)])
    assert (high + 0.05) / (low + 0.05) >= 4.5
    assert f'fill="{charts.GROUND}"' in charts.lines("loss", LOSS, is_live=False)


def test_a_live_picture_takes_the_front_ends_own_colour():
    assert charts.STILL not in charts.lines("loss", LOSS)
    assert 'fill="currentColor"' in charts.lines("loss", LOSS)


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
@pytest.mark.parametrize("colour", charts.COLOURS[:2])
def test_lines_are_seen_on_both_of_jupyters_grounds(ground: str, colour: str):
    low, high = sorted([luminance(colour), luminance(ground)])
    assert (high + 0.05) / (low + 0.05) >= 3


def test_the_alt_text_is_made_from_the_data():
    assert charts.alt("loss", LOSS) == (
        "loss: training from 3.56 to 0.91; held out from 2.1 to 2.1 over 400 steps"
    )


def test_a_chart_is_well_formed_and_names_every_line():
    root = ElementTree.fromstring(charts.lines("loss", LOSS))
    text = " ".join(root.itertext())
    assert "training" in text
    assert "held out" in text
    assert len(root.findall("{*}polyline")) == 2


def test_a_chart_without_data_says_so():
    assert "no data yet" in charts.lines("loss", [Series("training")])


def test_names_are_escaped():
    ElementTree.fromstring(charts.lines("<loss> & co", [Series("<b>", [(1, 1.0)])]))


def test_a_figure_has_alt_text_and_a_table_and_loads_nothing():
    shown = charts.figure("loss", LOSS)
    assert 'alt="loss: training from 3.56' in shown
    assert "<td" in shown
    (picture,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', shown)
    assert base64.b64decode(picture).startswith(b"<svg")
    assert "http://" not in shown.replace("http://www.w3.org/2000/svg", "")


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_span_the_data(low: float, span: float):
    made = charts.ticks(low, low + span)
    slack = 1e-6 * (abs(low) + span + 1)
    assert made[0] <= low + slack
    assert made[-1] >= low + span - slack
    assert 2 <= len(made) <= 12


def test_a_trace_keeps_first_last_and_every_spike():
    trace = Trace()
    for x in range(100_000):
        trace.add(x, 1000.0 if x == 54_321 else x % 7)
    points = trace.points()
    assert len(points) <= 2 * charts.BUCKETS + 2
    assert points[0] == (0, 0)
    assert points[-1] == (99_999, 99_999 % 7)
    assert (54_321, 1000.0) in points


def test_a_short_trace_is_kept_whole():
    trace = Trace()
    for x in range(50):
        trace.add(x, float(x))
    assert trace.points() == [(x, float(x)) for x in range(50)]


def test_a_histogram_counts_every_value_once():
    found = charts.histogram("length", [3, 4, 4, 9, 21, 30], unit="tokens", cut=20)
    assert sum(found.counts) == 6
    for index, count in enumerate(found.counts):
        low = found.low + index * found.step
        is_last = index == len(found.counts) - 1
        inside = [v for v in (3, 4, 4, 9, 21, 30) if low <= v < low + found.step + is_last]
        assert len(inside) == count
    assert found.words().startswith("length: 6 from ") and found.words().endswith("; cut at 20")
    xml = ElementTree.fromstring(found.picture())
    assert len(xml.findall(".//{*}rect")) == len(found.counts)
    assert "cut at 20" in found.figure() and "<table>" in found.figure()


def test_a_histogram_of_one_value_is_drawn():
    found = charts.histogram("loss", [2.5, 2.5], unit="nats")
    assert sum(found.counts) == 2
    ElementTree.fromstring(found.picture(is_live=False))


def test_shares_say_what_is_not_known():
    picture = charts.shares("quality", [("rows", 1.0, "63 rows"), ("apart", None, "not known")])
    words = ElementTree.fromstring(picture).attrib["aria-label"]
    assert words == "quality: rows 100%, apart –"

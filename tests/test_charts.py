"""Charts: pure functions from numbers to SVG text, with alt text made from the data."""

import base64
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab_kit.pictures import bars, charts, traces
from ftlab_kit.pictures.charts import Mark, Series
from ftlab_kit.pictures.traces import Trace
from ftlab_kit.records import Bucket, Curve, Rows

LOSS = [Series("training", [(1, 3.56), (200, 2.0), (400, 0.91)]), Series("held out", [(200, 2.1)])]


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_of_a_still_picture_has_contrast_on_its_own_background():
    low, high = sorted([luminance(charts.STILL), luminance(charts.GROUND)])
    assert (high + 0.05) / (low + 0.05) >= 4.5
    assert f'fill="{charts.GROUND}"' in charts.lines("loss", LOSS, is_live=False)


def test_text_of_a_live_picture_takes_the_front_ends_colour():
    assert charts.STILL not in charts.lines("loss", LOSS)
    assert 'fill="currentColor"' in charts.lines("loss", LOSS)


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
@pytest.mark.parametrize("colour", charts.COLOURS[:2])
def test_lines_have_contrast_in_both_of_jupyters_themes(ground: str, colour: str):
    low, high = sorted([luminance(colour), luminance(ground)])
    assert (high + 0.05) / (low + 0.05) >= 3


def test_the_alt_text_is_made_from_the_data():
    assert charts.alt_text("loss", LOSS) == (
        "loss: training from 3.56 to 0.91; held out from 2.1 to 2.1 over 400 steps"
    )


def test_a_chart_is_well_formed_and_names_every_line():
    root = ElementTree.fromstring(charts.lines("loss", LOSS))
    text = " ".join(root.itertext())
    assert "training" in text
    assert "held out" in text
    paths = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("d")]
    assert sum(path.get("fill") == "none" for path in paths) == 2


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
    ticks = charts.ticks(low, low + span)
    slack = 1e-6 * (abs(low) + span + 1)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 12


def test_a_trace_keeps_first_last_and_every_spike():
    trace = Trace()
    for x in range(100_000):
        trace.add(x, 1000.0 if x == 54_321 else x % 7)
    points = trace.points()
    assert len(points) <= 2 * traces.MAX_BUCKETS + 2
    assert points[0] == (0, 0)
    assert points[-1] == (99_999, 99_999 % 7)
    assert (54_321, 1000.0) in points


def test_a_short_trace_is_kept_whole():
    trace = Trace()
    for x in range(50):
        trace.add(x, float(x))
    assert trace.points() == [(x, float(x)) for x in range(50)]


def test_a_histogram_counts_every_value_once():
    histogram = bars.histogram("length", [3, 4, 4, 9, 21, 30], unit="tokens", cut=20)
    assert sum(histogram.counts) == 6
    for index, count in enumerate(histogram.counts):
        low = histogram.low + index * histogram.step
        is_last = index == len(histogram.counts) - 1
        inside = [v for v in (3, 4, 4, 9, 21, 30) if low <= v < low + histogram.step + is_last]
        assert len(inside) == count
    text = histogram.alt_text()
    assert text.startswith("length: 6 from ") and text.endswith("; cut at 20")
    xml = ElementTree.fromstring(histogram.picture())
    assert len(xml.findall(".//{*}g/{*}path/{*}title")) == len(histogram.counts)
    assert "cut at 20" in histogram.figure() and "<table>" in histogram.figure()


def test_a_histogram_of_one_value_is_drawn():
    histogram = bars.histogram("loss", [2.5, 2.5], unit="nats")
    assert sum(histogram.counts) == 2
    ElementTree.fromstring(histogram.picture(is_live=False))


def test_an_unknown_share_is_a_dash():
    parts = [bars.Share("rows", 1.0, "63 rows"), bars.Share("apart", None, "not known")]
    label = ElementTree.fromstring(bars.shares("quality", parts)).attrib["aria-label"]
    assert label == "quality: rows 100%, apart –"


def pixels_of(path: str) -> list[tuple[float, float]]:
    """Return the pixels that a relative path in tenths of a pixel leads through."""
    numbers = [int(number) for number in re.findall(r"-?\d+", path)]
    x, y = numbers[:2]
    pixels = [(x / 10, y / 10)]
    for dx, dy in zip(numbers[2::2], numbers[3::2], strict=False):
        x, y = x + dx, y + dy
        pixels.append((x / 10, y / 10))
    return pixels


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 190)), min_size=2, max_size=60))
def test_a_shortened_path_stays_within_half_a_pixel(points: list[tuple[float, float]]):
    path = charts.path(points, "", 1.0)
    pixels = pixels_of(re.search(r' d="([^"]+)"', path)[1])
    assert max(abs(a - b) for a, b in zip(pixels[0], points[0], strict=True)) <= 0.051
    assert max(abs(a - b) for a, b in zip(pixels[-1], points[-1], strict=True)) <= 0.051
    for x, y in points:
        assert min(max(abs(x - a), abs(y - b)) for a, b in pixels) <= 0.61


def test_a_mark_is_drawn_and_explained_in_live_and_still_pictures():
    mark = Mark(100, "1", "adjust at step 100")
    live = charts.lines("loss", LOSS, marks=[mark, Mark(900, "2", "outside")])
    still = charts.lines("loss", LOSS, marks=[mark], is_live=False)
    assert "<title>adjust at step 100</title>" in live and ">1</text>" in still
    assert "outside" not in live
    ElementTree.fromstring(still)


def test_a_live_chart_shows_its_values_under_the_pointer():
    root = ElementTree.fromstring(charts.lines("loss", LOSS))
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("training 2 at 200, held out 2.1 at 200" in title for title in titles)
    assert "<title>training" not in charts.lines("loss", LOSS, is_live=False)


def test_a_small_curve_has_a_label_and_may_be_empty():
    ElementTree.fromstring(charts.spark("loss from 3 to 1", [(1, 3.0), (2, 1.0)]))
    assert 'aria-label="none"' in charts.spark("none", [])


def test_smoothing_starts_at_the_first_value_and_ends_between():
    trace = traces.of([(step, float(step % 2)) for step in range(100)])
    smooth = [y for _, y in trace.smooth(0.9)]
    assert smooth[0] == 0 and 0.4 < smooth[-1] < 0.6
    assert trace.smooth(0.0) == trace.points()


def test_a_downsampled_curve_continues_step_by_step():
    stretches = Rows([Bucket(0, 63, 64, 0.0, 9.0, 1.0), Bucket(64, 127, 64, 1.0, 2.0, 1.5)])
    trace = Trace(Curve("loss", 64, stretches, 5.0, 1.5))
    trace.add(128, 7.0)
    assert trace.points()[0] == (0.0, 5.0) and trace.points()[-1] == (128, 7.0)
    assert (42.0, 9.0) in trace.points()
    assert [y for _, y in trace.smooth(0)] == [1.0, 1.5, 7.0]


def test_labels_of_lines_that_end_together_are_24_pixels_apart():
    ending_together = [Series(name, [(0, 1.0), (9, 2.0)]) for name in ("a", "b", "c")]
    labels = re.findall(
        r'<text x="348" y="([\d.]+)" [^>]*><tspan font-weight', charts.lines("x", ending_together)
    )
    assert [float(y) for y in labels] == [28.0, 52.0, 76.0]


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 0.5, 1.0, 1.5], ["0", "0.5", "1.0", "1.5"]),
        ([0, 200, 400], ["0", "200", "400"]),
        ([0, 1000, 2000], ["0k", "1k", "2k"]),
        ([0, 0.0001, 0.0002], ["0", "1.0e-4", "2.0e-4"]),
        ([9990, 9995, 10000], ["9,990", "9,995", "10,000"]),
    ],
)
def test_tick_labels_have_just_enough_digits(ticks: list[float], labels: list[str]):
    assert charts._tick_labels(ticks) == labels


def test_pictures_need_no_workspace_and_no_widgets():
    code = (
        "import sys, importlib; from ftlab_kit import pictures; "
        "[importlib.import_module(f'ftlab_kit.pictures.{name}') for name in pictures.__all__]; "
        "print(*sys.modules)"
    )
    modules = {*subprocess.check_output([sys.executable, "-c", code], text=True).split()}
    assert not {"ipywidgets", "sqlalchemy", "torch", "ftlab_kit.workspace"} & modules
    rooms = {name.split(".")[1] for name in modules if name.startswith("ftlab_kit.")}
    assert rooms <= {"pictures", "records", "errors"}

"""Charts as SVG text: pure functions from numbers to a picture.

The same text is shown live in an `ipywidgets.HTML` and static in an `<img>` with alt text and a
table of the data, which survives untrusted notebooks, GitHub and export. Colours are Okabe and
Ito's, told apart by dashes and labels too.
"""

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ftlab_kit.records import CELL, show

# live, the words take the front end's own colour; a still picture brings its ground along
LIVE, STILL, GROUND = "currentColor", "#595959", "#ffffff"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
DASHES = ("", "6 3", "2 2", "8 2 2 2", "1 3")
WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 96, 24, 30
BUCKETS = 256

Point = tuple[float, float]


class Trace:
    """A series in bounded memory: 256 buckets of least and greatest, merged in pairs when full.

    No spike is lost, however long the series; a million points draw as fast as five hundred.
    """

    def __init__(self) -> None:
        """Begin without a point."""
        self._size = 1
        self._buckets: list[tuple[int, Point, Point]] = []
        self.first: Point | None = None
        self.last: Point | None = None

    def add(self, x: float, y: float) -> None:
        """Append a point; x must not fall."""
        point = (x, y)
        self.first = self.first or point
        self.last = point
        if self._buckets and self._buckets[-1][0] < self._size:
            n, low, high = self._buckets[-1]
            self._buckets[-1] = (n + 1, min(low, point, key=_y), max(high, point, key=_y))
        else:
            self._buckets.append((1, point, point))
        if len(self._buckets) > BUCKETS:
            self._size *= 2
            self._buckets = [
                _merge(self._buckets[at : at + 2]) for at in range(0, len(self._buckets), 2)
            ]

    def points(self) -> list[Point]:
        """Return at most two points a bucket, with the very first and last."""
        if self.first is None or self.last is None:
            return []
        found = {self.first, self.last}
        for _, low, high in self._buckets:
            found |= {low, high}
        return sorted(found)


def _y(point: Point) -> float:
    return point[1]


def _merge(pair: Sequence[tuple[int, Point, Point]]) -> tuple[int, Point, Point]:
    return (
        sum(item[0] for item in pair),
        min((item[1] for item in pair), key=_y),
        max((item[2] for item in pair), key=_y),
    )


@dataclass(frozen=True)
class Series:
    """A named line; gaps are simply points that are not there."""

    name: str
    points: Sequence[Point] = field(default=())


def alt(title: str, series: Sequence[Series], *, unit: str = "steps") -> str:
    """Return what a chart says in words, made from its data."""
    said = [
        f"{item.name} from {show(item.points[0][1])} to {show(item.points[-1][1])}"
        for item in series
        if item.points
    ]
    if not said:
        return f"{title}: no data yet"
    last = max(item.points[-1][0] for item in series if item.points)
    return f"{title}: {'; '.join(said)} over {last:g} {unit}"


def lines(
    title: str, series: Sequence[Series], *, unit: str = "steps", is_live: bool = True
) -> str:
    """Return a line chart as SVG text; the x axis is labelled with the unit.

    Args:
        is_live: Points say their value under the pointer, which a picture in a page can't.
    """
    width, height, ink = WIDTH, HEIGHT, LIVE if is_live else STILL
    shown = [item for item in series if item.points]
    head = begin(title, alt(title, series, unit=unit), (width, height), is_live=is_live)
    if not shown:
        empty = f'<text x="{LEFT}" y="{height / 2:g}" fill="{ink}">no data yet</text>'
        return f"{head}{empty}</svg>"
    every = [point for item in shown for point in item.points]
    x_ticks = ticks(min(x for x, _ in every), max(x for x, _ in every), whole=True)
    y_ticks = ticks(min(y for _, y in every), max(y for _, y in every))
    frame = _Frame(width, height, ink, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    body = "".join(_line(frame, index, item, is_live) for index, item in enumerate(shown))
    return head + _axes(frame, x_ticks, y_ticks, unit) + body + _labels(frame, shown) + "</svg>"


def begin(title: str, words: str, size: tuple[int, int], *, is_live: bool) -> str:
    """Return the beginning of a picture: its size, what it says in words, ground and title."""
    (width, height), ink, label = size, LIVE if is_live else STILL, html.escape(words)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{label}" font-family="system-ui,sans-serif" '
        f'font-size="11" style="max-width:100%;height:auto"><title>{label}</title>'
        + ("" if is_live else f'<rect width="{width}" height="{height}" fill="{GROUND}"/>')
        + f'<text x="{LEFT}" y="15" fill="{ink}" font-weight="600">{html.escape(title)}</text>'
    )


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each of equal ranges; `cut` is a place to be marked, if any."""

    title: str
    unit: str
    low: float
    step: float
    counts: Sequence[int]
    cut: float | None = None

    @property
    def high(self) -> float:
        """Where the last range ends."""
        return self.low + self.step * len(self.counts)

    def words(self) -> str:
        """Return what the picture says, made from its data."""
        said = f"{self.title}: {sum(self.counts)} from {show(self.low)} to {show(self.high)}"
        most = max(range(len(self.counts)), key=self.counts.__getitem__)
        start = self.low + most * self.step
        said += f" {self.unit}, most between {show(start)} and {show(start + self.step)}"
        return said if self.cut is None else f"{said}; cut at {show(self.cut)}"

    def picture(self, *, is_live: bool = True) -> str:
        """Return it as SVG text."""
        ink = LIVE if is_live else STILL
        head = begin(self.title, self.words(), (WIDTH, HEIGHT), is_live=is_live)
        high = max(self.high, self.cut or self.high)
        x_ticks = ticks(self.low, high, whole=self.step >= 1)
        y_ticks = ticks(0, max(self.counts), whole=True)
        ends = [(found[0], found[-1]) for found in (x_ticks, y_ticks)]
        frame = _Frame(WIDTH, HEIGHT, ink, ends[0], ends[1])
        body = _axes(frame, x_ticks, y_ticks, self.unit)
        for index, count in enumerate(self.counts):
            x, y = frame.x(self.low + index * self.step), frame.y(count)
            width = frame.x(self.low + (index + 1) * self.step) - x
            words = f"<title>{count} from {show(self.low + index * self.step)}</title>"
            said = words if is_live else ""
            body += (
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1, width - 1):.1f}" '
                f'height="{frame.y(0) - y:.1f}" fill="{COLOURS[0]}">{said}</rect>'
            )
        if self.cut is not None:
            x = frame.x(self.cut)
            body += (
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" {_stroke(1)} '
                f'stroke-width="2"/><text x="{x + 5:.1f}" y="{TOP + 10}" fill="{ink}">'
                f"cut at {show(self.cut)}</text>"
            )
        return f"{head}{body}</svg>"

    def figure(self) -> str:
        """Return it as it stays in a saved notebook."""
        rows = "".join(
            f"<tr><td {CELL}>{show(self.low + index * self.step)}</td><td {CELL}>{count}</td></tr>"
            for index, count in enumerate(self.counts)
        )
        top = f"<tr><th {CELL}>{self.unit}, from</th><th {CELL}>count</th></tr>"
        picture = self.picture(is_live=False)
        return still(picture, self.words(), self.title, f"<table>{top}{rows}</table>")


def histogram(
    title: str, values: Sequence[float], *, unit: str, cut: float | None = None, wanted: int = 24
) -> Histogram:
    """Count values in about so many ranges of a round width."""
    low, high = min(values), max(values)
    whole = all(float(value).is_integer() for value in values)
    marks = ticks(low, high, whole=whole, wanted=wanted)
    step = marks[1] - marks[0]
    counts = [0] * (len(marks) - 1)
    for value in values:
        counts[min(len(counts) - 1, int((value - marks[0]) / step))] += 1
    return Histogram(title, unit, marks[0], step, counts, cut)


def shares(
    title: str, parts: Sequence[tuple[str, float | None, str]], *, is_live: bool = True
) -> str:
    """Return named shares from 0 to 1 as bars with words beside them; None is not known.

    Args:
        parts: Name, share, and what is said of it.
    """
    ink, height = LIVE if is_live else STILL, 26 + 18 * len(parts)
    said = [
        f"{name} {show(share) if share is None else f'{share:.0%}'}" for name, share, _ in parts
    ]
    body = begin(title, f"{title}: {', '.join(said)}", (2 * WIDTH, height), is_live=is_live)
    for index, (name, share, words) in enumerate(parts):
        y = 26 + 18 * index
        body += (
            f'<text x="{LEFT + 50}" y="{y + 10}" fill="{ink}" text-anchor="end">'
            f"{html.escape(name)}</text>"
            f'<rect x="{LEFT + 58}" y="{y}" width="160" height="12" fill="none" stroke="{ink}" '
            f'stroke-opacity="0.5"/><rect x="{LEFT + 58}" y="{y}" width="{160 * (share or 0):.1f}" '
            f'height="12" fill="{COLOURS[0]}"/>'
            f'<text x="{LEFT + 226}" y="{y + 10}" fill="{ink}">{html.escape(words)}</text>'
        )
    return f"{body}</svg>"


@dataclass(frozen=True)
class _Frame:
    """Where data stands on the picture."""

    width: int
    height: int
    ink: str
    x_range: Point
    y_range: Point

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, *, whole: bool = False, wanted: int = 4) -> list[float]:
    """Return round numbers that span a range, about as many as wanted."""
    span = high - low
    size = max(abs(low), abs(high))
    if span <= 1e-9 * size or span < 1e-300:  # a flat line still needs a frame
        span = size if size > 1e-300 else 1.0
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [index * step for index in range(first, last + 1)]


def _axes(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], unit: str) -> str:
    left, right, base = LEFT, frame.width - RIGHT, frame.height - BOTTOM
    parts = []
    for value in y_ticks:
        y = frame.y(value)
        parts.append(
            f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{frame.ink}" '
            f'stroke-opacity="0.25"/><text x="{left - 6}" y="{y + 4:.1f}" fill="{frame.ink}" '
            f'text-anchor="end">{_tick(value)}</text>'
        )
    for value in x_ticks:
        parts.append(
            f'<text x="{frame.x(value):.1f}" y="{base + 14}" fill="{frame.ink}" '
            f'text-anchor="middle">{_tick(value)}</text>'
        )
    parts.append(
        f'<text x="{right}" y="{base + 27}" fill="{frame.ink}" text-anchor="end">{unit}</text>'
    )
    return "".join(parts)


def _tick(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.1e}".replace("e-0", "e-") if abs(value) < 0.001 else f"{value:.4g}"


def _line(frame: _Frame, index: int, series: Series, is_live: bool) -> str:
    colour = COLOURS[index % len(COLOURS)]
    where = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in series.points)
    few = series.points if len(series.points) <= 40 else series.points[-1:]
    dots = "".join(
        f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5" fill="{colour}">'
        f"<title>{html.escape(series.name)} {show(float(y))} at {x:g}</title></circle>"
        for x, y in few
        if is_live or len(few) == 1
    )
    line = f'<polyline fill="none" {_stroke(index)} stroke-width="1.6" points="{where}"/>'
    return line + dots


def _stroke(index: int) -> str:
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    return f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _labels(frame: _Frame, series: Sequence[Series]) -> str:
    """Name each line at its end, moved apart where two ends meet."""
    ends = sorted((frame.y(item.points[-1][1]), index) for index, item in enumerate(series))
    parts, floor = [], 0.0
    for y, index in ends:
        place = max(y, floor)
        floor = place + 24
        item = series[index]
        x = frame.width - RIGHT + 6
        # words in ink, because a line's colour alone is too faint for text on one of the grounds
        parts.append(
            f'<line x1="{x}" x2="{x + 14}" y1="{place - 4:.1f}" y2="{place - 4:.1f}" '
            f'{_stroke(index)} stroke-width="3"/>'
            f'<text x="{x + 18}" y="{place:.1f}" fill="{frame.ink}">'
            f'<tspan font-weight="600">{show(float(item.points[-1][1]))}</tspan>'
            f'<tspan x="{x + 18}" dy="11">{html.escape(item.name)}</tspan></text>'
        )
    return "".join(parts)


def figure(title: str, series: Sequence[Series], *, unit: str = "steps") -> str:
    """Return a chart as it stays in a saved notebook: a picture, its words, and its data."""
    picture = lines(title, series, unit=unit, is_live=False)
    return still(picture, alt(title, series, unit=unit), title, _table(series, unit))


def still(picture: str, words: str, title: str, table: str) -> str:
    """Return a picture, its words and its data as they stay in a saved notebook."""
    data = base64.b64encode(picture.encode()).decode()
    return (
        f'<img alt="{html.escape(words, quote=True)}" src="data:image/svg+xml;base64,{data}"/>'
        f"<details><summary>{html.escape(title)} as a table</summary>{table}</details>"
    )


def _table(series: Sequence[Series], unit: str, *, at_most: int = 20) -> str:
    known = [dict(item.points) for item in series]
    places = sorted({x for item in known for x in item})
    places = places[:: max(1, math.ceil(len(places) / at_most))]
    head = "".join(f"<th {CELL}>{html.escape(item.name)}</th>" for item in series)
    body = "".join(
        f"<tr><td {CELL}>{x:g}</td>"
        + "".join(f"<td {CELL}>{show(item.get(x))}</td>" for item in known)
        + "</tr>"
        for x in places
    )
    top = f"<thead><tr><th {CELL}>{unit}</th>{head}</tr></thead>"
    return f"<table>{top}<tbody>{body}</tbody></table>"

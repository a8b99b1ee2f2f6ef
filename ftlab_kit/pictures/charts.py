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
from itertools import pairwise

from ftlab_kit.records import show

# live, the words take the front end's own colour; a still picture brings its ground along
LIVE, STILL, GROUND = "currentColor", "#595959", "#ffffff"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
DASHES = ("", "6 3", "2 2", "8 2 2 2", "1 3")
WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 96, 28, 30
SPARK = (110, 22)
HALF = 5  # a pixel, in tenths
HOVERS = 12  # places of a live chart that say their values under the pointer
NEAR = 10  # pixels within which two signs would touch
FEW = 24  # points that are drawn as points, too

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A named line; gaps are simply points that are not there.

    A faint one stands behind the one before it, in its colour and without a name of its own.
    """

    name: str
    points: Sequence[Point] = field(default=())
    is_faint: bool = False


@dataclass(frozen=True)
class Mark:
    """A place on the x axis where something happened: a sign for the picture, and its words."""

    x: float
    sign: str
    message: str


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
    title: str,
    series: Sequence[Series],
    *,
    unit: str = "steps",
    marks: Sequence[Mark] = (),
    is_live: bool = True,
) -> str:
    """Return a line chart as SVG text; the x axis is labelled with the unit.

    Args:
        marks: Places where something happened; those beside the lines are left out.
        is_live: Values are said under the pointer, which a picture in a page can't.
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
    frame = Frame(width, height, ink, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    body = axes(frame, x_ticks, y_ticks, unit) + _marks(frame, marks, is_live)
    named = [item for item in shown if not item.is_faint]
    for index, item in enumerate(shown):
        at = index - sum(other.is_faint for other in shown[: index + 1])
        body += _line(frame, at, item)
    hovers = _hovers(frame, shown) if is_live else ""
    return head + body + _labels(frame, named) + hovers + "</svg>"


def spark(words: str, points: Sequence[Point]) -> str:
    """Return a line of the size of a word, without axes, for a cell of a table."""
    width, height = SPARK
    label = html.escape(words)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{label}"><title>{label}</title>'
    )
    if not points:
        return f"{head}</svg>"
    xs, ys = zip(*points, strict=True)
    spans = (max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0)
    places = [
        (2 + (x - min(xs)) / spans[0] * (width - 6), 3 + (max(ys) - y) / spans[1] * (height - 6))
        for x, y in points
    ]
    x, y = places[-1]
    end = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{COLOURS[0]}"/>'
    return f"{head}{path(places, stroke(0), 1.4)}{end}</svg>"


def begin(title: str, words: str, size: tuple[int, int], *, is_live: bool) -> str:
    """Return the beginning of a picture: its size, what it says in words, ground and title."""
    (width, height), ink, label = size, LIVE if is_live else STILL, html.escape(words)
    # a still picture's words are those of its image
    said = f' role="img" aria-label="{label}" style="max-width:100%;height:auto"' if is_live else ""
    ground = f"<title>{label}</title>"
    if not is_live:
        ground = f'<rect width="{width}" height="{height}" fill="{GROUND}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"{said} font-family="system-ui,sans-serif" font-size="11">{ground}'
        f'<text x="{LEFT}" y="15" fill="{ink}" font-weight="600">{html.escape(title)}</text>'
    )


@dataclass(frozen=True)
class Frame:
    """Where data stands on the picture."""

    width: int
    height: int
    ink: str
    x_range: Point
    y_range: Point

    def x(self, value: float) -> float:
        """Return the pixels from the left."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the pixels from the top."""
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


def axes(frame: Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], unit: str) -> str:
    """Return both axes with their ticks, and the unit of x."""
    left, right, base = LEFT, frame.width - RIGHT, frame.height - BOTTOM
    rows = [
        (f"{frame.y(value):.0f}", said)
        for value, said in zip(y_ticks, _ticks(y_ticks), strict=True)
    ]
    lines = "".join(f"M{left} {y}H{right}" for y, _ in rows)
    at_left = "".join(f'<text x="{left - 6}" y="{int(y) + 4}">{said}</text>' for y, said in rows)
    below = "".join(
        f'<text x="{frame.x(value):.0f}" y="{base + 14}">{said}</text>'
        for value, said in zip(x_ticks, _ticks(x_ticks), strict=True)
    )
    return (
        f'<path d="{lines}" stroke="{frame.ink}" stroke-opacity="0.25"/>'
        f'<g fill="{frame.ink}" text-anchor="end">{at_left}'
        f'<text x="{right}" y="{base + 27}">{unit}</text></g>'
        f'<g fill="{frame.ink}" text-anchor="middle">{below}</g>'
    )


def _ticks(values: Sequence[float]) -> list[str]:
    """Return round numbers as they stand at an axis, with as many digits as tell them apart."""
    step = values[1] - values[0]
    largest = max(map(abs, values))
    if step >= 1000:
        return [f"{value / 1000:g}k" for value in values]
    if largest < 0.001:
        return ["0" if value == 0 else f"{value:.1e}".replace("e-0", "e-") for value in values]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:,.{digits}f}" if value else "0" for value in values]


def _line(frame: Frame, index: int, series: Series) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in series.points]
    faint = ' stroke-opacity="0.4"' if series.is_faint else ""
    few = places if len(places) <= FEW else []
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{COLOURS[index % len(COLOURS)]}"/>'
        for x, y in few
    )
    return path(places, stroke(index, times=10) + faint, 1.6) + ("" if series.is_faint else dots)


def path(places: Sequence[Point], looks: str, width: float) -> str:
    """Return a line through places in pixels, in tenths and relative, so that it is short."""
    tenths = [(round(10 * x), round(10 * y)) for x, y in places]
    parts, at = [f"M{tenths[0][0]} {tenths[0][1]}"], tenths[0]
    kept = [*tenths[1:-1], *tenths[-1:]]
    for number, (x, y) in enumerate(kept):
        # what lies within half a pixel of where the line is already can't be seen
        is_seen = abs(x - at[0]) > HALF or abs(y - at[1]) > HALF or number == len(kept) - 1
        if is_seen:
            parts.append(f"{x - at[0]} {y - at[1]}")
            at = (x, y)
    rest = f"l{' '.join(parts[1:])}".replace(" -", "-") if parts[1:] else "h0"
    return (
        f'<path transform="scale(.1)" fill="none" {looks} stroke-width="{10 * width:g}" '
        f'd="{parts[0]}{rest}"/>'
    )


def _marks(frame: Frame, marks: Sequence[Mark], is_live: bool) -> str:
    """Return a line with a sign for each mark between the first and the last step."""
    parts, before = [], -math.inf
    for mark in sorted(marks, key=lambda mark: mark.x):
        if frame.x_range[0] <= mark.x <= frame.x_range[1]:
            x = frame.x(mark.x)
            top = TOP + 8 if x - before < NEAR else TOP - 2
            before = x if top < TOP else before
            words = f"<title>{html.escape(mark.message)}</title>" if is_live else ""
            parts.append(
                f'<g fill="{frame.ink}">{words}<path d="M{x:.1f} {TOP}V{frame.height - BOTTOM}" '
                f'stroke="{frame.ink}" stroke-dasharray="1 3"/><text x="{x:.1f}" y="{top}" '
                f'font-size="9" text-anchor="middle">{html.escape(mark.sign)}</text></g>'
            )
    return "".join(parts)


def _hovers(frame: Frame, series: Sequence[Series]) -> str:
    """Return places without colour that say under the pointer what the lines are there."""
    known = [dict(item.points) for item in series]
    every = sorted({x for item in known for x in item})
    shown = every[:: max(1, math.ceil(len(every) / HOVERS))]
    edges = [every[0], *((x + y) / 2 for x, y in pairwise(shown)), every[-1]]
    parts = []
    for low, high in pairwise(edges):
        said = []
        for item, values in zip(series, known, strict=True):
            here = [x for x in values if low <= x <= high]
            if here:
                middle = here[len(here) // 2]
                said.append(f"{item.name} {show(float(values[middle]))} at {middle:g}")
        left, right = round(frame.x(low)), round(frame.x(high))
        parts.append(
            f'<path d="M{left} {TOP}h{max(4, right - left)}v{frame.height - TOP - BOTTOM}'
            f'H{left}z"><title>{html.escape(", ".join(said))}</title></path>'
        )
    return f'<g fill-opacity="0">{"".join(parts)}</g>'


def stroke(index: int, *, times: int = 1) -> str:
    """Return the colour and dashes of a line by its number, in pixels or parts of them."""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    sizes = " ".join(str(times * int(size)) for size in dash.split())
    return f'stroke="{colour}"' + (f' stroke-dasharray="{sizes}"' if dash else "")


def _labels(frame: Frame, series: Sequence[Series]) -> str:
    """Name each line at its end, moved apart where two ends meet."""
    ends = sorted((frame.y(item.points[-1][1]), index) for index, item in enumerate(series))
    places, floor = [], 0.0
    for y, _ in ends:
        places.append(max(y, floor))
        floor = places[-1] + 24
    # pushed down past the axis, they are pushed up again, the last one first
    ceiling = float(frame.height - BOTTOM)
    for at in reversed(range(len(places))):
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - 24
    parts = []
    for place, (_, index) in zip(places, ends, strict=True):
        item = series[index]
        x = frame.width - RIGHT + 6
        # words in ink, because a line's colour alone is too faint for text on one of the grounds
        parts.append(
            f'<line x1="{x}" x2="{x + 14}" y1="{place - 4:.1f}" y2="{place - 4:.1f}" '
            f'{stroke(index)} stroke-width="3"/>'
            f'<text x="{x + 18}" y="{place:.1f}" fill="{frame.ink}">'
            f'<tspan font-weight="600">{show(float(item.points[-1][1]))}</tspan>'
            f'<tspan x="{x + 18}" dy="11">{html.escape(item.name)}</tspan></text>'
        )
    return "".join(parts)


def figure(
    title: str, series: Sequence[Series], *, unit: str = "steps", marks: Sequence[Mark] = ()
) -> str:
    """Return a chart as it stays in a saved notebook: a picture, its words, and its data."""
    picture = lines(title, series, unit=unit, marks=marks, is_live=False)
    return still(picture, alt(title, series, unit=unit), title, _table(series, unit))


def still(picture: str, words: str, title: str, table: str) -> str:
    """Return a picture, its words and its data as they stay in a saved notebook."""
    summary = f"<summary>{html.escape(title)} as a table</summary>"
    return f"{image(picture, words)}<details>{summary}{table}</details>"


def in_pairs(pictures: Sequence[str]) -> str:
    """Return figures two beside each other."""
    cells = [f'<td style="text-align:left;vertical-align:top">{item}</td>' for item in pictures]
    rows = ["".join(cells[at : at + 2]) for at in range(0, len(cells), 2)]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>" if rows else ""


def image(picture: str, words: str) -> str:
    """Return SVG text as an image that carries its words and shows in untrusted notebooks."""
    data = base64.b64encode(picture.encode()).decode()
    return f'<img alt="{html.escape(words, quote=True)}" src="data:image/svg+xml;base64,{data}"/>'


def _table(series: Sequence[Series], unit: str, *, at_most: int = 20) -> str:
    known = [dict(item.points) for item in series]
    places = sorted({x for item in known for x in item})
    places = places[:: max(1, math.ceil(len(places) / at_most))]
    # numbers alone: without a style of their own they stand at the right, in a third of the bytes
    head = "".join(f"<th>{html.escape(item.name)}</th>" for item in series)
    body = "".join(
        f"<tr><td>{x:g}</td>{''.join(f'<td>{show(item.get(x))}</td>' for item in known)}</tr>"
        for x in places
    )
    top = f"<thead><tr><th>{unit}</th>{head}</tr></thead>"
    return f"<table>{top}<tbody>{body}</tbody></table>"

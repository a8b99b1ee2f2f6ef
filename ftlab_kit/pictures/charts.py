"""Line charts as SVG text: pure functions from numbers to a picture.

A live view shows the text in an `ipywidgets.HTML`. A report shows it as an `<img>` with alt text
and a table of the data, which survives untrusted notebooks, GitHub and export. Colours are Okabe
and Ito's; dashes and labels tell lines apart as well.
"""

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ftlab_kit.records import show

# live, text takes the front end's own colour; a still picture brings its own background
LIVE, STILL, GROUND = "currentColor", "#595959", "#ffffff"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
DASHES = ("", "6 3", "2 2", "8 2 2 2", "1 3")
WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 96, 28, 30
SPARK = (110, 22)
HALF_PIXEL = 5  # in tenths of a pixel
HOVERS = 12  # stretches of a live chart that show their values under the pointer
NEAR = 10  # pixels; closer signs would touch
LABEL_SPACING = 24  # pixels between the labels of two lines
FEW = 24  # up to this many points also get a dot each

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A named line; a gap is a missing point.

    A faint one lies behind the series before it, in the same colour and without a label.
    """

    name: str
    points: Sequence[Point] = field(default=())
    is_faint: bool = False


@dataclass(frozen=True)
class Mark:
    """A place on the x axis where something happened: a short sign, and its explanation."""

    x: float
    sign: str
    label: str


def alt_text(title: str, series: Sequence[Series], *, unit: str = "steps") -> str:
    """Return a chart's alt text, made from its data: "loss: from 3.56 to 0.91 over 400 steps"."""
    ranges = [
        f"{item.name} from {show(item.points[0][1])} to {show(item.points[-1][1])}"
        for item in series
        if item.points
    ]
    if not ranges:
        return f"{title}: no data yet"
    last = max(item.points[-1][0] for item in series if item.points)
    return f"{title}: {'; '.join(ranges)} over {last:g} {unit}"


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
        unit: Of the x axis.
        marks: Places where something happened; those outside the x range are left out.
        is_live: Show values under the pointer, which works only for SVG in the page itself.
    """
    width, height, ink = WIDTH, HEIGHT, LIVE if is_live else STILL
    shown = [item for item in series if item.points]
    head = begin(title, alt_text(title, series, unit=unit), (width, height), is_live=is_live)
    if not shown:
        empty = f'<text x="{LEFT}" y="{height / 2:g}" fill="{ink}">no data yet</text>'
        return f"{head}{empty}</svg>"
    xs, ys = zip(*(point for item in shown for point in item.points), strict=True)
    x_ticks, y_ticks = ticks(min(xs), max(xs), is_whole=True), ticks(min(ys), max(ys))
    frame = Frame(width, height, ink, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    body = axes(frame, x_ticks, y_ticks, unit) + _marks(frame, marks, is_live)
    named = [item for item in shown if not item.is_faint]
    for index, item in enumerate(shown):
        # a faint line takes the colour of the one before it
        colour_index = index - sum(other.is_faint for other in shown[: index + 1])
        body += _line(frame, colour_index, item)
    hovers = _hovers(frame, shown) if is_live else ""
    return head + body + _labels(frame, named) + hovers + "</svg>"


def spark(alt_text: str, points: Sequence[Point]) -> str:
    """Return a word-sized line without axes, for a table cell."""
    width, height = SPARK
    label = html.escape(alt_text)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{label}"><title>{label}</title>'
    )
    if not points:
        return f"{head}</svg>"
    xs, ys = zip(*points, strict=True)
    spans = (max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0)
    pixels = [
        (2 + (x - min(xs)) / spans[0] * (width - 6), 3 + (max(ys) - y) / spans[1] * (height - 6))
        for x, y in points
    ]
    x, y = pixels[-1]
    end = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{COLOURS[0]}"/>'
    return f"{head}{path(pixels, stroke(0), 1.4)}{end}</svg>"


def begin(title: str, alt_text: str, size: tuple[int, int], *, is_live: bool) -> str:
    """Return the beginning of an SVG: its size, alt text, background and title.

    Args:
        size: Width and height in pixels.
    """
    (width, height), ink, label = size, LIVE if is_live else STILL, html.escape(alt_text)
    # a still picture's alt text stands on its <img>
    role = f' role="img" aria-label="{label}" style="max-width:100%;height:auto"' if is_live else ""
    ground = f"<title>{label}</title>"
    if not is_live:
        ground = f'<rect width="{width}" height="{height}" fill="{GROUND}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"{role} font-family="system-ui,sans-serif" font-size="11">{ground}'
        f'<text x="{LEFT}" y="15" fill="{ink}" font-weight="600">{html.escape(title)}</text>'
    )


@dataclass(frozen=True)
class Frame:
    """Maps data to pixels."""

    width: int
    height: int
    ink: str
    x_range: Point
    y_range: Point

    def x(self, value: float) -> float:
        """Return the pixel of an x value, counted from the left."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the pixel of a y value, counted from the top."""
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, *, is_whole: bool = False, n_ticks: int = 4) -> list[float]:
    """Return about `n_ticks` round numbers that span a range.

    Args:
        is_whole: Only whole numbers, for counts and steps.
    """
    span = high - low
    size = max(abs(low), abs(high))
    if span <= 1e-9 * size or span < 1e-300:  # a flat line still needs a frame
        span = size if size > 1e-300 else 1.0
    rough = span / n_ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    if is_whole:
        step = max(1.0, step)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return [index * step for index in range(first, last + 1)]


def axes(frame: Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], unit: str) -> str:
    """Return both axes with their ticks, and the unit of x."""
    left, right, base = LEFT, frame.width - RIGHT, frame.height - BOTTOM
    rows = [
        (f"{frame.y(value):.0f}", label)
        for value, label in zip(y_ticks, _tick_labels(y_ticks), strict=True)
    ]
    lines = "".join(f"M{left} {y}H{right}" for y, _ in rows)
    at_left = "".join(f'<text x="{left - 6}" y="{int(y) + 4}">{label}</text>' for y, label in rows)
    below = "".join(
        f'<text x="{frame.x(value):.0f}" y="{base + 14}">{label}</text>'
        for value, label in zip(x_ticks, _tick_labels(x_ticks), strict=True)
    )
    return (
        f'<path d="{lines}" stroke="{frame.ink}" stroke-opacity="0.25"/>'
        f'<g fill="{frame.ink}" text-anchor="end">{at_left}'
        f'<text x="{right}" y="{base + 27}">{unit}</text></g>'
        f'<g fill="{frame.ink}" text-anchor="middle">{below}</g>'
    )


def _tick_labels(values: Sequence[float]) -> list[str]:
    """Return round numbers as axis labels, with just enough digits to tell them apart."""
    step = values[1] - values[0]
    largest = max(map(abs, values))
    if step >= 1000:
        return [f"{value / 1000:g}k" for value in values]
    if largest < 0.001:
        return ["0" if value == 0 else f"{value:.1e}".replace("e-0", "e-") for value in values]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:,.{digits}f}" if value else "0" for value in values]


def _line(frame: Frame, index: int, series: Series) -> str:
    pixels = [(frame.x(x), frame.y(y)) for x, y in series.points]
    faint = ' stroke-opacity="0.4"' if series.is_faint else ""
    dotted = pixels if len(pixels) <= FEW else []
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{COLOURS[index % len(COLOURS)]}"/>'
        for x, y in dotted
    )
    return path(pixels, stroke(index, times=10) + faint, 1.6) + ("" if series.is_faint else dots)


def path(pixels: Sequence[Point], style: str, width: float) -> str:
    """Return a line through pixels; relative and in tenths of a pixel, so that the text is short.

    Args:
        style: SVG attributes such as stroke and dashes.
    """
    tenths = [(round(10 * x), round(10 * y)) for x, y in pixels]
    parts, at = [f"M{tenths[0][0]} {tenths[0][1]}"], tenths[0]
    rest = [*tenths[1:-1], *tenths[-1:]]
    for number, (x, y) in enumerate(rest):
        # a move of less than half a pixel can't be seen, but the last point must be reached
        is_far = abs(x - at[0]) > HALF_PIXEL or abs(y - at[1]) > HALF_PIXEL
        if is_far or number == len(rest) - 1:
            parts.append(f"{x - at[0]} {y - at[1]}")
            at = (x, y)
    moves = f"l{' '.join(parts[1:])}".replace(" -", "-") if parts[1:] else "h0"
    return (
        f'<path transform="scale(.1)" fill="none" {style} stroke-width="{10 * width:g}" '
        f'd="{parts[0]}{moves}"/>'
    )


def _marks(frame: Frame, marks: Sequence[Mark], is_live: bool) -> str:
    """Return a vertical line with its sign for each mark within the x range."""
    parts, before = [], -math.inf
    for mark in sorted(marks, key=lambda mark: mark.x):
        if frame.x_range[0] <= mark.x <= frame.x_range[1]:
            x = frame.x(mark.x)
            top = TOP + 8 if x - before < NEAR else TOP - 2
            before = x if top < TOP else before
            title = f"<title>{html.escape(mark.label)}</title>" if is_live else ""
            parts.append(
                f'<g fill="{frame.ink}">{title}<path d="M{x:.1f} {TOP}V{frame.height - BOTTOM}" '
                f'stroke="{frame.ink}" stroke-dasharray="1 3"/><text x="{x:.1f}" y="{top}" '
                f'font-size="9" text-anchor="middle">{html.escape(mark.sign)}</text></g>'
            )
    return "".join(parts)


def _hovers(frame: Frame, series: Sequence[Series]) -> str:
    """Return invisible rectangles that show under the pointer the values of the lines there."""
    values_by_x = [dict(item.points) for item in series]
    xs = sorted({x for values in values_by_x for x in values})
    shown = xs[:: max(1, math.ceil(len(xs) / HOVERS))]
    edges = [xs[0], *((x + y) / 2 for x, y in pairwise(shown)), xs[-1]]
    parts = []
    for low, high in pairwise(edges):
        labels = []
        for item, values in zip(series, values_by_x, strict=True):
            inside = [x for x in values if low <= x <= high]
            if inside:
                middle = inside[len(inside) // 2]
                labels.append(f"{item.name} {show(float(values[middle]))} at {middle:g}")
        left, right = round(frame.x(low)), round(frame.x(high))
        parts.append(
            f'<path d="M{left} {TOP}h{max(4, right - left)}v{frame.height - TOP - BOTTOM}'
            f'H{left}z"><title>{html.escape(", ".join(labels))}</title></path>'
        )
    return f'<g fill-opacity="0">{"".join(parts)}</g>'


def stroke(index: int, *, times: int = 1) -> str:
    """Return the colour and dashes of the line with this number.

    Args:
        times: Dash lengths are multiplied by this, for a path that is scaled down.
    """
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    sizes = " ".join(str(times * int(size)) for size in dash.split())
    return f'stroke="{colour}"' + (f' stroke-dasharray="{sizes}"' if dash else "")


def _labels(frame: Frame, series: Sequence[Series]) -> str:
    """Return a label at the end of each line; labels that would overlap are moved apart."""
    ends = sorted((frame.y(item.points[-1][1]), index) for index, item in enumerate(series))
    ys, floor = [], 0.0
    for y, _ in ends:
        ys.append(max(y, floor))
        floor = ys[-1] + LABEL_SPACING
    # labels pushed down past the axis are pushed up again, the lowest one first
    ceiling = float(frame.height - BOTTOM)
    for place in reversed(range(len(ys))):
        ys[place] = min(ys[place], ceiling)
        ceiling = ys[place] - LABEL_SPACING
    parts = []
    for y, (_, index) in zip(ys, ends, strict=True):
        item = series[index]
        x = frame.width - RIGHT + 6
        # text in ink: a line's colour is too faint for text on one of the two backgrounds
        parts.append(
            f'<line x1="{x}" x2="{x + 14}" y1="{y - 4:.1f}" y2="{y - 4:.1f}" '
            f'{stroke(index)} stroke-width="3"/>'
            f'<text x="{x + 18}" y="{y:.1f}" fill="{frame.ink}">'
            f'<tspan font-weight="600">{show(float(item.points[-1][1]))}</tspan>'
            f'<tspan x="{x + 18}" dy="11">{html.escape(item.name)}</tspan></text>'
        )
    return "".join(parts)


def figure(
    title: str, series: Sequence[Series], *, unit: str = "steps", marks: Sequence[Mark] = ()
) -> str:
    """Return a chart for a saved notebook: an image with alt text, and a table of its data."""
    picture = lines(title, series, unit=unit, marks=marks, is_live=False)
    return still(picture, alt_text(title, series, unit=unit), title, _table(series, unit))


def still(picture: str, alt_text: str, title: str, table: str) -> str:
    """Return an SVG as an image with alt text, and a folded table of its data."""
    summary = f"<summary>{html.escape(title)} as a table</summary>"
    return f"{image(picture, alt_text)}<details>{summary}{table}</details>"


def in_pairs(pictures: Sequence[str]) -> str:
    """Return figures in a grid, two in a row."""
    cells = [f'<td style="text-align:left;vertical-align:top">{item}</td>' for item in pictures]
    rows = ["".join(cells[start : start + 2]) for start in range(0, len(cells), 2)]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>" if rows else ""


def image(picture: str, alt_text: str) -> str:
    """Return SVG text as an `<img>`, which shows in untrusted notebooks too."""
    data = base64.b64encode(picture.encode()).decode()
    return (
        f'<img alt="{html.escape(alt_text, quote=True)}" src="data:image/svg+xml;base64,{data}"/>'
    )


def _table(series: Sequence[Series], unit: str, *, max_rows: int = 20) -> str:
    values_by_x = [dict(item.points) for item in series]
    xs = sorted({x for values in values_by_x for x in values})
    xs = xs[:: max(1, math.ceil(len(xs) / max_rows))]
    # only numbers: without a style they are right-aligned anyway, in a third of the bytes
    head = "".join(f"<th>{html.escape(item.name)}</th>" for item in series)
    body = ""
    for x in xs:
        cells = "".join(f"<td>{show(values.get(x))}</td>" for values in values_by_x)
        body += f"<tr><td>{x:g}</td>{cells}</tr>"
    top = f"<thead><tr><th>{unit}</th>{head}</tr></thead>"
    return f"<table>{top}<tbody>{body}</tbody></table>"

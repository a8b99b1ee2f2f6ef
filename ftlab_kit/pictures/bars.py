"""Bars as SVG text: how values are distributed, and shares of a whole."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ftlab_kit.pictures import charts
from ftlab_kit.records import show

ROW_HEIGHT, BAR_WIDTH = 18, 160  # of shares


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each of the equal ranges; `cut` is a value to be marked, if any."""

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

    def alt_text(self) -> str:
        """Return the alt text, made from the data."""
        values = f"{self.title}: {sum(self.counts)} from {show(self.low)} to {show(self.high)}"
        fullest = max(range(len(self.counts)), key=self.counts.__getitem__)
        start = self.low + fullest * self.step
        text = f"{values} {self.unit}, most between {show(start)} and {show(start + self.step)}"
        return text if self.cut is None else f"{text}; cut at {show(self.cut)}"

    def picture(self, *, is_live: bool = True) -> str:
        """Return the histogram as SVG text."""
        ink = charts.LIVE if is_live else charts.STILL
        size = (charts.WIDTH, charts.HEIGHT)
        head = charts.begin(self.title, self.alt_text(), size, is_live=is_live)
        high = max(self.high, self.cut or self.high)
        x_ticks = charts.ticks(self.low, high, is_whole=self.step >= 1)
        y_ticks = charts.ticks(0, max(self.counts), is_whole=True)
        x_range, y_range = ((marks[0], marks[-1]) for marks in (x_ticks, y_ticks))
        frame = charts.Frame(charts.WIDTH, charts.HEIGHT, ink, x_range, y_range)
        body = charts.axes(frame, x_ticks, y_ticks, self.unit)
        body += f'<g fill="{charts.COLOURS[0]}">{self._bars(frame, is_live)}</g>'
        if self.cut is not None:
            x = frame.x(self.cut)
            base = charts.HEIGHT - charts.BOTTOM
            body += (
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{charts.TOP}" y2="{base}" {charts.stroke(1)} '
                f'stroke-width="2"/><text x="{x + 5:.1f}" y="{charts.TOP + 10}" fill="{ink}">'
                f"cut at {show(self.cut)}</text>"
            )
        return f"{head}{body}</svg>"

    def _bars(self, frame: charts.Frame, is_live: bool) -> str:
        """Return the bars; in a live picture each shows its count under the pointer."""
        base, bars = frame.y(0), []
        for index, count in enumerate(self.counts):
            start = self.low + index * self.step
            left, right = frame.x(start), frame.x(start + self.step)
            width = max(1, right - left - 1)
            path = f"M{left:.1f} {frame.y(count):.1f}h{width:.1f}V{base:.1f}H{left:.1f}z"
            bars.append((path, f"<title>{count} from {show(start)}</title>"))
        if is_live:
            return "".join(f'<path d="{path}">{title}</path>' for path, title in bars)
        return f'<path d="{"".join(path for path, _ in bars)}"/>'

    def figure(self) -> str:
        """Return the histogram for a saved notebook: an image with alt text, and a table."""
        rows = "".join(
            f"<tr><td>{show(self.low + index * self.step)}</td><td>{count}</td></tr>"
            for index, count in enumerate(self.counts)
        )
        head = f"<tr><th>{self.unit}, from</th><th>count</th></tr>"
        picture = self.picture(is_live=False)
        return charts.still(picture, self.alt_text(), self.title, f"<table>{head}{rows}</table>")


def histogram(
    title: str, values: Sequence[float], *, unit: str, cut: float | None = None, n_bins: int = 24
) -> Histogram:
    """Count values in about `n_bins` ranges of a round width.

    Args:
        unit: Of the values.
        cut: A value to be marked, such as the length at which rows are cut.
    """
    low, high = min(values), max(values)
    is_whole = all(float(value).is_integer() for value in values)
    marks = charts.ticks(low, high, is_whole=is_whole, n_ticks=n_bins)
    step = marks[1] - marks[0]
    counts = [0] * (len(marks) - 1)
    for value in values:
        counts[min(len(counts) - 1, int((value - marks[0]) / step))] += 1
    return Histogram(title, unit, marks[0], step, counts, cut)


@dataclass(frozen=True)
class Share:
    """A named share from 0 to 1, None where it is not known, and the text beside its bar."""

    name: str
    value: float | None
    text: str


def shares(title: str, parts: Sequence[Share], *, is_live: bool = True) -> str:
    """Return shares as bars with text beside them, as SVG text."""
    ink, height = charts.LIVE if is_live else charts.STILL, 26 + ROW_HEIGHT * len(parts)
    percents = [
        f"{part.name} {show(None) if part.value is None else f'{part.value:.0%}'}" for part in parts
    ]
    size = (2 * charts.WIDTH, height)
    body = charts.begin(title, f"{title}: {', '.join(percents)}", size, is_live=is_live)
    x = charts.LEFT + 50
    for index, part in enumerate(parts):
        y, width = 26 + ROW_HEIGHT * index, BAR_WIDTH * (part.value or 0)
        body += (
            f'<text x="{x}" y="{y + 10}" fill="{ink}" text-anchor="end">{html.escape(part.name)}'
            f'</text><rect x="{x + 8}" y="{y}" width="{BAR_WIDTH}" height="12" fill="none" '
            f'stroke="{ink}" stroke-opacity="0.5"/><rect x="{x + 8}" y="{y}" '
            f'width="{width:.1f}" height="12" fill="{charts.COLOURS[0]}"/>'
            f'<text x="{x + 16 + BAR_WIDTH}" y="{y + 10}" fill="{ink}">'
            f"{html.escape(part.text)}</text>"
        )
    return f"{body}</svg>"

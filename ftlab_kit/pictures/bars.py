"""Bars as SVG text: how values are spread, and shares of a whole."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ftlab_kit.pictures import charts
from ftlab_kit.records import show


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

    def message(self) -> str:
        """Return what the picture says, made from its data."""
        said = f"{self.title}: {sum(self.counts)} from {show(self.low)} to {show(self.high)}"
        most = max(range(len(self.counts)), key=self.counts.__getitem__)
        start = self.low + most * self.step
        said += f" {self.unit}, most between {show(start)} and {show(start + self.step)}"
        return said if self.cut is None else f"{said}; cut at {show(self.cut)}"

    def picture(self, *, is_live: bool = True) -> str:
        """Return it as SVG text."""
        ink = charts.LIVE if is_live else charts.STILL
        head = charts.begin(
            self.title, self.message(), (charts.WIDTH, charts.HEIGHT), is_live=is_live
        )
        high = max(self.high, self.cut or self.high)
        x_ticks = charts.ticks(self.low, high, whole=self.step >= 1)
        y_ticks = charts.ticks(0, max(self.counts), whole=True)
        ends = [(found[0], found[-1]) for found in (x_ticks, y_ticks)]
        frame = charts.Frame(charts.WIDTH, charts.HEIGHT, ink, ends[0], ends[1])
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
        """Return the bars, each with its count where there is a pointer to ask for it."""
        base, drawn = frame.y(0), []
        for index, count in enumerate(self.counts):
            start = self.low + index * self.step
            left, right = frame.x(start), frame.x(start + self.step)
            width = max(1, right - left - 1)
            bar = f"M{left:.1f} {frame.y(count):.1f}h{width:.1f}V{base:.1f}H{left:.1f}z"
            drawn.append((bar, f"<title>{count} from {show(start)}</title>"))
        if is_live:
            return "".join(f'<path d="{bar}">{words}</path>' for bar, words in drawn)
        return f'<path d="{"".join(bar for bar, _ in drawn)}"/>'

    def figure(self) -> str:
        """Return it as it stays in a saved notebook."""
        rows = "".join(
            f"<tr><td>{show(self.low + index * self.step)}</td><td>{count}</td></tr>"
            for index, count in enumerate(self.counts)
        )
        top = f"<tr><th>{self.unit}, from</th><th>count</th></tr>"
        picture = self.picture(is_live=False)
        return charts.still(picture, self.message(), self.title, f"<table>{top}{rows}</table>")


def histogram(
    title: str, values: Sequence[float], *, unit: str, cut: float | None = None, wanted: int = 24
) -> Histogram:
    """Count values in about so many ranges of a round width."""
    low, high = min(values), max(values)
    whole = all(float(value).is_integer() for value in values)
    marks = charts.ticks(low, high, whole=whole, wanted=wanted)
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
    ink, height = charts.LIVE if is_live else charts.STILL, 26 + 18 * len(parts)
    said = [
        f"{name} {show(share) if share is None else f'{share:.0%}'}" for name, share, _ in parts
    ]
    body = charts.begin(
        title, f"{title}: {', '.join(said)}", (2 * charts.WIDTH, height), is_live=is_live
    )
    x = charts.LEFT + 50
    for index, (name, share, words) in enumerate(parts):
        y = 26 + 18 * index
        body += (
            f'<text x="{x}" y="{y + 10}" fill="{ink}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{x + 8}" y="{y}" width="160" height="12" fill="none" stroke="{ink}" '
            f'stroke-opacity="0.5"/><rect x="{x + 8}" y="{y}" width="{160 * (share or 0):.1f}" '
            f'height="12" fill="{charts.COLOURS[0]}"/>'
            f'<text x="{x + 176}" y="{y + 10}" fill="{ink}">{html.escape(words)}</text>'
        )
    return f"{body}</svg>"

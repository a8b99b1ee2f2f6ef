"""The differences of a verdict as SVG text: an interval each, around a line for no difference."""

import html
from collections.abc import Sequence

from ftlab_kit.pictures import charts
from ftlab_kit.records import Difference, show

ROW_HEIGHT, MIDDLE, SIDE = 34, 330, 130  # SIDE: pixels from the middle to the end of an interval
MAX_LETTERS = 26  # of a target's name


def intervals(differences: Sequence[Difference], alt_text: str) -> str:
    """Return differences as SVG text; those without an interval are left out.

    Each has a scale of its own, because measures have different units.
    """
    drawn = [item for item in differences if item.low is not None]
    width, height = 2 * charts.WIDTH, 30 + ROW_HEIGHT * len(drawn) + 14
    title, ink = "differences, each on its own scale", charts.STILL
    head = charts.begin(title, alt_text, (width, height), is_live=False)
    zero = (
        f'<line x1="{MIDDLE}" x2="{MIDDLE}" y1="26" y2="{height - 16}" stroke="{ink}" '
        f'stroke-dasharray="2 2"/><text x="{MIDDLE}" y="{height - 4}" fill="{ink}" '
        'text-anchor="middle">no difference</text>'
    )
    rows = [_row(42 + ROW_HEIGHT * index, item) for index, item in enumerate(drawn)]
    return head + zero + "".join(rows) + "</svg>"


def _row(y: int, item: Difference) -> str:
    """Return the interval of a difference, with its measure, verdict and numbers."""
    if item.low is None or item.high is None or item.difference is None:
        return ""
    scale = SIDE / (max(abs(item.low), abs(item.high), abs(item.difference)) or 1.0)
    left, right, middle = (MIDDLE + scale * x for x in (item.low, item.high, item.difference))
    ink = charts.STILL
    colour = {"better": charts.COLOURS[2], "worse": charts.COLOURS[1]}.get(item.verdict, ink)
    numbers = f"{show(item.was)} → {show(item.now)}, {show(item.low)} to {show(item.high)}"
    return (
        f'<text x="{charts.LEFT + 130}" y="{y}" fill="{ink}" text-anchor="end" font-weight="600">'
        f'{html.escape(item.measure)}</text><text x="{charts.LEFT + 130}" y="{y + 12}" '
        f'fill="{ink}" text-anchor="end">{html.escape(item.after[:MAX_LETTERS])}</text>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
        f'stroke-width="3"/><circle cx="{middle:.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
        f'<text x="{MIDDLE + SIDE + 16}" y="{y}" fill="{ink}" font-weight="600">'
        f'{html.escape(item.verdict)}</text><text x="{MIDDLE + SIDE + 16}" y="{y + 12}" '
        f'fill="{ink}">{html.escape(numbers)}</text>'
    )

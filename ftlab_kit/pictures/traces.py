"""A series in bounded memory, however long it grows, and the line through its noise."""

from collections.abc import Sequence
from dataclasses import dataclass

from ftlab_kit.records import Curve

STRETCHES = 128  # a chart is some 270 pixels wide: more could not be told apart

Point = tuple[float, float]


@dataclass(slots=True)
class _Part:
    """What some neighbouring steps say: their lowest and highest point, and their mean."""

    n: int
    low: Point
    high: Point
    total: float

    def take(self, other: "_Part") -> None:
        self.n += other.n
        self.total += other.total
        self.low = min(self.low, other.low, key=_y)
        self.high = max(self.high, other.high, key=_y)


class Trace:
    """A series as at most 128 stretches of equal width, which doubles where there would be more.

    No spike is lost, and a million points draw as fast as two hundred. It begins with what the
    store has thinned already, or with nothing.
    """

    def __init__(self, curve: Curve | None = None) -> None:
        """Begin with a curve, if there is one."""
        self._width = curve.width_steps if curve else 1
        self._parts: dict[int, _Part] = {}
        self.first: Point | None = None
        self.last: Point | None = None
        if curve and curve.start is not None and curve.end is not None:
            for item in curve.stretches:
                # which of the two came first is not known: they stand between the ends
                third = (item.last - item.first) / 3
                low, high = (item.first + third, item.low), (item.last - third, item.high)
                self._put(item.first, _Part(item.n, low, high, item.n * item.mean))
            self.first = (float(curve.stretches[0].first), curve.start)
            self.last = (float(curve.stretches[-1].last), curve.end)

    def add(self, x: float, y: float) -> None:
        """Append a point; x must not fall."""
        self.last = (x, y)
        self.first = self.first or self.last
        self._put(x, _Part(1, self.last, self.last, y))

    def _put(self, x: float, part: _Part) -> None:
        _gather(self._parts, int(x // self._width), part)
        while len(self._parts) > STRETCHES:
            parts, self._parts = self._parts, {}
            self._width *= 2
            for place, item in parts.items():
                _gather(self._parts, place // 2, item)

    def points(self) -> list[Point]:
        """Return at most two points a stretch, with the very first and last."""
        if self.first is None or self.last is None:
            return []
        found = {self.first, self.last}
        for part in self._parts.values():
            found |= {part.low, part.high}
        return sorted(found)

    def smooth(self, share: float) -> list[Point]:
        """Return the moving average of the stretches' means, a point for each.

        Args:
            share: What each point keeps of the ones before it, from 0 to below 1; exponential, and
                without the pull towards 0 at its beginning (Kingma and Ba 2014, section 3).
        """
        found, sum_, weight = [], 0.0, 0.0
        for place in sorted(self._parts):
            part = self._parts[place]
            sum_ = share * sum_ + (1 - share) * part.total / part.n
            weight = share * weight + (1 - share)
            found.append(((part.low[0] + part.high[0]) / 2, sum_ / weight))
        return found


def _gather(parts: dict[int, _Part], place: int, part: _Part) -> None:
    if place in parts:
        parts[place].take(part)
    else:
        parts[place] = part


def _y(point: Point) -> float:
    return point[1]


def of(points: Sequence[Point]) -> Trace:
    """Return the trace of points in the order of their x."""
    made = Trace()
    for x, y in points:
        made.add(x, y)
    return made

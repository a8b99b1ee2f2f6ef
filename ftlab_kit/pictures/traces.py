"""A series in bounded memory, however long it grows, and a smoothed line through it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ftlab_kit.records import Curve

MAX_BUCKETS = 128  # a chart is some 270 pixels wide: more could not be told apart

Point = tuple[float, float]


@dataclass(slots=True)
class _Bucket:
    """Neighbouring steps: their number, lowest and highest point, and the sum of their values."""

    n: int
    low: Point
    high: Point
    total: float

    def merge(self, other: "_Bucket") -> None:
        self.n += other.n
        self.total += other.total
        self.low = min(self.low, other.low, key=_y)
        self.high = max(self.high, other.high, key=_y)


class Trace:
    """A series as at most 128 buckets of equal width, which doubles when there would be more.

    No spike is lost, and a million points draw as fast as two hundred. A trace starts empty, or
    with a curve that the store has downsampled.
    """

    def __init__(self, curve: Curve | None = None) -> None:
        """Start with a curve, if there is one."""
        self._width = curve.width_steps if curve else 1
        self._buckets: dict[int, _Bucket] = {}
        self.first: Point | None = None
        self.last: Point | None = None
        if curve and curve.start is not None and curve.end is not None:
            for item in curve.buckets:
                # which of the two came first is not known: they are drawn between the ends
                third = (item.last - item.first) / 3
                low, high = (item.first + third, item.low), (item.last - third, item.high)
                self._put(item.first, _Bucket(item.n, low, high, item.n * item.mean))
            self.first = (float(curve.buckets[0].first), curve.start)
            self.last = (float(curve.buckets[-1].last), curve.end)

    def add(self, x: float, y: float) -> None:
        """Append a point; x must not fall."""
        self.last = (x, y)
        self.first = self.first or self.last
        self._put(x, _Bucket(1, self.last, self.last, y))

    def _put(self, x: float, bucket: _Bucket) -> None:
        _merge_at(self._buckets, int(x // self._width), bucket)
        while len(self._buckets) > MAX_BUCKETS:
            narrow, self._buckets = self._buckets, {}
            self._width *= 2
            for index, item in narrow.items():
                _merge_at(self._buckets, index // 2, item)

    def points(self) -> list[Point]:
        """Return the first and the last point, and the lowest and highest of each bucket."""
        if self.first is None or self.last is None:
            return []
        points = {self.first, self.last}
        for bucket in self._buckets.values():
            points |= {bucket.low, bucket.high}
        return sorted(points)

    def smooth(self, weight: float) -> list[Point]:
        """Return the exponential moving average of the buckets' means, a point for each.

        Args:
            weight: Of the points before, from 0 to below 1. The start is corrected for its bias
                towards 0 (Kingma and Ba 2014, section 3).
        """
        points, total, total_weight = [], 0.0, 0.0
        for index in sorted(self._buckets):
            bucket = self._buckets[index]
            total = weight * total + (1 - weight) * bucket.total / bucket.n
            total_weight = weight * total_weight + (1 - weight)
            points.append(((bucket.low[0] + bucket.high[0]) / 2, total / total_weight))
        return points


def _merge_at(buckets: dict[int, _Bucket], index: int, bucket: _Bucket) -> None:
    if index in buckets:
        buckets[index].merge(bucket)
    else:
        buckets[index] = bucket


def _y(point: Point) -> float:
    return point[1]


def of(points: Sequence[Point]) -> Trace:
    """Return the trace of points in the order of their x."""
    trace = Trace()
    for x, y in points:
        trace.add(x, y)
    return trace

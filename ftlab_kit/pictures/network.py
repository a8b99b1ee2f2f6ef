"""A part of a graph as SVG text: a pure function from entities and facts to a picture.

Each type of entity has a shape as well as a colour, a fact that has ended is dashed. Where nodes
stand is reckoned by `springs`; what the explorer lets a person drag is drawn by the same signs.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftlab_kit.pictures import charts
from ftlab_kit.pictures.layout import Point, settled
from ftlab_kit.pictures.links import Link, alt, counts, links, table, types
from ftlab_kit.records import Entity, Neighbourhood

WIDTH, TOP, MARGIN = 2 * charts.WIDTH, 48, 70
LOWEST, HIGHEST = 220, 560  # of a picture
FEW = 12  # links that say their relation without being asked
LETTER, LINE = 6.1, 14  # of a name
LONGEST = 24  # letters of a name
SHAPES = (0, 4, 3, 6, 5)  # corners; 0 is a circle
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))  # of a sign, where its name may stand

Box = tuple[float, float, float, float]


@dataclass
class Room:
    """What of a picture is taken, by signs and words."""

    height: int
    boxes: list[Box]

    def covered(self, box: Box) -> float:
        """Return the area of a box that is taken."""
        return sum(_shared(box, other) for other in self.boxes)

    def holds(self, box: Box) -> bool:
        """Return whether a box is within the picture, below its legend."""
        left, top, right, low = box
        return left > 2 and right < WIDTH - 2 and top > TOP - LINE and low < self.height


def colour(index: int) -> str:
    """Return the colour of a type by its number."""
    return charts.COLOURS[index % len(charts.COLOURS)]


def shape(index: int, radius: float) -> str:
    """Return the outline of a type's sign around 0, 0, by its number, as a path."""
    # with more types than colours a colour comes again with another shape
    corners = SHAPES[(index + index // len(charts.COLOURS)) % len(SHAPES)]
    if not corners:
        return f"M-{radius:g} 0a{radius:g} {radius:g} 0 1 0 {2 * radius:g} 0a{radius:g} " + (
            f"{radius:g} 0 1 0-{2 * radius:g} 0z"
        )
    wide = radius * {3: 1.35, 4: 1.2}.get(corners, 1.1)
    turn = math.pi / 4 if corners == 4 else -math.pi / 2
    angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
    points = [f"{wide * math.cos(one):.1f} {wide * math.sin(one):.1f}" for one in angles]
    return f"M{'L'.join(points)}z"


def radius(n_facts: int) -> float:
    """Return the size of an entity's sign, in pixels."""
    return min(15.0, 5.5 + 1.8 * math.sqrt(n_facts))


def shortened(name: str) -> str:
    """Return a name of at most so many letters."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def places(found: Neighbourhood, *, before: Mapping[str, Point] | None = None) -> dict[str, Point]:
    """Return where entities stand, by their ids, a link about 1 long.

    Args:
        before: Entities that stay where they are.
    """
    between = [(link.source, link.target) for link in links(found)]
    return settled([entity.id for entity in found.entities], between, before=before or {})


def figure(found: Neighbourhood) -> str:
    """Return the picture as it stays in a saved notebook, with its words and its data."""
    return charts.still(picture(found, is_live=False), alt(found), "the graph", table(found))


def picture(found: Neighbourhood, *, is_live: bool = True) -> str:
    """Return a part of a graph as SVG text.

    Args:
        is_live: Names and facts are said under the pointer, which a picture in a page can't.
    """
    spots, height = _fitted(places(found))
    kinds = {name: index for index, name in enumerate(types(found.entities))}
    ink = charts.LIVE if is_live else charts.STILL
    body = charts.begin("", alt(found), (WIDTH, height), is_live=is_live) + _legend(kinds, ink)
    between = links(found)
    sizes = {name: radius(number) for name, number in counts(found).items()}
    body += "".join(_line(link, spots, sizes, ink, is_live) for link in between)
    body += "".join(
        _sign(one, kinds[one.type], spots[one.id], sizes[one.id], is_live) for one in found.entities
    )
    room = Room(height, [_around(spots[key], size) for key, size in sizes.items()])
    body += f'<g fill="{ink}" {_halo(is_live)}>{_names(found, spots, sizes, room)}'
    if len(between) <= FEW:
        body += "".join(_relation(link, spots, room) for link in between)
    return f"{body}</g></svg>"


def _fitted(spots: Mapping[str, Point]) -> tuple[dict[str, Point], int]:
    """Return places in pixels of a picture, and its height."""
    if not spots:
        return {}, LOWEST
    xs, ys = zip(*spots.values(), strict=True)
    wide, high = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    room = HIGHEST - TOP - MARGIN
    scale = min((WIDTH - 2.4 * MARGIN) / wide, room / high, 150.0)
    height = max(LOWEST, round(scale * high) + TOP + MARGIN)
    middle = (TOP + height - MARGIN / 2) / 2
    return {
        key: (
            WIDTH / 2 + scale * (x - (min(xs) + max(xs)) / 2),
            middle + scale * (y - (min(ys) + max(ys)) / 2),
        )
        for key, (x, y) in spots.items()
    }, height


def _halo(is_live: bool) -> str:
    """Return the looks of words that lie over lines."""
    ground = "var(--jp-layout-color0,Canvas)" if is_live else charts.GROUND
    return f'style="stroke:{ground}" stroke-width="3" stroke-linejoin="round" paint-order="stroke"'


def _legend(kinds: Mapping[str, int], ink: str) -> str:
    x, parts = 16.0, []
    for name, index in kinds.items():
        if x > WIDTH - 120:
            parts.append(f'<text x="{x:.0f}" y="24">and {len(kinds) - index} more types</text>')
            break
        parts.append(
            f'<path transform="translate({x:.0f},20)" d="{shape(index, 5)}" '
            f'fill="{colour(index)}"/><text x="{x + 11:.0f}" y="24">{_escaped(name)}</text>'
        )
        x += 30 + LETTER * min(len(name), LONGEST)
    return f'<g fill="{ink}">{"".join(parts)}</g>'


def _escaped(text: str) -> str:
    """Return a name for SVG, which knows no control characters, shortened where it is long."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return html.escape(shortened(plain))


def _title(words: str, is_live: bool) -> str:
    plain = "".join(letter for letter in words if letter.isprintable() or letter == "\n")
    return f"<title>{html.escape(plain)}</title>" if is_live else ""


def _line(
    link: Link, spots: Mapping[str, Point], sizes: Mapping[str, float], ink: str, is_live: bool
) -> str:
    """Return a link as a thin line between the rims of two signs, with heads where it points."""
    (x, y), (x2, y2) = spots[link.source], spots[link.target]
    long = math.hypot(x2 - x, y2 - y) or 1.0
    ux, uy = (x2 - x) / long, (y2 - y) / long
    start, end = sizes[link.source] + 3, sizes[link.target] + 3
    a, b = (x + start * ux, y + start * uy), (x2 - end * ux, y2 - end * uy)
    heads = [_head(b, ux, uy)] if link.is_forth else []
    heads += [_head(a, -ux, -uy)] if link.is_back else []
    dash = ' stroke-dasharray="4 3"' if link.is_ended else ""
    return (
        f'<g stroke="{ink}" stroke-opacity="0.55">{_title(link.message, is_live)}'
        f'<path d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}"{dash}/>'
        f'<path fill="none" d="{"".join(heads)}"/></g>'
    )


def _head(tip: Point, ux: float, uy: float) -> str:
    """Return a head at a place, that points along a direction."""
    (x, y), back, side = tip, 6.0, 3.0
    wings = [
        (x - back * ux + sign * side * uy, y - back * uy - sign * side * ux) for sign in (1, -1)
    ]
    (x1, y1), (x2, y2) = wings
    return f"M{x1:.1f} {y1:.1f}L{x:.1f} {y:.1f}L{x2:.1f} {y2:.1f}"


def _sign(entity: Entity, kind: int, spot: Point, size: float, is_live: bool) -> str:
    return (
        f'<g transform="translate({spot[0]:.1f},{spot[1]:.1f})">'
        f"{_title(f'{entity.name}, {entity.type}', is_live)}"
        f'<path d="{shape(kind, size)}" fill="{colour(kind)}"/></g>'
    )


def _around(spot: Point, size: float) -> Box:
    return spot[0] - size, spot[1] - size, spot[0] + size, spot[1] + size


def _names(
    found: Neighbourhood, spots: Mapping[str, Point], sizes: Mapping[str, float], room: Room
) -> str:
    """Return the names, each on the side where it covers least; where there is no room, none."""
    beside: dict[str, list[Point]] = {key: [] for key in spots}
    for link in links(found):
        beside[link.source].append(spots[link.target])
        beside[link.target].append(spots[link.source])
    parts = []
    for one in sorted(found.entities, key=lambda one: -sizes[one.id]):
        wide = LETTER * min(len(one.name), LONGEST)
        chosen = _side(spots[one.id], sizes[one.id] + 4, wide, beside[one.id], room)
        if chosen:
            (ux, _), box = chosen
            room.boxes.append(box)
            x = spots[one.id][0] + ux * (sizes[one.id] + 4)
            anchor = ("middle", "start", "end")[ux]
            parts.append(
                f'<text x="{x:.1f}" y="{box[3] - 4:.1f}" text-anchor="{anchor}">'
                f"{_escaped(one.name)}</text>"
            )
    return "".join(parts)


def _side(
    spot: Point, gap: float, wide: float, beside: Sequence[Point], room: Room
) -> tuple[tuple[int, int], Box] | None:
    """Return the side of a sign where a name covers least, with the name's box; None for none."""
    (x, y), tried = spot, []
    angles = [math.atan2(b - y, a - x) for a, b in beside]
    for ux, uy in SIDES:
        left = x + ux * gap - wide * (1 - ux) / 2
        top = y + uy * (gap + LINE / 2 - 2) - LINE / 2
        box = (left, top, left + wide, top + LINE)
        # a line that leaves on this side would run through the name
        crossed = sum(math.cos(angle - math.atan2(uy, ux)) > 0.75 for angle in angles)
        if room.holds(box):
            tried.append((room.covered(box) + 80 * crossed, (ux, uy), box))
    if not tried:
        return None
    _, side, box = min(tried, key=lambda item: item[0])
    return (side, box) if room.covered(box) < 0.2 * wide * LINE else None


def _shared(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    return max(0.0, wide) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))


def _relation(link: Link, spots: Mapping[str, Point], room: Room) -> str:
    """Return a relation's name in the middle of its link, where there is room for it."""
    (x, y), (x2, y2) = spots[link.source], spots[link.target]
    middle, wide = ((x + x2) / 2, (y + y2) / 2), 5.0 * len(link.label)
    box = (middle[0] - wide / 2, middle[1] - 6, middle[0] + wide / 2, middle[1] + 6)
    if room.covered(box) > 0.2 * 12 * wide:
        return ""
    room.boxes.append(box)
    return (
        f'<text x="{middle[0]:.1f}" y="{middle[1] + 3:.1f}" font-size="9" '
        f'text-anchor="middle">{_escaped(link.label)}</text>'
    )

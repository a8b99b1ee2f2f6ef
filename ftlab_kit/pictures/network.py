"""A part of a graph as SVG text: a pure function from entities and facts to a picture.

Each type of entity has a shape as well as a colour; a fact that has ended is dashed. `layout` says
where nodes are drawn. The explorer, where a person drags them, uses the same shapes and colours.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftlab_kit.pictures import charts
from ftlab_kit.pictures.layout import Point, spring_layout
from ftlab_kit.pictures.links import Link, alt_text, fact_counts, links, table, types
from ftlab_kit.records import Entity, Neighbourhood

WIDTH, TOP, MARGIN = 2 * charts.WIDTH, 48, 70
MIN_HEIGHT, MAX_HEIGHT = 220, 560
FEW = 12  # up to this many links are drawn with their relation
LETTER_WIDTH, LINE_HEIGHT = 6.1, 14  # of a name
MAX_LETTERS = 24  # of a name
CORNERS = (0, 4, 3, 6, 5)  # of the shapes; 0 is a circle
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))  # of a node, where its name may stand

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass
class Canvas:
    """The picture's height, and the boxes that nodes and names already cover."""

    height: int
    boxes: list[Box]

    def covered(self, box: Box) -> float:
        """Return how much of a box's area is covered already."""
        return sum(_overlap(box, other) for other in self.boxes)

    def contains(self, box: Box) -> bool:
        """Return whether a box lies within the picture, below its legend."""
        left, top, right, bottom = box
        is_wide_enough = left > 2 and right < WIDTH - 2
        return is_wide_enough and top > TOP - LINE_HEIGHT and bottom < self.height


def colour(index: int) -> str:
    """Return the colour of the type with this number."""
    return charts.COLOURS[index % len(charts.COLOURS)]


def shape(index: int, radius: float) -> str:
    """Return the outline of the shape of the type with this number, around 0, 0, as a path."""
    # when there are more types than colours, a colour comes again with another shape
    n_corners = CORNERS[(index + index // len(charts.COLOURS)) % len(CORNERS)]
    if not n_corners:
        return f"M-{radius:g} 0a{radius:g} {radius:g} 0 1 0 {2 * radius:g} 0a{radius:g} " + (
            f"{radius:g} 0 1 0-{2 * radius:g} 0z"
        )
    size = radius * {3: 1.35, 4: 1.2}.get(n_corners, 1.1)  # about the area of the circle
    turn = math.pi / 4 if n_corners == 4 else -math.pi / 2
    angles = [turn + 2 * math.pi * corner / n_corners for corner in range(n_corners)]
    points = [f"{size * math.cos(angle):.1f} {size * math.sin(angle):.1f}" for angle in angles]
    return f"M{'L'.join(points)}z"


def radius(n_facts: int) -> float:
    """Return the size of an entity's shape, in pixels."""
    return min(15.0, 5.5 + 1.8 * math.sqrt(n_facts))


def shortened(name: str) -> str:
    """Return a name, cut where it is longer than `MAX_LETTERS`."""
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"


def positions(
    graph: Neighbourhood, *, fixed: Mapping[str, Point] | None = None
) -> dict[str, Point]:
    """Return where entities are drawn, by their ids; a link is about 1 long.

    Args:
        fixed: Positions of entities that do not move.
    """
    pairs = [(link.source, link.target) for link in links(graph)]
    return spring_layout([entity.id for entity in graph.entities], pairs, fixed=fixed or {})


def figure(graph: Neighbourhood) -> str:
    """Return the picture for a saved notebook: an image with alt text, and tables of its data."""
    return charts.still(picture(graph, is_live=False), alt_text(graph), "the graph", table(graph))


def picture(graph: Neighbourhood, *, is_live: bool = True) -> str:
    """Return a part of a graph as SVG text.

    Args:
        is_live: Show names and facts under the pointer, which works only for SVG in the page.
    """
    pixels, height = _to_pixels(positions(graph))
    type_indices = {name: index for index, name in enumerate(types(graph.entities))}
    ink = charts.LIVE if is_live else charts.STILL
    body = charts.begin("", alt_text(graph), (WIDTH, height), is_live=is_live)
    body += _legend(type_indices, ink)
    graph_links = links(graph)
    sizes = {key: radius(count) for key, count in fact_counts(graph).items()}
    body += "".join(_line(link, pixels, sizes, ink, is_live) for link in graph_links)
    body += "".join(
        _node(one, type_indices[one.type], pixels[one.id], sizes[one.id], is_live)
        for one in graph.entities
    )
    canvas = Canvas(height, [_box_around(pixels[key], size) for key, size in sizes.items()])
    body += f'<g fill="{ink}" {_halo(is_live)}>{_names(graph, pixels, sizes, canvas)}'
    if len(graph_links) <= FEW:
        body += "".join(_relation(link, pixels, canvas) for link in graph_links)
    return f"{body}</g></svg>"


def _to_pixels(points: Mapping[str, Point]) -> tuple[dict[str, Point], int]:
    """Return positions in pixels, and the height of a picture that holds them all."""
    if not points:
        return {}, MIN_HEIGHT
    xs, ys = zip(*points.values(), strict=True)
    x_span, y_span = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    max_y_pixels = MAX_HEIGHT - TOP - MARGIN
    scale = min((WIDTH - 2.4 * MARGIN) / x_span, max_y_pixels / y_span, 150.0)
    height = max(MIN_HEIGHT, round(scale * y_span) + TOP + MARGIN)
    middle = (TOP + height - MARGIN / 2) / 2
    return {
        key: (
            WIDTH / 2 + scale * (x - (min(xs) + max(xs)) / 2),
            middle + scale * (y - (min(ys) + max(ys)) / 2),
        )
        for key, (x, y) in points.items()
    }, height


def _halo(is_live: bool) -> str:
    """Return the style of text that lies over lines: outlined in the background's colour."""
    ground = "var(--jp-layout-color0,Canvas)" if is_live else charts.GROUND
    return f'style="stroke:{ground}" stroke-width="3" stroke-linejoin="round" paint-order="stroke"'


def _legend(type_indices: Mapping[str, int], ink: str) -> str:
    x, parts = 16.0, []
    for name, index in type_indices.items():
        if x > WIDTH - 120:
            more = f"and {len(type_indices) - index} more types"
            parts.append(f'<text x="{x:.0f}" y="24">{more}</text>')
            break
        parts.append(
            f'<path transform="translate({x:.0f},20)" d="{shape(index, 5)}" '
            f'fill="{colour(index)}"/><text x="{x + 11:.0f}" y="24">{_escaped(name)}</text>'
        )
        x += 30 + LETTER_WIDTH * min(len(name), MAX_LETTERS)
    return f'<g fill="{ink}">{"".join(parts)}</g>'


def _escaped(text: str) -> str:
    """Return a name for SVG, which allows no control characters, cut where it is long."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return html.escape(shortened(plain))


def _title(text: str, is_live: bool) -> str:
    plain = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    return f"<title>{html.escape(plain)}</title>" if is_live else ""


def _line(
    link: Link, pixels: Mapping[str, Point], sizes: Mapping[str, float], ink: str, is_live: bool
) -> str:
    """Return a link as a thin line between the rims of two nodes, with heads where it points."""
    (x, y), (x2, y2) = pixels[link.source], pixels[link.target]
    length = math.hypot(x2 - x, y2 - y) or 1.0
    ux, uy = (x2 - x) / length, (y2 - y) / length
    start, end = sizes[link.source] + 3, sizes[link.target] + 3
    a, b = (x + start * ux, y + start * uy), (x2 - end * ux, y2 - end * uy)
    heads = [_arrowhead(b, ux, uy)] if link.is_forth else []
    heads += [_arrowhead(a, -ux, -uy)] if link.is_back else []
    dash = ' stroke-dasharray="4 3"' if link.is_ended else ""
    return (
        f'<g stroke="{ink}" stroke-opacity="0.55">{_title(link.text, is_live)}'
        f'<path d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}"{dash}/>'
        f'<path fill="none" d="{"".join(heads)}"/></g>'
    )


def _arrowhead(tip: Point, ux: float, uy: float) -> str:
    """Return an arrowhead at a point, in the direction (ux, uy)."""
    (x, y), back, side = tip, 6.0, 3.0
    wings = [
        (x - back * ux + sign * side * uy, y - back * uy - sign * side * ux) for sign in (1, -1)
    ]
    (x1, y1), (x2, y2) = wings
    return f"M{x1:.1f} {y1:.1f}L{x:.1f} {y:.1f}L{x2:.1f} {y2:.1f}"


def _node(entity: Entity, type_index: int, pixel: Point, size: float, is_live: bool) -> str:
    return (
        f'<g transform="translate({pixel[0]:.1f},{pixel[1]:.1f})">'
        f"{_title(f'{entity.name}, {entity.type}', is_live)}"
        f'<path d="{shape(type_index, size)}" fill="{colour(type_index)}"/></g>'
    )


def _box_around(pixel: Point, size: float) -> Box:
    return pixel[0] - size, pixel[1] - size, pixel[0] + size, pixel[1] + size


def _names(
    graph: Neighbourhood, pixels: Mapping[str, Point], sizes: Mapping[str, float], canvas: Canvas
) -> str:
    """Return names, each on the side where it covers least, or left out where there is no room."""
    neighbours: dict[str, list[Point]] = {key: [] for key in pixels}
    for link in links(graph):
        neighbours[link.source].append(pixels[link.target])
        neighbours[link.target].append(pixels[link.source])
    parts = []
    for one in sorted(graph.entities, key=lambda one: -sizes[one.id]):
        width = LETTER_WIDTH * min(len(one.name), MAX_LETTERS)
        place = _best_side(pixels[one.id], sizes[one.id] + 4, width, neighbours[one.id], canvas)
        if place:
            (ux, _), box = place
            canvas.boxes.append(box)
            x = pixels[one.id][0] + ux * (sizes[one.id] + 4)
            anchor = ("middle", "start", "end")[ux]
            parts.append(
                f'<text x="{x:.1f}" y="{box[3] - 4:.1f}" text-anchor="{anchor}">'
                f"{_escaped(one.name)}</text>"
            )
    return "".join(parts)


def _best_side(
    pixel: Point, gap: float, width: float, neighbours: Sequence[Point], canvas: Canvas
) -> tuple[tuple[int, int], Box] | None:
    """Return the side of a node where its name covers least, and the name's box; None for no room.

    Args:
        gap: Pixels between the node's centre and its name.
        width: Of the name, in pixels.
    """
    (x, y), candidates = pixel, []
    angles = [math.atan2(b - y, a - x) for a, b in neighbours]
    for ux, uy in SIDES:
        left = x + ux * gap - width * (1 - ux) / 2
        top = y + uy * (gap + LINE_HEIGHT / 2 - 2) - LINE_HEIGHT / 2
        box = (left, top, left + width, top + LINE_HEIGHT)
        # a link that leaves on this side would run through the name
        n_crossed = sum(math.cos(angle - math.atan2(uy, ux)) > 0.75 for angle in angles)
        if canvas.contains(box):
            candidates.append((canvas.covered(box) + 80 * n_crossed, (ux, uy), box))
    if not candidates:
        return None
    _, side, box = min(candidates, key=lambda candidate: candidate[0])
    return (side, box) if canvas.covered(box) < 0.2 * width * LINE_HEIGHT else None


def _overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    return max(0.0, width) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))


def _relation(link: Link, pixels: Mapping[str, Point], canvas: Canvas) -> str:
    """Return a relation's name in the middle of its link, where there is room for it."""
    (x, y), (x2, y2) = pixels[link.source], pixels[link.target]
    middle, width = ((x + x2) / 2, (y + y2) / 2), 5.0 * len(link.label)
    box = (middle[0] - width / 2, middle[1] - 6, middle[0] + width / 2, middle[1] + 6)
    if canvas.covered(box) > 0.2 * 12 * width:
        return ""
    canvas.boxes.append(box)
    return (
        f'<text x="{middle[0]:.1f}" y="{middle[1] + 3:.1f}" font-size="9" '
        f'text-anchor="middle">{_escaped(link.label)}</text>'
    )

"""A row's tokens as SVG text, coloured by role: trained, context, end, cut.

Monospaced; each role is told apart by a line or a frame as well as by its colour.
"""

import html
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ftlab_kit.pictures import charts
from ftlab_kit.records import LINES, Mask, Token

COLUMNS, LETTER_WIDTH, LINE_HEIGHT = 112, 7.2, 19
MARGIN, HEAD = 10, 46
MAX_TOKENS = 1500  # of a picture


@dataclass(frozen=True)
class Style:
    """How a role looks: its colour, its background's opacity, and an outline that tells it apart.

    The outline is "under" or "through" the text, a "frame" around it, or "" for none.
    """

    colour: str
    opacity: float
    outline: str


STYLES = {
    "trained": Style(charts.COLOURS[0], 0.24, "under"),
    "end": Style(charts.COLOURS[1], 0.35, "frame"),
    "context": Style("#888888", 0.10, ""),
    "cut": Style(charts.COLOURS[3], 0.14, "through"),
}


def alt_text(mask: Mask) -> str:
    """Return the picture's alt text, made from its data."""
    counts = Counter(token.role for token in mask.tokens)
    roles = ", ".join(f"{counts[role]} {role}" for role in STYLES)
    side = f" ({mask.side})" if mask.side else ""
    return f"row {mask.row}{side} in {len(mask.tokens)} tokens of {mask.model}: {roles}"


def picture(mask: Mask, *, is_live: bool = True) -> str:
    """Return a mask as SVG text."""
    ink = charts.LIVE if is_live else charts.STILL
    pieces = [*_laid_out(mask.tokens[:MAX_TOKENS])]
    n_lines = (pieces[-1].line if pieces else 0) + 1 + (len(mask.tokens) > MAX_TOKENS)
    width = round(COLUMNS * LETTER_WIDTH + 2 * MARGIN)
    size = (width, HEAD + LINE_HEIGHT * n_lines + MARGIN)
    body = charts.begin("", alt_text(mask), size, is_live=is_live) + _legend(mask, ink)
    for role in STYLES:
        body += _background(role, [piece for piece in pieces if piece.role == role])
    body += f'<g font-family="ui-monospace,monospace" font-size="12" fill="{ink}">'
    for _, line in groupby(pieces, key=lambda piece: piece.line):
        body += _line([*line])
    if len(mask.tokens) > MAX_TOKENS:
        more = f"… and {len(mask.tokens) - MAX_TOKENS:,} more tokens"
        body += f'<text x="{MARGIN}" y="{HEAD + LINE_HEIGHT * n_lines - 6}">{more}</text>'
    return f"{body}</g></svg>"


def figure(mask: Mask) -> str:
    """Return the picture for a saved notebook: an image with alt text, and a table of its data."""
    return charts.still(picture(mask, is_live=False), alt_text(mask), "tokens", _table(mask))


@dataclass(frozen=True)
class _Piece:
    """A part of a token that fits on one line."""

    line: int
    column: int
    text: str
    role: str


def _laid_out(tokens: Sequence[Token]) -> Iterator[_Piece]:
    """Yield tokens as pieces, wrapped at `COLUMNS`, with signs for tabs and line ends."""
    line = column = 0
    for token in tokens:
        text = token.text.replace("\t", "→").replace("\r", "␍").replace("\n", "↵\n")
        for part in text.splitlines(keepends=True):
            ends_line = part.endswith("\n")
            part = part.removesuffix("\n")
            while part:
                if column + _width(part) > COLUMNS and column > 0:
                    line, column = line + 1, 0
                # half of the columns, because each letter may be two columns wide
                piece = part[: max(1, COLUMNS // 2)] if _width(part) > COLUMNS else part
                yield _Piece(line, column, piece, token.role)
                column += _width(piece)
                part = part[len(piece) :]
            if ends_line:
                line, column = line + 1, 0


def _width(text: str) -> int:
    """Return how many columns a text takes; a wide East Asian letter takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _background(role: str, pieces: Sequence[_Piece]) -> str:
    """Return the backgrounds and outlines of all pieces of a role."""
    style = STYLES[role]
    boxes, lines = "", ""
    for piece in pieces:
        x, y = MARGIN + piece.column * LETTER_WIDTH, HEAD + piece.line * LINE_HEIGHT
        width = _width(piece.text) * LETTER_WIDTH - 1  # a gap between tokens
        boxes += f"M{x:.1f} {y}h{width:.1f}v{LINE_HEIGHT - 3}h-{width:.1f}z"
        line_y = y + LINE_HEIGHT - 3 if style.outline == "under" else y + 8
        lines += f"M{x:.1f} {line_y}h{width:.1f}"
    if not pieces:
        return ""
    ground = f'<path d="{boxes}" fill="{style.colour}" fill-opacity="{style.opacity}"/>'
    if not style.outline:
        return ground
    path = boxes if style.outline == "frame" else lines
    return f'{ground}<path d="{path}" fill="none" stroke="{style.colour}" stroke-width="1.5"/>'


def _line(pieces: Sequence[_Piece]) -> str:
    """Return the text of a line, as wide as its backgrounds whatever the font."""
    text = "".join(piece.text for piece in pieces)
    x = MARGIN + pieces[0].column * LETTER_WIDTH
    y = HEAD + pieces[0].line * LINE_HEIGHT + 12
    return (
        f'<text x="{x:.1f}" y="{y}" textLength="{_width(text) * LETTER_WIDTH:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{_escaped(text)}</text>'
    )


def _escaped(text: str) -> str:
    """Return text for SVG, which allows no control characters."""
    plain = "".join(letter if letter.isprintable() else "�" for letter in text)
    return html.escape(plain).replace(" ", "\u00a0")


def _legend(mask: Mask, ink: str) -> str:
    counts, x, parts = Counter(token.role for token in mask.tokens), MARGIN, []
    face = f'font-family="ui-monospace,monospace" font-size="12" fill="{ink}"'
    for role in STYLES:
        sample = _Piece(0, 0, "ab", role)
        parts.append(
            f'<g transform="translate({x},{8 - HEAD})">{_background(role, [sample])}'
            f"<g {face}>{_line([sample])}</g>"
            f'<text x="{MARGIN + 22}" y="{HEAD + 12}" fill="{ink}">'
            f"{counts[role]:,} {role}</text></g>"
        )
        x += 118
    text = f"row {mask.row}, {mask.model}, cut at {mask.max_length:,} tokens"
    parts.append(f'<text x="{x + MARGIN}" y="20" fill="{ink}">{html.escape(text)}</text>')
    return "".join(parts)


def _table(mask: Mask) -> str:
    """Return runs of tokens of one role as a table."""
    body = ""
    for role, run in groupby(mask.tokens[:MAX_TOKENS], key=lambda token: token.role):
        tokens = [*run]
        text = html.escape("".join(token.text for token in tokens))
        body += f"<tr><td>{role}</td><td>{len(tokens)}</td><td {LINES}>{text}</td></tr>"
    head = "".join(f"<th>{name}</th>" for name in ("role", "tokens", "text"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

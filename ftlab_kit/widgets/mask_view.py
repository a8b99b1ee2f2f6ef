"""A row through the trainer's eyes: its tokens coloured as trained, context, end and cut.

One picture, live and still: monospaced, each role told apart by a line or frame as well as by its
colour.
"""

import html
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import ipywidgets

from ftlab_kit import datasets
from ftlab_kit.errors import KitError
from ftlab_kit.pictures import charts
from ftlab_kit.records import LINES, DatasetVersion, Mask, Model, Token
from ftlab_kit.widgets.display import Html, is_interactive
from ftlab_kit.workspace import Workspace

COLUMNS, LETTER, LINE = 112, 7.2, 19
MARGIN, HEAD = 10, 46
MOST = 1500  # tokens of a picture
# of a role: its colour, how strong its ground is, and where a line runs through its words
LOOKS: dict[str, tuple[str, float, str]] = {
    "trained": (charts.COLOURS[0], 0.24, "under"),
    "end": (charts.COLOURS[1], 0.35, "frame"),
    "context": ("#888888", 0.10, ""),
    "cut": (charts.COLOURS[3], 0.14, "through"),
}


def mask(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    model: Model | str,
    *,
    row: int = 0,
    max_length: int | None = None,
) -> "MaskView | Html":
    """Return a row's tokens as the trainer will see them; a picture where no one can turn pages.

    Args:
        row: Counted from 0; the first that is shown.
        max_length: Where rows are cut, in tokens; as a config has it if None.
    """
    if is_interactive():
        return MaskView(ws, dataset, model, row=row, max_length=max_length)
    found = datasets.mask(ws, dataset, model, row=row, max_length=max_length)
    return Html(
        charts.still(picture(found, is_live=False), alt(found), "tokens", _table(found)), alt(found)
    )


def alt(found: Mask) -> str:
    """Return what the picture says, made from its data."""
    count = Counter(token.role for token in found.tokens)
    roles = ", ".join(f"{count[role]} {role}" for role in LOOKS)
    side = f" ({found.side})" if found.side else ""
    return f"row {found.row}{side} in {len(found.tokens)} tokens of {found.model}: {roles}"


class _Piece(NamedTuple):
    """A part of a token that stands on one line."""

    line: int
    column: int
    text: str
    role: str


def picture(found: Mask, *, is_live: bool = True) -> str:
    """Return a mask as SVG text."""
    ink = charts.LIVE if is_live else charts.STILL
    pieces = [*_laid_out(found.tokens[:MOST])]
    n_lines = (pieces[-1].line if pieces else 0) + 1 + (len(found.tokens) > MOST)
    width = round(COLUMNS * LETTER + 2 * MARGIN)
    size = (width, HEAD + LINE * n_lines + MARGIN)
    body = charts.begin("", alt(found), size, is_live=is_live) + _legend(found, ink)
    body += "".join(_ground(role, [p for p in pieces if p.role == role]) for role in LOOKS)
    body += f'<g font-family="ui-monospace,monospace" font-size="12" fill="{ink}">'
    for _, line in groupby(pieces, key=lambda piece: piece.line):
        body += _words([*line])
    if len(found.tokens) > MOST:
        more = f"… and {len(found.tokens) - MOST:,} more tokens"
        body += f'<text x="{MARGIN}" y="{HEAD + LINE * n_lines - 6}">{more}</text>'
    return f"{body}</g></svg>"


def _laid_out(tokens: tuple[Token, ...]) -> Iterator[_Piece]:
    line = column = 0
    for token in tokens:
        text = token.text.replace("\t", "→").replace("\r", "␍").replace("\n", "↵\n")
        for part in text.splitlines(keepends=True):
            ends = part.endswith("\n")
            part = part.removesuffix("\n")
            while part:
                if column + _width(part) > COLUMNS and column > 0:
                    line, column = line + 1, 0
                fits = part[: max(1, COLUMNS // 2)] if _width(part) > COLUMNS else part
                yield _Piece(line, column, fits, token.role)
                column += _width(fits)
                part = part[len(fits) :]
            if ends:
                line, column = line + 1, 0


def _width(text: str) -> int:
    """Return the columns of a text; a letter of the Far East takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _ground(role: str, pieces: Sequence[_Piece]) -> str:
    """Return the grounds of all tokens of a role, a little apart, and the lines through them."""
    colour, strength, kind = LOOKS[role]
    boxes, lines = "", ""
    for piece in pieces:
        x, y = MARGIN + piece.column * LETTER, HEAD + piece.line * LINE
        width = _width(piece.text) * LETTER - 1
        boxes += f"M{x:.1f} {y}h{width:.1f}v{LINE - 3}h-{width:.1f}z"
        at = y + LINE - 3 if kind == "under" else y + 8
        lines += f"M{x:.1f} {at}h{width:.1f}"
    if not pieces:
        return ""
    ground = f'<path d="{boxes}" fill="{colour}" fill-opacity="{strength}"/>'
    if not kind:
        return ground
    drawn = boxes if kind == "frame" else lines
    return f'{ground}<path d="{drawn}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _words(line: Sequence[_Piece]) -> str:
    """Return the words of a line, as wide as its grounds whatever the font."""
    text = "".join(piece.text for piece in line)
    x, y = MARGIN + line[0].column * LETTER, HEAD + line[0].line * LINE + 12
    return (
        f'<text x="{x:.1f}" y="{y}" textLength="{_width(text) * LETTER:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{_escaped(text)}</text>'
    )


def _escaped(text: str) -> str:
    """Return text for SVG, which knows no control characters."""
    plain = "".join(letter if letter.isprintable() else "�" for letter in text)
    return html.escape(plain).replace(" ", "\u00a0")


def _legend(found: Mask, ink: str) -> str:
    count, x, parts = Counter(token.role for token in found.tokens), MARGIN, []
    face = f'font-family="ui-monospace,monospace" font-size="12" fill="{ink}"'
    for role in LOOKS:
        piece = _Piece(0, 0, "ab", role)
        parts.append(
            f'<g transform="translate({x},{8 - HEAD})">{_ground(role, [piece])}'
            f"<g {face}>{_words([piece])}</g>"
            f'<text x="{MARGIN + 22}" y="{HEAD + 12}" fill="{ink}">'
            f"{count[role]:,} {role}</text></g>"
        )
        x += 118
    where = f"row {found.row}, {found.model}, cut at {found.max_length:,} tokens"
    parts.append(f'<text x="{x + MARGIN}" y="20" fill="{ink}">{html.escape(where)}</text>')
    return "".join(parts)


def _table(found: Mask) -> str:
    """Return runs of tokens of one role as a table."""
    body = ""
    for role, run in groupby(found.tokens[:MOST], key=lambda token: token.role):
        tokens = [*run]
        said = html.escape("".join(token.text for token in tokens))
        body += f"<tr><td>{role}</td><td>{len(tokens)}</td><td {LINES}>{said}</td></tr>"
    head = "".join(f"<th>{name}</th>" for name in ("role", "tokens", "text"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class MaskView(ipywidgets.VBox):  # type: ignore[misc]
    """A row's mask, and fields for another row, side or length."""

    def __init__(
        self,
        ws: Workspace,
        dataset: DatasetVersion | str | int,
        model: Model | str,
        *,
        row: int = 0,
        max_length: int | None = None,
    ) -> None:
        """Show a row, and follow the fields."""
        self._ws, self._version, self._model = ws, datasets.get(ws, dataset), model
        found = datasets.mask(ws, self._version, model, row=row, max_length=max_length)
        last = self._version.n_rows - 1
        self.row = ipywidgets.BoundedIntText(
            row, 0, last, description="row", tooltip=f"0 to {last}"
        )
        self.side = ipywidgets.Dropdown(options=["chosen", "rejected"], description="side")
        self.length = ipywidgets.BoundedIntText(
            found.max_length, 1, 10**6, description="max_length", tooltip="where rows are cut"
        )
        self._picture = ipywidgets.HTML(picture(found))
        fields = [self.row, self.length]
        if self._version.kind == "preference":
            fields.append(self.side)
        super().__init__([ipywidgets.HBox(fields), self._picture])
        for field in fields:
            field.observe(self._show, "value")

    def _show(self, _: Any) -> None:
        try:
            found = datasets.mask(
                self._ws,
                self._version,
                self._model,
                row=self.row.value,
                side=self.side.value,
                max_length=self.length.value,
            )
            self._picture.value = picture(found)
        except KitError as error:
            self._picture.value = f'<span role="alert">{html.escape(str(error))}</span>'

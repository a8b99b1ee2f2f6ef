"""Tables as plain text, for a terminal or a pipe: columns padded by what a letter takes there."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

GAP = "  "
NARROWEST = 16  # a wrapped cell that is narrower can't be read


def display_width(text: str) -> int:
    """Return the columns that a text takes: a wide East Asian letter or an emoji takes two."""
    return sum(
        0
        if unicodedata.category(letter) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in text
    )


def text_table(rows: Sequence[Sequence[str]], *, width: int, names: Sequence[str] = ()) -> str:
    """Return rows as aligned columns; cells that are too long for the width are wrapped.

    Rows with more columns than can be read side by side are printed one below the other, a line for
    each name and its cell.

    Args:
        rows: The cells of each row, as many as there are names.
        width: The columns of the terminal.
        names: The names above the columns; without any, the rows stand alone.
    """
    # a tab or an escape sequence in someone's data would break the columns
    rows = [[re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", " ", cell) for cell in row] for row in rows]
    widths = _widths([names, *rows] if names else rows, width)
    if names and sum(widths) + len(GAP) * (len(widths) - 1) > width:
        pairs = [list(zip(names, row, strict=True)) for row in rows]
        return "\n\n".join(text_table(cells, width=width) for cells in pairs)
    head = [names, ["-" * column for column in widths]] if names else []
    return "\n".join(line for row in [*head, *rows] for line in _lines(row, widths))


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column; the widest are narrowed until all fit."""
    natural = [
        max(display_width(line) for cell in column for line in cell.split("\n"))
        for column in zip(*rows, strict=True)
    ]
    free = width - len(GAP) * (len(natural) - 1)
    limit = max(natural, default=0)
    while limit > NARROWEST and sum(min(column, limit) for column in natural) > free:
        limit -= 1
    return [min(column, limit) for column in natural]


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines that a row takes, as many as its longest cell."""
    cells = [_wrap(cell, column) for cell, column in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, cells), default=0)):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        padded = (
            part + " " * (column - display_width(part))
            for part, column in zip(parts, widths, strict=True)
        )
        lines.append(GAP.join(padded).rstrip())
    return lines


def _wrap(text: str, width: int) -> list[str]:
    """Return a text's lines, broken between words; a longer word is broken where the width ends."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.findall(r"\S+\s*|\s+", paragraph):
            if line and display_width(line + word.rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            while display_width(word.rstrip()) > width:
                fits = sum(end <= width for end in accumulate(map(display_width, word))) or 1
                lines.append(word[:fits])
                word = word[fits:]
            line += word
        lines.append(line.rstrip())
    return lines

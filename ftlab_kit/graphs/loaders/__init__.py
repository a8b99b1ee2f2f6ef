"""Loaders: whatever a document is written in, it becomes lines of Markdown that know their place.

A loader is a file here with one function, `read(path) -> Text`. What a reader sees as a heading, a
list, a table or bold type is so in the lines too, so that one extraction reads all forms. What
could not be read (a scanned page, a picture) is said in `notes`; what must not be read (a file that
is encrypted, too large, or unpacks into too much) is refused.
"""

from typing import NamedTuple


class Line(NamedTuple):
    """One line of Markdown. `number` counts from 1 within `part`: a page, a cell, else the file."""

    text: str
    number: int
    part: str = ""


class Text(NamedTuple):
    """A document as lines, with what was lost on the way."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

"""The base of every record, and how values, records and tables show in a notebook."""

import difflib
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

LONG = {"long": True}  # metadata of a field that a table of several records omits
SHOWN = 10  # rows of a table inside another record
ALIKE = 0.4  # similarity from which two texts are compared word by word
CELL = 'style="text-align:left;vertical-align:top;padding:2px 10px 2px 0"'
LINES = 'style="text-align:left;white-space:pre-wrap"'  # of a cell with several lines


def show(value: Any) -> str:
    """Return a value as text for people: a dash for unknown, four digits for a number."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show(item)}" for key, item in value.items()) or "–"
    if isinstance(value, (list, tuple)) and not isinstance(value, Record):
        return ", ".join(show(item) for item in value) or "–"
    return str(value)


def cell(text: str) -> str:
    """Return text as a table cell that keeps its line breaks."""
    return f"<td {LINES if chr(10) in text else CELL}>{html.escape(text)}</td>"


def percent(share: float | None) -> str:
    """Return a share from 0 to 1 as a percentage."""
    if share is None or 0.005 <= share <= 0.995 or share in (0, 1):
        return show(share) if share is None else f"{share:.0%}"
    return f"{share:.1%}"


def marked(before: str, after: str) -> str:
    """Return HTML that marks the deleted and inserted words between two texts.

    Texts that have little in common are marked as a whole: a few shared words would only confuse.
    """
    old, new = (re.findall(r"\s+|\S+", text) for text in (before, after))
    parts = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    # by words only: white space alone makes any two texts half alike
    ratio = difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False).ratio()
    changes = matcher.get_opcodes() if ratio >= ALIKE else [("replace", 0, len(old), 0, len(new))]
    for kind, i, j, k, m in changes:
        if kind == "equal":
            parts.append(html.escape("".join(new[k:m])))
            continue
        deleted, inserted = html.escape("".join(old[i:j])), html.escape("".join(new[k:m]))
        parts.append(f"<del>{deleted}</del>" if deleted else "")
        parts.append(f"<ins>{inserted}</ins>" if inserted else "")
    return "".join(parts)


def plain(value: Any) -> Any:
    """Return a value in a form that JSON can hold."""
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Record:
    """A frozen result; `as_dict()` is its JSON form."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields in a form that JSON can hold."""
        return {item.name: plain(getattr(self, item.name)) for item in fields(self)}

    def _repr_html_(self) -> str | None:
        rows = "".join(
            f"<tr><th {CELL}>{html.escape(item.name)}</th>"
            f"<td {CELL}>{html.escape(show(getattr(self, item.name)))}</td></tr>"
            for item in fields(self)
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def fields_of(record: Record) -> list[str]:
    """Return the names of the fields that a table of such records shows."""
    return [item.name for item in fields(record) if "long" not in item.metadata]


R = TypeVar("R", bound=Record)


class Rows(tuple[R, ...], Generic[R]):
    """A tuple of records of one kind that shows as a table."""

    __slots__ = ()

    def __new__(cls, records: Iterable[R] = ()) -> "Rows[R]":
        """Return a tuple of the records."""
        return super().__new__(cls, tuple(records))

    def _repr_html_(self) -> str:
        if not self:
            return "<p>none</p>"
        names = fields_of(self[0])
        head = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(cell(show(getattr(row, name))) for name in names) + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Return an HTML table of texts."""
    top = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"

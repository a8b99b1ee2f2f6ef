"""A document's lines as sections with blocks: labels, lists, tables, paragraphs.

No Markdown library does this. In CommonMark a blank line inside a list, which real documents are
full of, breaks the list, and no library keeps the line on which a word stands.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ftlab_kit.graphs.loaders import Line

HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")
LABEL = re.compile(r"\*\*(.+?):?\*\*:?\s*(.*)$")
ITEM = re.compile(r"(\s*)(?:[-*+•]|(\d+)[.)])\s+(.*)$")
TABLE_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")
FENCES = ("```", "~~~")


class Span(NamedTuple):
    """Some text with the lines that it stands on."""

    text: str
    first: Line
    last: Line


@dataclass
class Item:
    """An item of a list, with its nested items. `label` is the bold line above the list."""

    span: Span
    label: str = ""
    is_numbered: bool = False
    nested: list[Span] = field(default_factory=list)


@dataclass
class Table:
    """A table: the names of its columns, and its rows."""

    header: list[str]
    rows: list[tuple[list[str], Line]] = field(default_factory=list)


@dataclass
class Section:
    """A heading with all below it, up to the next heading.

    `labels` are the lines `**Key:** value`, in order; `title` is '' for what precedes a heading.
    """

    title: str
    level: int
    first: Line
    above: "Section | None" = None
    lines: list[Line] = field(default_factory=list)
    labels: list[tuple[str, Span]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    paragraphs: list[Span] = field(default_factory=list)

    @property
    def path(self) -> tuple[str, ...]:
        """Return the titles from the document's down to this one's."""
        above = self.above.path if self.above else ()
        return (*above, self.title) if self.title else above


def read(lines: Sequence[Line]) -> list[Section]:
    """Return the sections of a document, in order."""
    first = lines[0] if lines else Line("", 1)
    sections = [Section("", 0, first)]
    is_code = False
    for line in lines:
        if line.text.lstrip().startswith(FENCES):
            is_code = not is_code
        heading = None if is_code else HEADING.match(line.text)
        if heading and heading[2]:
            level = len(heading[1])
            above = next((item for item in reversed(sections) if item.level < level), None)
            sections.append(Section(_without_marks(heading[2]), level, line, above))
        sections[-1].lines.append(line)
    for section in sections:
        _parse_blocks(section)
    return [section for section in sections if section.title or _has_text(section)]


def _has_text(section: Section) -> bool:
    return any(line.text.strip() for line in section.lines)


def _without_marks(text: str) -> str:
    return re.sub(r"[*`]", "", text).strip()


def _parse_blocks(section: Section) -> None:
    """Fill a section's labels, items, tables and paragraphs from its lines."""
    body = section.lines[1:] if section.title else section.lines
    label: tuple[str, Line] | None = None  # one without a value: its list or value stands below
    for kind, block in _blocks(body):
        if kind == "table":
            section.tables.append(_table(block))
            label = None
        elif kind == "item":
            item = _item(block)
            item.label = label[0] if label else ""
            section.items.append(item)
        elif kind == "label":
            match = LABEL.match(block[0].text.strip())
            key, value = (match[1].strip(), match[2].strip()) if match else ("", "")
            if value:
                section.labels.append((key, Span(_joined(value, block[1:]), block[0], block[-1])))
            label = None if value else (key, block[0])
        elif label:
            # the value of a label may stand on the line below it
            section.labels.append((label[0], Span(_joined("", block), label[1], block[-1])))
            label = None
        else:
            section.paragraphs.append(Span(_joined("", block), block[0], block[-1]))


def _joined(text: str, block: Sequence[Line]) -> str:
    return " ".join([*([text] if text else []), *(line.text.strip() for line in block)])


def _blocks(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """Yield the blocks of a section with their kind; code is left out."""
    block: list[Line] = []
    block_kind, is_code = "", False
    for line in lines:
        if line.text.lstrip().startswith(FENCES):
            is_code = not is_code
            kind = "code"
        else:
            kind = "code" if is_code else _kind(line.text, block_kind)
        if block and (kind != "more"):
            yield block_kind, block
            block = []
        if kind == "more":
            block.append(line)
        elif kind in ("table", "item", "label", "text"):
            block_kind, block = kind, [line]
        else:
            block_kind = ""
    if block:
        yield block_kind, block


def _kind(text: str, before: str) -> str:
    """Return the kind of block that a line begins, 'more' if it continues the one before."""
    stripped = text.strip()
    if not stripped or re.fullmatch(r"[-*_]{3,}", stripped):
        return "" if before != "item" or stripped else "more"
    if stripped.startswith("|"):
        return "more" if before == "table" else "table"
    if item := ITEM.match(text):
        return "more" if before == "item" and len(item[1]) >= 2 else "item"
    if before == "item" and text.startswith("  "):
        return "more"
    if LABEL.match(stripped) and _is_label(stripped):
        return "label"
    return "more" if before == "text" else "text"


def _is_label(text: str) -> bool:
    """Return whether bold text at the beginning is a key, not a word of a sentence."""
    match = LABEL.match(text)
    return bool(match and (text.startswith(f"**{match[1]}:**") or ":**" in text or "**:" in text))


def _item(block: Sequence[Line]) -> Item:
    match = ITEM.match(block[0].text)
    text = match[3].strip() if match else block[0].text.strip()
    nested: list[Span] = []
    last = block[0]
    for line in block[1:]:
        if not line.text.strip():
            continue
        if inner := ITEM.match(line.text):
            nested.append(Span(inner[3].strip(), line, line))
        elif nested:
            nested[-1] = Span(f"{nested[-1].text} {line.text.strip()}", nested[-1].first, line)
        else:
            text, last = f"{text} {line.text.strip()}", line
    is_numbered = bool(match and match[2])
    return Item(Span(text, block[0], last), is_numbered=is_numbered, nested=nested)


def _table(block: Sequence[Line]) -> Table:
    rows = [(_cells(line.text), line) for line in block if not TABLE_RULE.fullmatch(line.text)]
    return Table(rows[0][0] if rows else [], rows[1:])


def _cells(text: str) -> list[str]:
    inside = text.strip().strip("|")
    cells = re.split(r"(?<!\\)\|", inside)
    return [cell.strip().replace("\\|", "|") for cell in cells]

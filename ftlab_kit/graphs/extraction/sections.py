"""A document's lines as sections with blocks: labels, lists, tables, paragraphs.

No Markdown library: a blank line inside a list, which people's documents are full of, breaks a list
in CommonMark, and none of them keeps the line that a word stands on.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ftlab_kit.graphs.loaders import Line

HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")
LABEL = re.compile(r"\*\*(.+?):?\*\*:?\s*(.*)$")
ITEM = re.compile(r"(\s*)(?:[-*+•]|(\d+)[.)])\s+(.*)$")
RULER = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")


class Said(NamedTuple):
    """Some text with the lines that it stands on."""

    text: str
    first: Line
    last: Line


@dataclass
class Item:
    """An item of a list: its text, the bold or plain term before a colon, and what hangs below."""

    said: Said
    label: str = ""  # the bold line above the list
    is_numbered: bool = False
    below: list[Said] = field(default_factory=list)


@dataclass
class Table:
    """A table: the names of its columns, and its rows."""

    head: list[str]
    rows: list[tuple[list[str], Line]] = field(default_factory=list)


@dataclass
class Section:
    """A heading with what stands below it, up to the next one.

    `labels` are the lines `**Key:** value`, in order; `title` is '' for what precedes a heading.
    """

    title: str
    level: int
    first: Line
    above: "Section | None" = None
    lines: list[Line] = field(default_factory=list)
    labels: list[tuple[str, Said]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    paragraphs: list[Said] = field(default_factory=list)

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
        if line.text.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        found = None if is_code else HEADING.match(line.text)
        if found and found[2]:
            level = len(found[1])
            above = next((item for item in reversed(sections) if item.level < level), None)
            sections.append(Section(_plain(found[2]), level, line, above))
        sections[-1].lines.append(line)
    for section in sections:
        _fill(section)
    return [section for section in sections if section.title or _has_text(section)]


def _has_text(section: Section) -> bool:
    return any(line.text.strip() for line in section.lines)


def _plain(text: str) -> str:
    """Return a heading without its marks."""
    return re.sub(r"[*`]", "", text).strip()


def _fill(section: Section) -> None:
    """Find the blocks of a section."""
    body = section.lines[1:] if section.title else section.lines
    label: tuple[str, Line] | None = None
    for kind, block in _blocks(body):
        if kind == "table":
            section.tables.append(_table(block))
            label = None
        elif kind == "item":
            item = _item(block)
            item.label = label[0] if label else ""
            section.items.append(item)
        elif kind == "label":
            found = LABEL.match(block[0].text.strip())
            key, value = (found[1].strip(), found[2].strip()) if found else ("", "")
            if value:
                section.labels.append((key, Said(_joined(value, block[1:]), block[0], block[-1])))
            label = None if value else (key, block[0])
        elif label:
            # the value of a label may stand on the line below it
            section.labels.append((label[0], Said(_joined("", block), label[1], block[-1])))
            label = None
        else:
            section.paragraphs.append(Said(_joined("", block), block[0], block[-1]))


def _joined(text: str, block: Sequence[Line]) -> str:
    return " ".join([*([text] if text else []), *(line.text.strip() for line in block)])


def _blocks(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """Yield the blocks of a section with their kind; code is none of them."""
    block: list[Line] = []
    kind, is_code = "", False
    for line in lines:
        if line.text.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
            now = "code"
        else:
            now = "code" if is_code else _kind(line.text, kind)
        if block and (now != "more"):
            yield kind, block
            block = []
        if now == "more":
            block.append(line)
        elif now in ("table", "item", "label", "text"):
            kind, block = now, [line]
        else:
            kind = ""
    if block:
        yield kind, block


def _kind(text: str, before: str) -> str:
    """Return what a line begins, 'more' where it goes on with the block before."""
    stripped = text.strip()
    if not stripped or re.fullmatch(r"[-*_]{3,}", stripped):
        return "" if before != "item" or stripped else "more"
    if stripped.startswith("|"):
        return "more" if before == "table" else "table"
    found = ITEM.match(text)
    if found:
        return "more" if before == "item" and len(found[1]) >= 2 else "item"
    if before == "item" and text.startswith("  "):
        return "more"
    if LABEL.match(stripped) and _is_label(stripped):
        return "label"
    return "more" if before == "text" else "text"


def _is_label(text: str) -> bool:
    """Return whether a bold beginning is a key, not a word of a sentence."""
    found = LABEL.match(text)
    return bool(found and (text.startswith(f"**{found[1]}:**") or ":**" in text or "**:" in text))


def _item(block: Sequence[Line]) -> Item:
    found = ITEM.match(block[0].text)
    own = found[3].strip() if found else block[0].text.strip()
    below: list[Said] = []
    last = block[0]
    for line in block[1:]:
        if not line.text.strip():
            continue
        nested = ITEM.match(line.text)
        if nested:
            below.append(Said(nested[3].strip(), line, line))
        elif below:
            below[-1] = Said(f"{below[-1].text} {line.text.strip()}", below[-1].first, line)
        else:
            own, last = f"{own} {line.text.strip()}", line
    is_numbered = bool(found and found[2])
    return Item(Said(own, block[0], last), is_numbered=is_numbered, below=below)


def _table(block: Sequence[Line]) -> Table:
    rows = [(_cells(line.text), line) for line in block if not RULER.fullmatch(line.text)]
    return Table(rows[0][0] if rows else [], rows[1:])


def _cells(text: str) -> list[str]:
    inside = text.strip().strip("|")
    cells = re.split(r"(?<!\\)\|", inside)
    return [cell.strip().replace("\\|", "|") for cell in cells]

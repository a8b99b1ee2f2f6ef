"""HTML: the headings, lists, tables and bold text that a page shows, without loading anything."""

import codecs
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import lxml.html
from lxml import etree

from ftlab_kit.errors import InputError
from ftlab_kit.graphs.loaders import UTF16, Line, Text, blocks, unread_notes

UNSHOWN_TAGS = frozenset(
    "head script style nav template noscript svg math iframe object canvas audio video button "
    "select textarea datalist title".split()
)
BLOCK_TAGS = frozenset(
    "html body p div section article main header footer aside address blockquote figure figcaption "
    "ul ol menu li dl dt dd h1 h2 h3 h4 h5 h6 hr form fieldset legend details summary center "
    "caption thead tbody tfoot tr td th table pre".split()
)
HEADING = re.compile(r"h([1-6])")
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
BOLD = re.compile(r"font-weight\s*:\s*(bold|[6-9]00)", re.IGNORECASE)
MAX_DEFINITIONS = 100  # of one term
MAX_SPANNING = 100  # cells of a row that span down from rows above
MAX_LINE_NUMBER = 65535  # libxml2 counts no further


class Style(NamedTuple):
    """How a stretch of text is shown, and the block that it belongs to.

    Attributes:
        prefix: The Markdown at the beginning of a heading or an item.
        lead: The term that a definition defines.
        item: The element of the block, which identifies a second paragraph in it.
        depth: The number of lists around it.
    """

    prefix: str = ""
    lead: str = ""
    item: Any = None
    depth: int = 0
    is_bold: bool = False
    is_code: bool = False


class Piece(NamedTuple):
    """A stretch of text; if `run` is None, the end of a block, and `ready` lines after it."""

    run: blocks.Run | None
    number: int = 0
    style: Style = Style()
    ready: tuple[Line, ...] = ()


END = Piece(None)


def read(path: Path) -> Text:
    """Return what a page shows; `number` is the line of its source.

    Raises:
        InputError: The page can't be parsed, or its tags are nested too deep.
    """
    root = _parsed(path)
    lines = tuple(blocks.with_blank_lines(_lines(_pieces(root, Style()))))
    notes = unread_notes({"picture": sum(1 for _ in root.iter("img"))})
    if any(line.number >= MAX_LINE_NUMBER for line in lines):
        notes += (f"lines after {MAX_LINE_NUMBER:,} are all numbered {MAX_LINE_NUMBER:,}",)
    return Text(lines, notes)


def _parsed(path: Path) -> Any:
    raw = path.read_bytes()
    parser = lxml.html.HTMLParser(
        encoding=_encoding(raw), no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        root = lxml.html.document_fromstring(raw, parser=parser)
    except etree.ParserError:  # a page of comments only
        return etree.Element("html")
    except (etree.LxmlError, ValueError, AssertionError) as error:
        raise InputError(f"{path} can't be read as HTML ({error}). Save it again.") from error
    if any("depth" in entry.message.lower() for entry in parser.error_log):
        raise InputError(
            f"{path} has tags nested more than 256 deep, beyond which text would be lost. Save the "
            "page as text, and load that."
        )
    return root


def _encoding(raw: bytes) -> str | None:
    """Return the encoding that the bytes imply, None if the page declares it."""
    if raw.startswith(UTF16):
        return "utf-16"
    try:
        codecs.decode(raw, "utf-8")
    except UnicodeDecodeError:
        return None if re.search(rb"charset|encoding", raw[:4096], re.IGNORECASE) else "cp1252"
    return "utf-8"


def _pieces(element: Any, style: Style) -> Iterator[Piece]:
    """Yield the text that an element shows, without the text after it."""
    tag = element.tag if isinstance(element.tag, str) else ""
    if not tag or tag in UNSHOWN_TAGS or _is_hidden(element) or _is_term(element):
        return
    if tag == "pre" or (tag == "table" and _is_of_data(element)):
        lines = _fence(element) if tag == "pre" else blocks.table(_rows(element))
        yield Piece(None, ready=tuple(lines))
        return
    number, is_block = element.sourceline or 0, tag in BLOCK_TAGS
    inner = _style(element, tag, style)
    if is_block:
        yield END
    if tag == "br":
        # a heading with a line break stays one heading
        yield Piece(blocks.Run(" "), number, style) if style.prefix.startswith("#") else END
    if tag == "hr":
        yield Piece(None, ready=(Line("---", number),))
    yield from _inside(element, inner, number)
    if is_block:
        yield END


def _inside(element: Any, style: Style, number: int) -> Iterator[Piece]:
    yield from _piece(element.text, number, style)
    for child in element:
        yield from _pieces(child, style)
        yield from _piece(child.tail, child.sourceline or number, style)


def _piece(text: str | None, number: int, style: Style) -> Iterator[Piece]:
    if text:
        run = blocks.Run(re.sub(r"\s+", " ", text), style.is_bold, style.is_code)
        above = text[: len(text) - len(text.lstrip())].count("\n")
        yield Piece(run, number + above, style)


def _is_hidden(element: Any) -> bool:
    return "hidden" in element.attrib or bool(HIDDEN.search(element.get("style", "")))


def _is_term(element: Any) -> bool:
    """Return whether an element is a term whose definition follows and begins with it."""
    after = element.getnext() if element.tag == "dt" else None
    return after is not None and after.tag == "dd"


def _term(definition: Any) -> str:
    """Return the term of a definition; a definition that was not closed contains the next one."""
    before = definition
    for _ in range(MAX_DEFINITIONS):
        previous = before.getprevious()
        before = before.getparent() if previous is None else previous
        if before is None or before.tag != "dd":
            break
    is_term = before is not None and before.tag == "dt"
    return " ".join(before.text_content().split()).rstrip(":") if is_term else ""


def _style(element: Any, tag: str, style: Style) -> Style:
    heading = HEADING.fullmatch(tag)
    if heading:
        # a heading is bold anyway; marks would become part of its name
        return Style(prefix="#" * int(heading[1]) + " ", item=element)
    if tag in ("ul", "ol", "menu", "dl"):
        return style._replace(depth=style.depth + 1)
    if tag in ("li", "dt", "dd"):
        lead = _term(element) if tag == "dd" else ""
        return style._replace(prefix="- ", lead=lead, item=element, depth=max(1, style.depth))
    if tag in ("strong", "b", "th") or BOLD.search(element.get("style", "")):
        return style._replace(is_bold=not style.prefix.startswith("#"))
    if tag in ("code", "kbd", "samp", "tt"):
        return style._replace(is_code=not style.prefix.startswith("#"))
    return style


def _lines(pieces: Iterator[Piece]) -> Iterator[Line]:
    """Yield a line for each block, and the lines that were ready."""
    begun: set[Any] = set()
    for is_end, group in groupby(pieces, key=lambda piece: piece.run is None):
        block = list(group)
        if is_end:
            yield from (line for piece in block for line in piece.ready)
            continue
        text = blocks.to_markdown(piece.run for piece in block if piece.run)
        first = next((piece for piece in block if piece.run and piece.run.text.strip()), block[0])
        if text:
            yield Line(_prefixed(text, first.style, begun), first.number)


def _prefixed(text: str, style: Style, begun: set[Any]) -> str:
    is_more = style.item in begun
    begun.add(style.item)
    if style.prefix == "- ":
        text = f"**{style.lead}:** {text}" if style.lead and not is_more else text
        indent = "  " * style.depth
        return indent + text if is_more else blocks.list_item(text, style.depth - 1)
    return style.prefix + text if style.prefix and not is_more else blocks.escape(text)


def _fence(element: Any) -> Iterator[Line]:
    text = "".join(element.itertext()).replace("\r\n", "\n")
    number = element.sourceline or 0
    # the first newline after <pre> is not shown, but the text begins a line later
    number += text.startswith("\n")
    language = re.search(r"lang(?:uage)?-(\w+)", " ".join(element.xpath(".//@class")))
    body = text.removeprefix("\n").rstrip().split("\n")
    yield from blocks.code_block(body, number, language[1] if language else "")


def _is_of_data(table: Any) -> bool:
    """Return whether a table has cells of text, instead of laying out a page."""
    inner = "table ul ol pre h1 h2 h3 h4 h5 h6".split()
    return not any(next(table.iterdescendants(tag), None) is not None for tag in inner)


def _rows(table: Any) -> Iterator[tuple[int, list[str]]]:
    above: dict[int, tuple[int, str]] = {}
    for row in table.iter("tr"):
        cells: list[str] = []
        for cell in row.iterchildren("td", "th"):
            _fill(cells, above)
            text = _cell(cell)
            rows, columns = _span(cell, "rowspan"), min(blocks.MAX_SPAN, _span(cell, "colspan"))
            # a staircase of cells that all span to the end would grow without limit
            if rows > 1 and len(above) < MAX_SPANNING:
                above[len(cells)] = (rows - 1, blocks.repeated(text))
            cells += [text] + [""] * (columns - 1)
        _fill(cells, above)
        yield row.sourceline or 0, cells


def _fill(cells: list[str], above: dict[int, tuple[int, str]]) -> None:
    """Add the cells that span down from the rows above."""
    while len(cells) in above:
        n_left, text = above.pop(len(cells))
        if n_left > 1:
            above[len(cells)] = (n_left - 1, text)
        cells.append(text)


def _cell(cell: Any) -> str:
    runs = (piece.run or blocks.Run(" ") for piece in _inside(cell, Style(), 0))
    return blocks.to_markdown(runs)


def _span(cell: Any, name: str) -> int:
    value = cell.get(name, "1").strip()
    return max(1, int(value)) if value.isascii() and value.isdigit() and len(value) < 6 else 1

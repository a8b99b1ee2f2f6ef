"""HTML: what a page shows as a heading, a list, a table or bold type, without loading anything."""

import codecs
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import lxml.html
from lxml import etree

from ftlab_kit.errors import InputError
from ftlab_kit.graphs.loaders import UTF16, Line, Text, blocks, not_read

UNSEEN = frozenset(
    "head script style nav template noscript svg math iframe object canvas audio video button "
    "select textarea datalist title".split()
)
BLOCKS = frozenset(
    "html body p div section article main header footer aside address blockquote figure figcaption "
    "ul ol menu li dl dt dd h1 h2 h3 h4 h5 h6 hr form fieldset legend details summary center "
    "caption thead tbody tfoot tr td th table pre".split()
)
HEADING = re.compile(r"h([1-6])")
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
BOLD = re.compile(r"font-weight\s*:\s*(bold|[6-9]00)", re.IGNORECASE)
MAX_DEFINITIONS = 100  # of one term
MAX_REACHING = 100  # cells of a row that come from above
LAST_LINE = 65535  # the parser counts no further


class Look(NamedTuple):
    """How a stretch of text is shown, and the block that it begins or goes on with.

    Attributes:
        prefix: What a heading or an item of a list begins with.
        lead: The term that a definition is of.
        item: The element that is the block, by which a second paragraph in it is told.
        depth: How many lists it stands in.
    """

    prefix: str = ""
    lead: str = ""
    item: Any = None
    depth: int = 0
    is_bold: bool = False
    is_code: bool = False


class Piece(NamedTuple):
    """A stretch of text; a block's end where `run` is None; lines as they are where `ready`."""

    run: blocks.Run | None
    number: int = 0
    look: Look = Look()
    ready: tuple[Line, ...] = ()


END = Piece(None)


def read(path: Path) -> Text:
    """Return what a page shows; `number` is the line of its source.

    Raises:
        InputError: It can't be parsed, or its tags are nested too deep.
    """
    root = _parsed(path)
    lines = tuple(blocks.apart(_lines(_pieces(root, Look()))))
    notes = not_read({"picture": sum(1 for _ in root.iter("img"))})
    if any(line.number >= LAST_LINE for line in lines):
        notes += (f"lines after {LAST_LINE:,} are all called {LAST_LINE:,}",)
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
            f"{path} has tags in tags, more than 256 deep; expected fewer, as the rest would be "
            "lost. Save the page as text, and add that."
        )
    return root


def _encoding(raw: bytes) -> str | None:
    """Return the encoding where the bytes tell it; None where the page has to say it."""
    if raw.startswith(UTF16):
        return "utf-16"
    try:
        codecs.decode(raw, "utf-8")
    except UnicodeDecodeError:
        return None if re.search(rb"charset|encoding", raw[:4096], re.IGNORECASE) else "cp1252"
    return "utf-8"


def _pieces(element: Any, look: Look) -> Iterator[Piece]:
    """Yield what an element shows, without the text after it."""
    tag = element.tag if isinstance(element.tag, str) else ""
    if not tag or tag in UNSEEN or _is_hidden(element) or _is_term(element):
        return
    if tag == "pre" or (tag == "table" and _is_of_data(element)):
        lines = _fence(element) if tag == "pre" else blocks.table(_rows(element))
        yield Piece(None, ready=tuple(lines))
        return
    number, is_block = element.sourceline or 0, tag in BLOCKS
    inner = _look(element, tag, look)
    if is_block:
        yield END
    if tag == "br":
        # a heading that is broken in two stays one
        yield Piece(blocks.Run(" "), number, look) if look.prefix.startswith("#") else END
    if tag == "hr":
        yield Piece(None, ready=(Line("---", number),))
    yield from _inside(element, inner, number)
    if is_block:
        yield END


def _inside(element: Any, look: Look, number: int) -> Iterator[Piece]:
    yield from _piece(element.text, number, look)
    for child in element:
        yield from _pieces(child, look)
        yield from _piece(child.tail, child.sourceline or number, look)


def _piece(text: str | None, number: int, look: Look) -> Iterator[Piece]:
    if text:
        run = blocks.Run(re.sub(r"\s+", " ", text), look.is_bold, look.is_code)
        above = text[: len(text) - len(text.lstrip())].count("\n")
        yield Piece(run, number + above, look)


def _is_hidden(element: Any) -> bool:
    return "hidden" in element.attrib or bool(HIDDEN.search(element.get("style", "")))


def _is_term(element: Any) -> bool:
    """Return whether an element is said at the head of the definition that follows."""
    after = element.getnext() if element.tag == "dt" else None
    return after is not None and after.tag == "dd"


def _term(definition: Any) -> str:
    """Return what a definition is of; one that was not closed holds the next."""
    before = definition
    for _ in range(MAX_DEFINITIONS):
        previous = before.getprevious()
        before = before.getparent() if previous is None else previous
        if before is None or before.tag != "dd":
            break
    is_term = before is not None and before.tag == "dt"
    return " ".join(before.text_content().split()).rstrip(":") if is_term else ""


def _look(element: Any, tag: str, look: Look) -> Look:
    heading = HEADING.fullmatch(tag)
    if heading:
        # a heading is bold by itself; marks would stand inside its name
        return Look(prefix="#" * int(heading[1]) + " ", item=element)
    if tag in ("ul", "ol", "menu", "dl"):
        return look._replace(depth=look.depth + 1)
    if tag in ("li", "dt", "dd"):
        lead = _term(element) if tag == "dd" else ""
        return look._replace(prefix="- ", lead=lead, item=element, depth=max(1, look.depth))
    if tag in ("strong", "b", "th") or BOLD.search(element.get("style", "")):
        return look._replace(is_bold=not look.prefix.startswith("#"))
    if tag in ("code", "kbd", "samp", "tt"):
        return look._replace(is_code=not look.prefix.startswith("#"))
    return look


def _lines(pieces: Iterator[Piece]) -> Iterator[Line]:
    """Yield a line for each block, and what was ready already."""
    begun: set[Any] = set()
    for is_end, group in groupby(pieces, key=lambda piece: piece.run is None):
        block = list(group)
        if is_end:
            yield from (line for piece in block for line in piece.ready)
            continue
        text = blocks.marked(piece.run for piece in block if piece.run)
        first = next((piece for piece in block if piece.run and piece.run.text.strip()), block[0])
        if text:
            yield Line(_prefixed(text, first.look, begun), first.number)


def _prefixed(text: str, look: Look, begun: set[Any]) -> str:
    is_more = look.item in begun
    begun.add(look.item)
    if look.prefix == "- ":
        text = f"**{look.lead}:** {text}" if look.lead and not is_more else text
        indent = "  " * look.depth
        return indent + text if is_more else blocks.listed(text, look.depth - 1)
    return look.prefix + text if look.prefix and not is_more else blocks.plain(text)


def _fence(element: Any) -> Iterator[Line]:
    text = "".join(element.itertext()).replace("\r\n", "\n")
    number = element.sourceline or 0
    # the first newline after <pre> is not shown, but it moves what follows one line down
    number += text.startswith("\n")
    named = re.search(r"lang(?:uage)?-(\w+)", " ".join(element.xpath(".//@class")))
    body = text.removeprefix("\n").rstrip().split("\n")
    yield from blocks.fenced(body, number, named[1] if named else "")


def _is_of_data(table: Any) -> bool:
    """Return whether a table holds cells of text, and no page within it."""
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
            # a stair of cells, each of them reaching to the end, would grow without end
            if rows > 1 and len(above) < MAX_REACHING:
                above[len(cells)] = (rows - 1, blocks.repeated(text))
            cells += [text] + [""] * (columns - 1)
        _fill(cells, above)
        yield row.sourceline or 0, cells


def _fill(cells: list[str], above: dict[int, tuple[int, str]]) -> None:
    """Add the cells that reach down from the rows above."""
    while len(cells) in above:
        left, text = above.pop(len(cells))
        if left > 1:
            above[len(cells)] = (left - 1, text)
        cells.append(text)


def _cell(cell: Any) -> str:
    runs = (piece.run or blocks.Run(" ") for piece in _inside(cell, Look(), 0))
    return blocks.marked(runs)


def _span(cell: Any, name: str) -> int:
    value = cell.get(name, "1").strip()
    return max(1, int(value)) if value.isascii() and value.isdigit() and len(value) < 6 else 1

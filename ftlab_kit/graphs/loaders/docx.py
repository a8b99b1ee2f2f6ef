"""Word documents: headings and lists by their styles, bold type, tables, in the order they stand.

Nothing that a document links to is fetched. Before it is opened it is seen what it unpacks into.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import count, groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from docx import Document
from docx.opc.exceptions import OpcError
from docx.oxml.exceptions import XmlchemyError
from docx.oxml.ns import qn
from docx.text.paragraph import Paragraph
from docx.text.run import Run
from lxml import etree

from ftlab_kit.errors import InputError
from ftlab_kit.graphs.loaders import Line, Text, blocks, counted, not_read

MAX_UNPACKED_BYTES = 512 * 2**20
MAX_XML_BYTES = 128 * 2**20  # a tree of XML is several times as large as its text
MAX_RATIO = 200
MAX_MEMBERS = 10_000
WATCHED_BYTES = 2**20  # smaller members may be packed as tight as they like
OLE = b"\xd0\xcf\x11\xe0"
BROKEN = (
    OpcError,
    XmlchemyError,
    zipfile.BadZipFile,
    zlib.error,
    etree.LxmlError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
)
HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
LIST = re.compile(r"list(?: bullet| number)?(?: (\d))?", re.IGNORECASE)
CODE = re.compile(r"code|preformatted|verbatim", re.IGNORECASE)
MONOSPACED = re.compile(r"courier|consolas|mono|menlo|monaco|cascadia|fira code", re.IGNORECASE)
# what is struck out, moved away, or drawn beside the text
ELSEWHERE = tuple(map(qn, ("w:del", "w:moveFrom", "w:drawing", "w:pict", "w:object")))
WRAPPERS = tuple(map(qn, ("w:sdt", "w:sdtContent", "w:customXml", "w:ins", "w:moveTo")))


class Written(NamedTuple):
    """A paragraph, its style, and the styles that this one is based on."""

    paragraph: Paragraph
    styles: tuple[Any, ...]


class Block(NamedTuple):
    """A paragraph, or the cells of a row of a table."""

    number: int
    written: Written | None = None
    cells: tuple[str, ...] = ()
    table: Any = None


Reader = Callable[[Any], Written]


def read(path: Path) -> Text:
    """Return the paragraphs and tables of a document; `number` counts paragraphs and rows from 1.

    Raises:
        InputError: It is encrypted, broken, no Word document, or unpacks into too much.
    """
    _check(path)
    try:
        document = Document(str(path))
        if document.element.getroottree().docinfo.doctype:
            raise ValueError("it declares entities, which no office program does")
        lines = tuple(blocks.apart(_lines(_blocks(document))))
        return Text(lines, _notes(document))
    except (*BROKEN, RecursionError) as error:
        raise InputError(
            f"{path} can't be read as a Word document ({error}). "
            "Open it in an office program and save it as .docx again."
        ) from error


def _check(path: Path) -> None:
    """Refuse what is no package, or one that unpacks into too much."""
    with path.open("rb") as begin:
        is_ole = begin.read(4) == OLE
    if is_ole:
        raise InputError(
            f"{path} is encrypted or an old .doc; expected a .docx without a password. "
            "Open it in an office program; save as .docx without a password."
        )
    try:
        with zipfile.ZipFile(path) as package:
            members = package.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path} is no .docx, or was cut off ({error}). Fetch or save it again."
        ) from error
    _check_members(path, members)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    total = sum(member.file_size for member in members)
    xml = sum(m.file_size for m in members if m.filename.lower().endswith((".xml", ".rels")))
    tight = next(
        (
            member
            for member in members
            if member.file_size > WATCHED_BYTES
            and member.file_size > MAX_RATIO * max(1, member.compress_size)
        ),
        None,
    )
    why = ""
    if tight is not None:
        why = f"{tight.filename} is packed more than {MAX_RATIO} to 1"
    elif total > MAX_UNPACKED_BYTES or xml > MAX_XML_BYTES:
        why = f"it unpacks into {total / 2**20:,.0f} MiB, {xml / 2**20:,.0f} MiB of it text"
    elif len(members) > MAX_MEMBERS:
        why = f"it has {len(members):,} parts"
    if why:
        raise InputError(
            f"{path} unpacks into too much: {why}; expected at most "
            f"{MAX_UNPACKED_BYTES // 2**20} MiB, {MAX_XML_BYTES // 2**20} MiB of it text. "
            "If you trust it, open it in an office program, and save it in parts."
        )


def _blocks(document: Any) -> Iterator[Block]:
    """Yield paragraphs and rows of tables in order, also those in content controls."""
    numbers, reader = count(1), _reader(document)
    for element in _elements(document.element.body):
        if element.tag == qn("w:p"):
            yield Block(next(numbers), written=reader(element))
        else:
            for cells in _rows(element, reader):
                yield Block(next(numbers), cells=cells, table=element)


def _reader(document: Any) -> Reader:
    """Return what makes a paragraph of its element; a style is looked up once."""
    known: dict[str | None, tuple[Any, ...]] = {}

    def written(element: Any) -> Written:
        paragraph = Paragraph(element, document._body)
        if element.style not in known:
            known[element.style] = _styles(paragraph)
        return Written(paragraph, known[element.style])

    return written


def _elements(parent: Any) -> Iterator[Any]:
    for child in parent:
        if child.tag in (qn("w:p"), qn("w:tbl")):
            yield child
        elif child.tag in WRAPPERS:
            yield from _elements(child)


def _rows(table: Any, reader: Reader) -> Iterator[tuple[str, ...]]:
    above: dict[int, str] = {}
    for row in table.iter(qn("w:tr")):
        if next(row.iterancestors(qn("w:tbl"))) is not table:
            continue  # of a table within a cell, whose text the cell gives
        cells: list[str] = []
        for cell in row.iter(qn("w:tc")):
            if next(cell.iterancestors(qn("w:tr"))) is not row:
                continue
            # a cell that is merged says again what stands above it
            is_below = cell.vMerge == "continue"
            text = above.get(len(cells), "") if is_below else _cell(cell, reader)
            above[len(cells)] = blocks.repeated(text)
            cells += [text] + [""] * (min(blocks.MAX_SPAN, max(1, cell.grid_span)) - 1)
        yield tuple(cells)


def _cell(cell: Any, reader: Reader) -> str:
    lines = (line for p in cell.iter(qn("w:p")) for line in _marked_lines(reader(p)))
    return " ".join(line for line in lines if line)


def _lines(found: Iterator[Block]) -> Iterator[Line]:
    for (kind, _), group in groupby(found, key=_kind):
        if kind == "table":
            yield from blocks.table((row.number, list(row.cells)) for row in group)
        elif kind == "code":
            yield from _fence(list(group))
        else:
            for block in group:
                yield from _paragraph(block.written, block.number) if block.written else ()


def _kind(block: Block) -> tuple[str, int]:
    """Return what a block is, and which of its kind, as tables may follow each other."""
    if block.written is None:
        return "table", id(block.table)
    return ("code" if _is_code(block.written) else "text"), 0


def _fence(rows: list[Block]) -> Iterator[Line]:
    """Yield code; a paragraph of several lines gives its number to each."""
    texts = [(_bare(row.written.paragraph), row.number) for row in rows if row.written]
    numbered = [(line, number) for text, number in texts for line in text.split("\n")]
    lines = blocks.fenced((text for text, _ in numbered), 0)
    numbers = [numbered[0][1], *(number for _, number in numbered), numbered[-1][1]]
    yield from (line._replace(number=at) for line, at in zip(lines, numbers, strict=True))


def _paragraph(written: Written, number: int) -> Iterator[Line]:
    if written.styles and written.styles[0].name.lower().startswith("toc "):
        return  # the table of contents says every heading once more
    level, depth = _level(written), _depth(written)
    if level:
        text = " ".join(_bare(written.paragraph).split())
        yield from [Line("#" * level + " " + text, number)] if text else []
        return
    texts = [text for text in _marked_lines(written) if text]
    for index, text in enumerate(texts):
        if depth is None:
            is_item = blocks.BULLET.match(text)
            yield Line(blocks.listed(text, 0) if is_item else blocks.plain(text), number)
        else:
            yield Line("  " * (depth + 1) + text if index else blocks.listed(text, depth), number)


def _marked_lines(written: Written) -> list[str]:
    """Return the lines of a paragraph, which its writer may have broken, with bold type marked."""
    lines: list[list[blocks.Run]] = [[]]
    is_bold = any(style.font.bold for style in written.styles[:1])
    for run in _runs(written.paragraph):
        kind = _is_bold(run, is_bold), bool(MONOSPACED.search(_font(run)))
        first, *more = run.text.split("\n")
        lines[-1].append(blocks.Run(first, *kind))
        lines += [[blocks.Run(text, *kind)] for text in more]
    return [blocks.marked(line) for line in lines]


def _runs(paragraph: Paragraph) -> Iterator[Run]:
    """Yield what a reader sees, also in links, content controls and accepted changes."""
    for element in paragraph._p.iter(qn("w:r")):
        outside = takewhile(lambda above: above is not paragraph._p, element.iterancestors())
        run = Run(element, paragraph)
        if not any(above.tag in ELSEWHERE for above in outside) and not run.font.hidden:
            yield run


def _bare(paragraph: Paragraph) -> str:
    return "".join(run.text for run in _runs(paragraph))


def _is_bold(run: Run, is_bold: bool) -> bool:
    if run.bold is not None:
        return bool(run.bold)
    return is_bold or (run._r.style is not None and bool(run.style.font.bold))


def _font(run: Run) -> str:
    return run.font.name or (run.style.font.name if run._r.style else "") or ""


def _styles(paragraph: Paragraph) -> tuple[Any, ...]:
    styles: list[Any] = []
    style: Any = paragraph.style
    while style is not None and style not in styles and style.name:
        styles.append(style)
        style = style.base_style
    return tuple(styles)


def _is_code(written: Written) -> bool:
    paragraph, styles = written
    if styles and (CODE.search(styles[0].name) or MONOSPACED.search(styles[0].font.name or "")):
        return bool(_bare(paragraph).strip())
    if _level(written) or _depth(written) is not None:
        return False
    runs = [run for run in _runs(paragraph) if run.text.strip()]
    return bool(runs) and all(MONOSPACED.search(_font(run)) for run in runs)


def _properties(written: Written) -> Iterator[Any]:
    """Yield what a paragraph and its styles set, the nearest first."""
    for element in (written.paragraph._p, *(style.element for style in written.styles)):
        found = element.find(qn("w:pPr"))
        if found is not None:
            yield found


def _level(written: Written) -> int:
    """Return the level of a heading, by its style or by the outline that Word shows, else 0."""
    for style in written.styles:
        heading = HEADING.fullmatch(style.name)
        if heading:
            return min(6, int(heading[1]))
        if style.name.lower() == "title":
            return 1
    for element in _properties(written):
        outline = element.find(qn("w:outlineLvl"))
        if outline is not None:
            level = int(outline.get(qn("w:val"), 9))
            return min(6, level + 1) if level < 9 else 0
    return 0


def _depth(written: Written) -> int | None:
    """Return how deep in lists a paragraph is, 0 for the outermost; None if it is in none."""
    names = (LIST.fullmatch(style.name) for style in written.styles)
    named = next((int(name[1] or 1) - 1 for name in names if name), None)
    for element in _properties(written):
        numbering = element.find(qn("w:numPr"))
        if numbering is None:
            continue
        values = {child.tag: child.get(qn("w:val"), "0") for child in numbering}
        if values.get(qn("w:numId"), "0") == "0":
            return None
        return max(named or 0, int(values.get(qn("w:ilvl"), "0")))
    return named


def _notes(document: Any) -> tuple[str, ...]:
    body, package = document.element.body, document.part.package
    kinds = [relation.reltype.rpartition("/")[2] for relation in package.iter_rels()]
    linked = [
        relation.reltype.rpartition("/")[2]
        for relation in package.iter_rels()
        if relation.is_external and not relation.reltype.endswith("/hyperlink")
    ]
    boxes = [box for box in body.iter(qn("w:txbxContent")) if not _is_fallback(box)]
    notes = not_read(
        {
            "picture": sum(1 for _ in body.iter(qn("pic:pic"), "{*}imagedata")),
            "chart": kinds.count("chart"),
            "text box": len(boxes),
            "header": sum(kind == "header" for kind in kinds),
            "footer": sum(kind == "footer" for kind in kinds),
            "comment": sum(1 for _ in body.iter(qn("w:commentReference"))),
            "footnote": sum(1 for _ in body.iter(qn("w:footnoteReference"))),
        }
    )
    if linked:
        names = ", ".join(sorted(set(linked)))
        notes += (f"{counted(len(linked), 'linked part')} ({names}) not fetched",)
    return notes


def _is_fallback(element: Any) -> bool:
    """Return whether an element says again, for an old reader, what stands beside it."""
    return any(above.tag.endswith("}Fallback") for above in element.iterancestors())

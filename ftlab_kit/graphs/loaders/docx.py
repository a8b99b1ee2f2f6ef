"""Word documents: headings and lists by their styles, bold text and tables, in document order.

Nothing that a document links to is fetched. Its unpacked size is checked before it is opened.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from itertools import count, groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from docx import Document
from docx.oxml.ns import qn
from docx.text.paragraph import Paragraph
from docx.text.run import Run

from ftlab_kit.errors import InputError, KitError
from ftlab_kit.graphs.loaders import Line, Text, blocks, plural, unread_notes

MAX_UNPACKED_BYTES = 512 * 2**20
MAX_XML_BYTES = 128 * 2**20  # a tree of XML is several times as large as its text
MAX_RATIO = 200
MAX_MEMBERS = 10_000
MIN_CHECKED_BYTES = 2**20  # smaller parts may be compressed at any ratio
OLE = b"\xd0\xcf\x11\xe0"
HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
LIST = re.compile(r"list(?: bullet| number)?(?: (\d))?", re.IGNORECASE)
CODE = re.compile(r"code|preformatted|verbatim", re.IGNORECASE)
MONOSPACED = re.compile(r"courier|consolas|mono|menlo|monaco|cascadia|fira code", re.IGNORECASE)
# text that is deleted, moved away, or drawn beside the page's text
NOT_IN_TEXT = tuple(map(qn, ("w:del", "w:moveFrom", "w:drawing", "w:pict", "w:object")))
WRAPPERS = tuple(map(qn, ("w:sdt", "w:sdtContent", "w:customXml", "w:ins", "w:moveTo")))


class StyledParagraph(NamedTuple):
    """A paragraph with its style, and the styles that this one is based on, nearest first."""

    paragraph: Paragraph
    styles: tuple[Any, ...]


class Block(NamedTuple):
    """A paragraph, or the cells of one row of a table."""

    number: int
    styled: StyledParagraph | None = None
    cells: tuple[str, ...] = ()
    table: Any = None


Reader = Callable[[Any], StyledParagraph]


def read(path: Path) -> Text:
    """Return the paragraphs and tables of a document; `number` counts paragraphs and rows from 1.

    Raises:
        InputError: The file is encrypted, broken, not a Word document, or unpacks into too much.
    """
    _check(path)
    try:
        document = Document(str(path))
        if document.element.getroottree().docinfo.doctype:
            raise ValueError("it declares entities, which no office program does")
        lines = tuple(blocks.with_blank_lines(_lines(_blocks(document))))
        return Text(lines, _notes(document))
    except (KitError, MemoryError):
        raise
    except Exception as error:  # a stranger's file can make the libraries raise anything
        raise InputError(
            f"{path} can't be read as a Word document ({error}). "
            "Open it in an office program and save it as .docx again."
        ) from error


def _check(path: Path) -> None:
    """Refuse a file that is not a package, or that unpacks into too much."""
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
            f"{path} is not a .docx, or was cut off ({error}). Download or save it again."
        ) from error
    _check_members(path, members)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    total = sum(member.file_size for member in members)
    xml = sum(m.file_size for m in members if m.filename.lower().endswith((".xml", ".rels")))
    suspect = next(
        (
            member
            for member in members
            if member.file_size > MIN_CHECKED_BYTES
            and member.file_size > MAX_RATIO * max(1, member.compress_size)
        ),
        None,
    )
    problem = ""
    if suspect is not None:
        problem = f"{suspect.filename} is compressed more than {MAX_RATIO} to 1"
    elif total > MAX_UNPACKED_BYTES or xml > MAX_XML_BYTES:
        problem = f"it unpacks into {total / 2**20:,.0f} MiB, {xml / 2**20:,.0f} MiB of it text"
    elif len(members) > MAX_MEMBERS:
        problem = f"it has {len(members):,} parts"
    if problem:
        raise InputError(
            f"{path} unpacks into too much: {problem}; expected at most "
            f"{MAX_UNPACKED_BYTES // 2**20} MiB, {MAX_XML_BYTES // 2**20} MiB of it text. "
            "If you trust it, open it in an office program, and save it in parts."
        )


def _blocks(document: Any) -> Iterator[Block]:
    """Yield paragraphs and rows of tables in order, including those in content controls."""
    numbers, reader = count(1), _reader(document)
    for element in _elements(document.element.body):
        if element.tag == qn("w:p"):
            yield Block(next(numbers), styled=reader(element))
        else:
            for cells in _rows(element, reader):
                yield Block(next(numbers), cells=cells, table=element)


def _reader(document: Any) -> Reader:
    """Return a function from an element to its paragraph, which looks up each style once."""
    styles: dict[str | None, tuple[Any, ...]] = {}

    def read_paragraph(element: Any) -> StyledParagraph:
        paragraph = Paragraph(element, document._body)
        if element.style not in styles:
            styles[element.style] = _styles(paragraph)
        return StyledParagraph(paragraph, styles[element.style])

    return read_paragraph


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
            continue  # the row of a table inside a cell; the cell has its text
        cells: list[str] = []
        for cell in row.iter(qn("w:tc")):
            if next(cell.iterancestors(qn("w:tr"))) is not row:
                continue
            # a merged cell repeats the text of the cell above
            is_below = cell.vMerge == "continue"
            text = above.get(len(cells), "") if is_below else _cell(cell, reader)
            above[len(cells)] = blocks.repeated(text)
            cells += [text] + [""] * (min(blocks.MAX_SPAN, max(1, cell.grid_span)) - 1)
        yield tuple(cells)


def _cell(cell: Any, reader: Reader) -> str:
    lines = (line for p in cell.iter(qn("w:p")) for line in _markdown_lines(reader(p)))
    return " ".join(line for line in lines if line)


def _lines(parts: Iterator[Block]) -> Iterator[Line]:
    for (kind, _), group in groupby(parts, key=_kind):
        if kind == "table":
            yield from blocks.table((row.number, list(row.cells)) for row in group)
        elif kind == "code":
            yield from _fence(list(group))
        else:
            for block in group:
                yield from _paragraph(block.styled, block.number) if block.styled else ()


def _kind(block: Block) -> tuple[str, int]:
    """Return the kind of a block, and which table it is in, as tables may follow each other."""
    if block.styled is None:
        return "table", id(block.table)
    return ("code" if _is_code(block.styled) else "text"), 0


def _fence(rows: list[Block]) -> Iterator[Line]:
    """Yield code; each line of a paragraph has the paragraph's number."""
    texts = [(_plain_text(row.styled.paragraph), row.number) for row in rows if row.styled]
    numbered = [(line, number) for text, number in texts for line in text.split("\n")]
    lines = blocks.code_block((text for text, _ in numbered), 0)
    numbers = [numbered[0][1], *(number for _, number in numbered), numbered[-1][1]]
    yield from (line._replace(number=at) for line, at in zip(lines, numbers, strict=True))


def _paragraph(styled: StyledParagraph, number: int) -> Iterator[Line]:
    if styled.styles and styled.styles[0].name.lower().startswith("toc "):
        return  # the table of contents repeats every heading
    level, depth = _level(styled), _depth(styled)
    if level:
        text = " ".join(_plain_text(styled.paragraph).split())
        yield from [Line("#" * level + " " + text, number)] if text else []
        return
    texts = [text for text in _markdown_lines(styled) if text]
    for index, text in enumerate(texts):
        if depth is None:
            is_item = blocks.BULLET.match(text)
            yield Line(blocks.list_item(text, 0) if is_item else blocks.escape(text), number)
        else:
            yield Line(
                "  " * (depth + 1) + text if index else blocks.list_item(text, depth), number
            )


def _markdown_lines(styled: StyledParagraph) -> list[str]:
    """Return the lines of a paragraph, which may have line breaks, with bold text marked."""
    lines: list[list[blocks.Run]] = [[]]
    is_bold = any(style.font.bold for style in styled.styles[:1])
    for run in _runs(styled.paragraph):
        style = _is_bold(run, is_bold), bool(MONOSPACED.search(_font(run)))
        first, *more = run.text.split("\n")
        lines[-1].append(blocks.Run(first, *style))
        lines += [[blocks.Run(text, *style)] for text in more]
    return [blocks.to_markdown(line) for line in lines]


def _runs(paragraph: Paragraph) -> Iterator[Run]:
    """Yield the runs that a reader sees, including links, content controls, accepted changes."""
    for element in paragraph._p.iter(qn("w:r")):
        outside = takewhile(lambda above: above is not paragraph._p, element.iterancestors())
        run = Run(element, paragraph)
        if not any(above.tag in NOT_IN_TEXT for above in outside) and not run.font.hidden:
            yield run


def _plain_text(paragraph: Paragraph) -> str:
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


def _is_code(styled: StyledParagraph) -> bool:
    paragraph, styles = styled
    if styles and (CODE.search(styles[0].name) or MONOSPACED.search(styles[0].font.name or "")):
        return bool(_plain_text(paragraph).strip())
    if _level(styled) or _depth(styled) is not None:
        return False
    runs = [run for run in _runs(paragraph) if run.text.strip()]
    return bool(runs) and all(MONOSPACED.search(_font(run)) for run in runs)


def _properties(styled: StyledParagraph) -> Iterator[Any]:
    """Yield the properties that a paragraph and its styles set, nearest first."""
    for element in (styled.paragraph._p, *(style.element for style in styled.styles)):
        properties = element.find(qn("w:pPr"))
        if properties is not None:
            yield properties


def _level(styled: StyledParagraph) -> int:
    """Return the level of a heading by its style or outline level, 0 if it is none."""
    for style in styled.styles:
        heading = HEADING.fullmatch(style.name)
        if heading:
            return min(6, int(heading[1]))
        if style.name.lower() == "title":
            return 1
    for element in _properties(styled):
        outline = element.find(qn("w:outlineLvl"))
        if outline is not None:
            level = int(outline.get(qn("w:val"), 9))
            return min(6, level + 1) if level < 9 else 0
    return 0


def _depth(styled: StyledParagraph) -> int | None:
    """Return a paragraph's depth in lists, 0 for the outermost, None outside a list."""
    names = (LIST.fullmatch(style.name) for style in styled.styles)
    depth_by_name = next((int(name[1] or 1) - 1 for name in names if name), None)
    for element in _properties(styled):
        numbering = element.find(qn("w:numPr"))
        if numbering is None:
            continue
        values = {child.tag: child.get(qn("w:val"), "0") for child in numbering}
        if values.get(qn("w:numId"), "0") == "0":
            return None
        return max(depth_by_name or 0, int(values.get(qn("w:ilvl"), "0")))
    return depth_by_name


def _notes(document: Any) -> tuple[str, ...]:
    body, package = document.element.body, document.part.package
    kinds = [relation.reltype.rpartition("/")[2] for relation in package.iter_rels()]
    linked = [
        relation.reltype.rpartition("/")[2]
        for relation in package.iter_rels()
        if relation.is_external and not relation.reltype.endswith("/hyperlink")
    ]
    boxes = [box for box in body.iter(qn("w:txbxContent")) if not _is_fallback(box)]
    notes = unread_notes(
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
        notes += (f"{plural(len(linked), 'linked part')} ({names}) not fetched",)
    return notes


def _is_fallback(element: Any) -> bool:
    """Return whether an element is the copy for old programs of the element beside it."""
    return any(above.tag.endswith("}Fallback") for above in element.iterancestors())

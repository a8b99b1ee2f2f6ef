"""PDF: a page is only ink, so type size, weight and position tell headings, lists and labels.

The most common size is the body's. Larger ones are headings, in order of size. Bold text is marked,
monospaced text is code, and lines that only the width of the page has broken are joined.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from math import hypot
from pathlib import Path
from typing import Any, NamedTuple

from pypdf import PasswordType, PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

from ftlab_kit.errors import InputError, KitError
from ftlab_kit.graphs.loaders import (
    MAX_PAGES,
    Line,
    Text,
    blocks,
    check_length,
    plural,
    unread_notes,
)

Matrix = list[float]
BOLD = re.compile(r"bold|black|heavy|demi", re.IGNORECASE)
MONOSPACED = re.compile(r"courier|consolas|mono|menlo|monaco|typewriter|cmtt", re.IGNORECASE)
LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\xad": ""}
)
SENTENCE_END = re.compile(r"[.!?:;]['\")\]*`»”’]*$")
PAGE_NUMBER = re.compile(r"[-–\s]*(page )?#(\s*(of|/|von|sur)\s*#)?[-–\s]*", re.IGNORECASE)
MAX_HEADING_CHARACTERS = 200
MAX_LEVELS = 6
ORDINAL = re.compile(r"\d+[.)] ")
MIN_INDENT, MAX_INDENT = 12, 120  # points from the margin to the items of a list
MAX_HANGING = 40  # points from a bullet to the second line of its item
NEAR = 4  # points within which the items of one list are aligned
COLUMN = 6  # tens of points within which lines belong to one column
# letters by width: a rough guess, good enough to tell whether a line is full
NARROW, WIDE = frozenset("iljtfrI.,;:'|!()[]/ -"), frozenset("mwMW@%")


class Piece(NamedTuple):
    """Text in one font, with its size and position in points from the page's lower left corner."""

    text: str
    x: float
    y: float
    size: float
    is_bold: bool
    is_code: bool
    is_slanted: bool


class Row(NamedTuple):
    """A line of a page, or several that were joined.

    `left`, `y` and `right` belong to the last of them; `size` is that of most characters.
    """

    runs: tuple[blocks.Run, ...]
    x: float
    left: float
    y: float
    right: float
    size: float
    page: int
    number: int


class Page(NamedTuple):
    """The content of a page."""

    rows: list[Row]
    pictures: set[Any]
    has_ink: bool
    has_stamp: bool


def read(path: Path) -> Text:
    """Return the text of a PDF. `part` is 'page 1' and so on, `number` the line on the page.

    Raises:
        InputError: The file is encrypted, broken, has too many pages, or unpacks into too much.
    """
    with _quiet(), _refusing(path):
        reader = _opened(path)
        pages = _pages(path, reader)
    rows, running_notes = _without_running_lines([page.rows for page in pages])
    notes = _notes(pages) + running_notes
    return Text(tuple(blocks.with_blank_lines(_lines(_plain_type(rows)))) if rows else (), notes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pypdf from logging every defect that it repairs."""
    log = logging.getLogger("pypdf")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn pypdf's errors into the kit's."""
    try:
        yield
    except LimitReachedError as error:
        raise InputError(
            f"{path} unpacks into too much ({error}); expected an ordinary document. "
            "If you trust it, print it into a new PDF, and load that."
        ) from error
    except DependencyError as error:
        raise InputError(
            f"{path} is encrypted with AES, which needs the package cryptography. Install it, "
            "or save the PDF without a password."
        ) from error
    except FileNotDecryptedError as error:
        raise InputError(_encrypted(path)) from error
    except (KitError, MemoryError):
        raise
    except Exception as error:  # a stranger's file can make the library raise anything
        raise InputError(
            f"{path} can't be read as a PDF ({error}); perhaps it was cut off. "
            "Download it again, or print it into a new PDF."
        ) from error


def _encrypted(path: Path) -> str:
    return (
        f"{path} is encrypted; expected a PDF that opens without a password. Save it without one."
    )


def _opened(path: Path) -> PdfReader:
    reader = PdfReader(str(path))
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise InputError(_encrypted(path))
    if len(reader.pages) > MAX_PAGES:
        raise InputError(
            f"{path} has {len(reader.pages):,} pages; expected at most {MAX_PAGES:,}. "
            "Split it, and load the parts."
        )
    return reader


def _pages(path: Path, reader: PdfReader) -> list[Page]:
    pages, n_characters = [], 0
    for number in range(1, len(reader.pages) + 1):
        page: Any = reader.pages[number - 1]
        pieces = _pieces(page)
        n_characters += sum(len(piece.text) for piece in pieces)
        check_length(path, n_characters)
        rows = _rows([piece for piece in pieces if not piece.is_slanted], number)
        has_stamp = any(piece.is_slanted and piece.text.strip() for piece in pieces)
        pages.append(Page(rows, _pictures(page), _has_ink(page), has_stamp))
    return pages


def _pieces(page: Any) -> list[Piece]:
    """Return a page's text in drawing order; a newline ends a line."""
    pieces: list[Piece] = []

    def visit(text: str, page_matrix: Matrix, matrix: Matrix, font: Any, size: float) -> None:
        a, b, c, d, x, y = _product(matrix, page_matrix)
        name = str((font or {}).get("/BaseFont", ""))
        position = x, y, round(size * hypot(c, d) * 2) / 2
        styles = bool(BOLD.search(name)), bool(MONOSPACED.search(name))
        is_slanted = min(abs(a), abs(b)) > 0.1 * hypot(a, b)
        if text:
            pieces.append(Piece(text.translate(LIGATURES), *position, *styles, is_slanted))

    page.extract_text(visitor_text=visit)
    return pieces


def _product(one: Matrix, other: Matrix) -> tuple[float, ...]:
    """Return the matrix that applies one, then the other."""
    a, b, c, d, e, f = one
    g, h, i, j, k, m = other
    return (
        a * g + b * i,
        a * h + b * j,
        c * g + d * i,
        c * h + d * j,
        e * g + f * i + k,
        (e * h + f * j + m),
    )


def _rows(pieces: list[Piece], page: int) -> list[Row]:
    rows: list[Row] = []
    line: list[Piece] = []
    for piece in [*pieces, Piece("\n", 0, 0, 0, False, False, False)]:
        for index, text in enumerate(piece.text.split("\n")):
            # an index or exponent is a little off the line; a new line is further away
            is_off = bool(text and line) and abs(piece.y - line[0].y) > 0.6 * max(
                p.size for p in line
            )
            if (index or is_off) and any(part.text.strip() for part in line):
                rows.append(_row(line, page, len(rows) + 1))
            line = [] if index or is_off else line
            line += [piece._replace(text=text)] if text else []
    return rows


def _row(pieces: list[Piece], page: int, number: int) -> Row:
    first = next(piece for piece in pieces if piece.text.strip())
    sizes: Counter[float] = Counter()
    for piece in pieces:
        sizes[piece.size] += len(piece.text.strip())
    runs = tuple(blocks.Run(piece.text, piece.is_bold, piece.is_code) for piece in pieces)
    size = sizes.most_common(1)[0][0]
    right = first.x + sum(_width(piece.text, piece.size, piece.is_bold) for piece in pieces)
    return Row(runs, first.x, first.x, first.y, right, size, page, number)


def _width(text: str, size: float, is_bold: bool) -> float:
    """Return the approximate width of a text in points, in a font like Helvetica or Times."""
    narrow, wide = sum(c in NARROW for c in text), sum(c in WIDE for c in text)
    upper = sum(c.isupper() and c not in WIDE for c in text)
    rest = len(text) - narrow - wide - upper
    return size * (1 + 0.06 * is_bold) * (0.28 * narrow + 0.85 * wide + 0.68 * upper + 0.53 * rest)


def _pictures(page: Any) -> set[Any]:
    """Return the pictures of a page, each once however often it is drawn."""
    resources = page.get("/Resources")
    drawn = (resources.get_object() if resources else {}).get("/XObject")
    objects: dict[str, Any] = dict(drawn.get_object()) if drawn else {}
    return {
        getattr(objects[name], "idnum", (id(page), name))
        for name in objects
        if objects[name].get_object().get("/Subtype") == "/Image"
    }


def _has_ink(page: Any) -> bool:
    contents = page.get_contents()
    return bool(contents and contents.get_data().strip())


def _without_running_lines(pages: list[list[Row]]) -> tuple[list[Row], tuple[str, ...]]:
    """Return the rows of all pages without repeated headers, footers and page numbers."""
    edges = [row for rows in pages for row in (rows[:1] + rows[1:][-1:])]
    counts = Counter(map(_edge, edges))
    min_pages = max(3, len(pages) / 2)
    body: list[Row] = []
    seen: set[Any] = set()
    n_dropped = 0
    for row in (row for rows in pages for row in rows):
        key = _edge(row)
        # a header is read once, on its first page; a page number never
        if counts[key] >= min_pages and (key in seen or PAGE_NUMBER.fullmatch(key[0])):
            n_dropped += 1
        else:
            body.append(row)
        seen.add(key)
    note = f"{plural(n_dropped, 'repeated header or footer line')} left out"
    return body, (note,) if n_dropped else ()


def _edge(row: Row) -> tuple[str, int]:
    return re.sub(r"\d+", "#", _text(row)), round(row.y)


def _text(row: Row) -> str:
    return " ".join("".join(run.text for run in row.runs).split())


def _plain_type(rows: list[Row]) -> list[Row]:
    """Return rows without marks for code if most of the document is monospaced."""
    code = sum(len(run.text) for row in rows for run in row.runs if run.is_code)
    if 2 * code <= sum(len(run.text) for row in rows for run in row.runs):
        return rows
    return [
        row._replace(runs=tuple(run._replace(is_code=False) for run in row.runs)) for row in rows
    ]


def _lines(rows: list[Row]) -> Iterator[Line]:
    sizes: Counter[float] = Counter()
    for row in rows:
        sizes[row.size] += len(_text(row))
    body = sizes.most_common(1)[0][0]
    joined = _joined(rows, body)
    larger = sorted({row.size for row in joined if _is_heading(row, body)}, reverse=True)
    levels = {size: min(MAX_LEVELS, level) for level, size in enumerate(larger, 1)}
    headings = {row: levels[row.size] for row in joined if _is_heading(row, body)}
    places = _indented(joined, headings)
    # a page is a part, so code is not continued on the next page
    for (is_code, _), group in groupby(joined, key=lambda row: (_is_code(row), row.page)):
        if is_code:
            yield from _fence(list(group))
        else:
            yield from _text_lines(group, headings, places)


def _text_lines(
    rows: Iterable[Row], headings: dict[Row, int], places: set[tuple[int, int]]
) -> Iterator[Line]:
    """Yield headings, items of lists and paragraphs."""
    indents: list[float] = []
    for row in rows:
        part, text = f"page {row.page}", blocks.to_markdown(row.runs)
        if row in headings:
            indents = []
            yield Line("#" * headings[row] + " " + _text(row), row.number, part)
        elif blocks.BULLET.match(text) or (_place(row) in places and not ORDINAL.match(text)):
            indents = [x for x in indents if x < row.x + NEAR]
            if not indents or indents[-1] < row.x - NEAR:
                indents.append(row.x)
            yield Line(blocks.list_item(text, len(indents) - 1), row.number, part)
        else:
            yield Line(blocks.escape(text), row.number, part)


def _indented(rows: list[Row], headings: dict[Row, int]) -> set[tuple[int, int]]:
    """Return the places, by page, where rows are indented like the items of a list.

    Browsers draw bullets as dots, not as text: then the indent is all that shows a list.
    """
    first_lines = {round(row.x) for row in rows if row.left < row.x - NEAR}
    counts = Counter(map(_place, rows))
    used = Counter(round(row.x) for row in rows)
    margins: dict[int, float] = {}
    for row in rows:
        if row in headings or counts[_place(row)] > 1:
            margins[row.page] = min(margins.get(row.page, row.x), row.x)
    return {
        (page, x)
        for page, x in counts
        if used[x] > 1
        and x not in first_lines
        and MIN_INDENT <= x - margins.get(page, x) < MAX_INDENT
    }


def _place(row: Row) -> tuple[int, int]:
    return row.page, round(row.x)


def _fence(rows: list[Row]) -> Iterator[Line]:
    """Yield lines of code, indented by their position on the page."""
    left = min(row.x for row in rows)
    texts = [
        " " * round((row.x - left) / (0.6 * row.size or 1)) + "".join(run.text for run in row.runs)
        for row in rows
    ]
    lines = blocks.code_block((text.rstrip() for text in texts), 0, part=f"page {rows[0].page}")
    numbers = [rows[0].number, *(row.number for row in rows), rows[-1].number]
    yield from (line._replace(number=at) for line, at in zip(lines, numbers, strict=True))


def _visible_runs(row: Row) -> list[blocks.Run]:
    return [run for run in row.runs if run.text.strip()]


def _is_code(row: Row) -> bool:
    return all(run.is_code for run in _visible_runs(row))


def _is_heading(row: Row, body: float) -> bool:
    """Return whether a row is larger than the body, and not a sentence in large type."""
    text = _text(row)
    is_larger = row.size > body * 1.1 or (
        row.size > body and all(run.is_bold for run in _visible_runs(row))
    )
    is_title = 1 < len(text) <= MAX_HEADING_CHARACTERS and not text.endswith((".", ",", ";"))
    return is_larger and is_title and bool(re.search(r"\w", text)) and not _is_code(row)


def _joined(rows: list[Row], body: float) -> list[Row]:
    """Return rows, with those joined that only the width of the page has broken."""
    margins: dict[int, float] = {}
    for row in rows:
        if not _is_code(row) and row.size <= body:
            column = round(row.x / 10)
            margins[column] = max(margins.get(column, 0), row.right)
    vocabulary = set(" ".join(map(_text, rows)).lower().split())
    joined: list[Row] = []
    for row in rows:
        if joined and _continues(joined[-1], row, margins):
            joined[-1] = _join(joined[-1], row, vocabulary)
        else:
            joined.append(row)
    return joined


def _continues(before: Row, row: Row, margins: dict[int, float]) -> bool:
    """Return whether a row continues the one before it."""
    text = blocks.to_markdown(row.runs)
    if before.size != row.size or blocks.BULLET.match(text) or _is_code(before) or _is_code(row):
        return False
    is_label = text.startswith("**") and not _visible_runs(before)[-1].is_bold
    if is_label or SENTENCE_END.search(_text(before)):
        return False
    is_lower = _text(row)[:1].islower()
    if row.page != before.page:
        return is_lower and row.page == before.page + 1
    if not 0 < before.y - row.y <= 1.6 * row.size or row.x > before.left + MAX_HANGING:
        return False
    column = round(before.x / 10)
    margin = max(margins.get(column + near, 0) for near in range(-COLUMN, COLUMN + 1))
    word = _width(" " + _text(row).split()[0], row.size, row.runs[0].is_bold)
    return before.right + word > 0.95 * margin or (is_lower and before.right > 0.6 * margin)


def _join(before: Row, row: Row, vocabulary: set[str]) -> Row:
    """Return two rows as one; a word that was hyphenated at the line's end is made whole."""
    last, *_ = _text(before).split()[-1:]
    first = _text(row).split()[0]
    runs, space = before.runs, [blocks.Run(" ")]
    if re.search(r"\w[-\u2010]$", last) and first[:1].islower():
        space = []
        is_word = (last[:-1] + first).lower().strip(".,;:()") in vocabulary
        end = runs[-1].text.rstrip()
        runs = (*runs[:-1], runs[-1]._replace(text=end[:-1] if is_word else end))
    return before._replace(runs=(*runs, *space, *row.runs), left=row.x, y=row.y, right=row.right)


def _notes(pages: list[Page]) -> tuple[str, ...]:
    scanned = [n for n, page in enumerate(pages, 1) if not page.rows and page.pictures]
    drawn = [
        n for n, page in enumerate(pages, 1) if not page.rows and page.has_ink and not page.pictures
    ]
    notes = unread_notes({"picture": len(set[Any]().union(*(page.pictures for page in pages)))})
    if scanned:
        notes += (f"{_named(scanned)} no text: scanned, needs OCR",)
    if drawn:
        notes += (f"{_named(drawn)} no text: drawn only",)
    if any(page.has_stamp for page in pages):
        notes += ("slanted text, such as a stamp, was not read",)
    return notes


def _named(numbers: Iterable[int]) -> str:
    """Return 'page 4 has' or 'pages 4-6, 9 have'."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    names = ", ".join(f"{s[0]}-{s[-1]}" if len(s) > 1 else str(s[0]) for s in spans)
    is_one = len(spans) == 1 and len(spans[0]) == 1
    return f"page {names} has" if is_one else f"pages {names} have"

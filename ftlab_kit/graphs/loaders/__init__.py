"""Loaders: a document in any format becomes lines of Markdown that know where they stood.

A loader is a file here with one function, `read(path) -> Text`. What a reader sees as a heading, a
list, a table or bold type is Markdown in the lines, so that one extraction reads every format. What
could not be read (a scanned page, a picture) is listed in `notes`. What must not be read (an
encrypted file, one that is too large or unpacks into too much) is refused. README.md has the table.
"""

import codecs
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ftlab_kit.errors import InputError, NotFound, nearest

MAX_BYTES = 64 * 2**20
MAX_PAGES = 2000
MAX_CHARACTERS = 20_000_000
LOADERS = {  # suffix -> module
    "md": "markdown",
    "markdown": "markdown",
    "txt": "text",
    "text": "text",
    "docx": "docx",
    "pdf": "pdf",
    "html": "html",
    "htm": "html",
    "ipynb": "notebook",
}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Line(NamedTuple):
    """One line of Markdown. `number` counts from 1 in `part` (a page, a cell), or in the file."""

    text: str
    number: int
    part: str = ""


class Text(NamedTuple):
    """A document as lines, with notes about what could not be read."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of the files that can be loaded."""
    return tuple(LOADERS)


def read(path: Path) -> Text:
    """Return a document as lines of Markdown.

    Raises:
        InputError: The format is unknown, or the file is too large, broken, encrypted or empty.
        NotFound: There is no such file.
    """
    loader = _loader(path)
    try:
        _check_size(path)
        text: Text = loader.read(path)
    except PermissionError as error:
        raise InputError(
            f"Permission to read {path} is denied. Change the file's permissions."
        ) from error
    check_length(path, sum(len(line.text) for line in text.lines))
    if not any(line.text.strip() for line in text.lines):
        raise InputError(_empty(path, is_scanned=any("OCR" in note for note in text.notes)))
    return text


def read_utf8(path: Path) -> str:
    """Return the text of a UTF-8 file, with every line end as one newline.

    Raises:
        InputError: The file is not UTF-8, or not text at all.
    """
    raw = path.read_bytes()
    if raw.startswith(UTF16):
        raise InputError(f"{path} is UTF-16; expected UTF-8. Save it as UTF-8.")
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        # the decoder did not see the byte order mark
        at = error.start + len(raw) - len(error.object)
        number = len(re.findall(rb"\r\n|\r|\n", raw[:at])) + 1
        raise InputError(
            f"{path}:{number} is not UTF-8: byte {at + 1} of the file is 0x{raw[at]:02x}. "
            "Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise InputError(f"{path} contains zero bytes; expected text. Perhaps its suffix is wrong.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_length(path: Path, n_characters: int) -> None:
    """Refuse a document that is too long.

    Raises:
        InputError: It has too many characters.
    """
    if n_characters > MAX_CHARACTERS:
        raise InputError(
            f"{path} has more than {MAX_CHARACTERS:,} characters of text; expected at "
            "most that many. Split it, and load the parts."
        )


def plural(count: int, noun: str) -> str:
    """Return '1 picture', '2 pictures' or '2,000 pictures'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def unread_notes(counts: dict[str, int]) -> tuple[str, ...]:
    """Return a note for each noun with a count: '2 pictures were not read'."""
    return tuple(
        f"{plural(count, noun)} {'was' if count == 1 else 'were'} not read"
        for noun, count in counts.items()
        if count
    )


def _loader(path: Path) -> ModuleType:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file. Load its files one by one.")
    suffix = path.suffix.lower()[1:]
    if suffix not in LOADERS:
        raise InputError(
            f"The format of {path} is unknown; expected a file that ends in one of: "
            f"{', '.join(LOADERS)}.{nearest(suffix, LOADERS)}"
        )
    return importlib.import_module(f"{__name__}.{LOADERS[suffix]}")


def _check_size(path: Path) -> None:
    if not path.exists():
        problem = "is a broken link" if path.is_symlink() else "does not exist"
        raise NotFound(f"{path} {problem}; expected a document. Check the path.")
    if not path.is_file():
        raise InputError(
            f"{path} is a pipe or a device; expected a file. Save its content to a file."
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(
            f"{path} has {size / 2**20:,.1f} MiB; expected at most {MAX_BYTES // 2**20} MiB. "
            "Split it, or remove its pictures."
        )
    if not size:
        raise InputError(_empty(path, is_scanned=False))


def _empty(path: Path, *, is_scanned: bool) -> str:
    fix = (
        "Its pages are scanned pictures: it needs OCR. Run an OCR program, and load the result"
        if is_scanned
        else "Check that it was saved, and that it is the right file"
    )
    return f"{path} contains no text. {fix}."

"""Loaders: whatever a document is written in, it becomes lines of Markdown that know their place.

A loader is a file here with one function, `read(path) -> Text`. What a reader sees as a heading, a
list, a table or bold type is so in the lines too, so that one extraction reads all forms. What
could not be read (a scanned page, a picture) is said in `notes`; what must not be read (a file that
is encrypted, too large, or unpacks into too much) is refused.
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
LOADERS = {
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
    """One line of Markdown. `number` counts from 1 within `part`: a page, a cell, else the file."""

    text: str
    number: int
    part: str = ""


class Text(NamedTuple):
    """A document as lines, with what was lost on the way."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of the files that can be read."""
    return tuple(LOADERS)


def read(path: Path) -> Text:
    """Return a document as lines of Markdown.

    Raises:
        InputError: It is of no known form, too large, broken, encrypted, or holds no text.
        NotFound: There is no such file.
    """
    loader = _loader(path)
    try:
        _check_size(path)
        text: Text = loader.read(path)
    except PermissionError as error:
        raise InputError(
            f"{path} may not be read; expected a file that you may open. Change its permissions."
        ) from error
    check_length(path, sum(len(line.text) for line in text.lines))
    if not any(line.text.strip() for line in text.lines):
        raise InputError(_empty(path, is_scanned=any("OCR" in note for note in text.notes)))
    return text


def decoded(path: Path) -> str:
    """Return the text of a UTF-8 file, its line ends all written as one newline.

    Raises:
        InputError: It is not UTF-8, or not text at all.
    """
    raw = path.read_bytes()
    if raw.startswith(UTF16):
        raise InputError(f"{path} is UTF-16; expected UTF-8. Save it as UTF-8.")
    try:
        text = raw.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        # the byte order mark is no part of what was decoded
        at = error.start + len(raw) - len(error.object)
        number = len(re.findall(rb"\r\n|\r|\n", raw[:at])) + 1
        raise InputError(
            f"{path}:{number} is not UTF-8: byte {at + 1} of the file is 0x{raw[at]:02x}. "
            "Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise InputError(f"{path} holds zero bytes; expected text. Perhaps its suffix is wrong.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_length(path: Path, characters: int) -> None:
    """Refuse what is longer than a document may be.

    Raises:
        InputError: It is.
    """
    if characters > MAX_CHARACTERS:
        raise InputError(
            f"{path} has more than {MAX_CHARACTERS:,} characters of text; expected no more. "
            "Split it, and add the parts."
        )


def counted(number: int, what: str) -> str:
    """Return '1 picture', '2 pictures' or '2,000 pictures'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def not_read(counts: dict[str, int]) -> tuple[str, ...]:
    """Return a note for each thing of which there is some: '2 pictures were not read'."""
    return tuple(
        f"{counted(count, what)} {'was' if count == 1 else 'were'} not read"
        for what, count in counts.items()
        if count
    )


def _loader(path: Path) -> ModuleType:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file. Give its files one by one.")
    suffix = path.suffix.lower()[1:]
    if suffix not in LOADERS:
        raise InputError(
            f"{path} is of no known form; expected a file that ends in one of: "
            f"{', '.join(LOADERS)}.{nearest(suffix, LOADERS)}"
        )
    return importlib.import_module(f"{__name__}.{LOADERS[suffix]}")


def _check_size(path: Path) -> None:
    if not path.exists():
        why = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise NotFound(f"{path} {why}; expected a document. Check the path.")
    if not path.is_file():
        raise InputError(f"{path} is a pipe or a device; expected a file. Save it to a file.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(
            f"{path} has {size / 2**20:,.1f} MiB; expected at most {MAX_BYTES // 2**20} MiB. "
            "Split it, or take its pictures out."
        )
    if not size:
        raise InputError(_empty(path, is_scanned=False))


def _empty(path: Path, *, is_scanned: bool) -> str:
    cure = (
        "Its pages are scanned pictures: it needs OCR. Run an OCR program on it, and add the result"
        if is_scanned
        else "Check that it was saved, and that it is the right file"
    )
    return f"{path} holds no text; expected some. {cure}."

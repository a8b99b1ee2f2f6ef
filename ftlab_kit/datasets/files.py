"""Where rows come from: a file of any kind that people have, a folder, a data frame, a hub.

Whatever it is, it is read once from front to back, in bounded memory. What a file is packed with is
told by its first bytes, what kind of rows it holds by its name.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ftlab_kit.datasets import tables
from ftlab_kit.datasets.lines import BLOCK, Block, Line, Stream, rows_in_lines, rows_of_json
from ftlab_kit.errors import InputError

COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
ARCHIVES = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a rar archive"}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")

Reader = Callable[[Any], Iterator[Line | Block]]


class Frame(Protocol):
    """A pandas data frame, as far as it is used here."""

    iloc: Any

    def __len__(self) -> int:
        """Return the number of rows."""


@dataclass
class Source:
    """What can be read, as often as wanted.

    Attributes:
        label: What it is called in messages.
        parts: Yields every row, or whole blocks of lines; tells how far it is, from 0 to 1, where
            that is known.
        skipped: Files of a folder that hold no rows.
    """

    label: str
    parts: Callable[[Callable[[float], None]], Iterator[Line | Block]]
    skipped: tuple[str, ...] = ()

    def lines(self) -> Iterator[Line]:
        """Yield every row by itself."""
        for part in self.parts(lambda share: None):
            if isinstance(part, Block):
                yield from part.lines()
            else:
                yield part


def source(given: "str | Path | Frame") -> Source:
    """Return what a path, a hub name or a data frame stands for.

    Raises:
        InputError: It does not exist, is an archive, or a folder without any rows.
    """
    if not isinstance(given, str | Path):
        return Source("data frame", lambda tell: tables.rows_of(None, tables.slices(given)))
    path = Path(given).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return Source(str(given), lambda tell: _read(path, None, tell))
    if isinstance(given, str) and HUB_NAME.fullmatch(given) and path.suffix[1:] not in SUFFIXES:
        return Source(given, lambda tell: tables.rows_of(None, tables.hub(given)))
    raise InputError(
        f"{path} does not exist; expected a file of rows, a folder of such files, or the name of a "
        "dataset on the hub, such as openai/gsm8k:main:train. Check the path."
    )


def _folder(path: Path) -> Source:
    root = path.resolve()
    files: list[str] = []
    skipped: list[str] = []
    for item in sorted(path.rglob("*")):
        name = str(item.relative_to(path))
        if not item.resolve().is_relative_to(root):
            raise InputError(
                f"{item} leads out of the folder {path}; expected files that lie in it. "
                "Take the link away, or copy what it points to."
            )
        if item.is_file():
            (files if _suffix(item) in SUFFIXES else skipped).append(name)
    if not files:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{path} is a folder without any rows; expected files of: {known}.")

    def parts(tell: Callable[[float], None]) -> Iterator[Line | Block]:
        for index, name in enumerate(files):
            yield from _read(path / name, name, _part(tell, index, len(files)))

    return Source(str(path), parts, tuple(skipped))


def _part(tell: Callable[[float], None], index: int, count: int) -> Callable[[float], None]:
    return lambda share: tell((index + share) / count)


def _suffix(path: Path) -> str:
    """Return what kind of rows a file has by its name, without what it is packed with."""
    packed = path.suffix.lower() in (".gz", ".zst")
    return (path.with_suffix("") if packed else path).suffix.lower()[1:]


def _read(path: Path, file: str | None, tell: Callable[[float], None]) -> Iterator[Line | Block]:
    """Yield the rows of a file, whatever kind it is."""
    with path.open("rb") as begin:
        head = begin.read(8)
    packing = next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None)
    if packing is None:
        _refuse(path, head)
    if head.startswith(b"PAR1"):
        yield from tables.rows_of(file, tables.parquet(path))
        return
    size = max(1, path.stat().st_size)
    with path.open("rb", buffering=0) as opened:
        stream = _unpacked(path, opened, packing) if packing is not None else opened
        watched = _Watched(stream, lambda: tell(opened.tell() / size))
        reader: Reader = READERS.get(_suffix(path), rows_in_lines)
        for part in reader(watched):
            yield part._replace(file=file)


def _unpacked(path: Path, opened: Stream, packing: str) -> Stream:
    stream = _Unpacked(path, opened, packing)
    begin = stream.peek()
    if begin[257:262] == b"ustar":
        raise InputError(_archive(path, "a tar archive"))
    _refuse(path, begin[:8])
    return stream


def _refuse(path: Path, head: bytes) -> None:
    for magic, what in ARCHIVES.items():
        if head.startswith(magic):
            raise InputError(_archive(path, what))
    if head.startswith(UTF16):
        raise InputError(f"{path} is UTF-16; expected UTF-8. Save it as UTF-8.")


def _archive(path: Path, what: str) -> str:
    return (
        f"{path} is {what}; expected a file of rows, alone or packed with gzip or zstd. "
        "Unpack it into a folder, and give the folder."
    )


class _Unpacked:
    """The bytes of a packed file; damage is said in words."""

    def __init__(self, path: Path, opened: Any, packing: str) -> None:
        import pyarrow

        self._path = path
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(opened, "r"), packing)
        self._begin = b""

    def peek(self) -> bytes:
        """Return the first bytes, which are read again."""
        self._begin = self.read(512)
        return self._begin

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""
        if self._begin:
            begin, self._begin = self._begin, b""
            return begin
        try:
            return bytes(self._stream.read(size))
        except OSError as error:
            raise InputError(
                f"{self._path} can't be unpacked ({error}); perhaps it was cut off. "
                "Fetch it again, or unpack it yourself and see how far that goes."
            ) from error


class _Watched(io.RawIOBase):
    """Bytes that say how far one is whenever some were read."""

    def __init__(self, stream: Stream, tell: Callable[[], None]) -> None:
        self._stream, self._tell = stream, tell

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self._tell()
        return self._stream.read(size if size > 0 else BLOCK)

    def readinto(self, buffer: Any, /) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


READERS: dict[str, Reader] = {
    "jsonl": rows_in_lines,
    "ndjson": rows_in_lines,
    "json": rows_of_json,
    "csv": tables.separated(","),
    "tsv": tables.separated("\t"),
}
SUFFIXES = (*READERS, "parquet")

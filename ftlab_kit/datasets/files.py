"""Sources of rows: a file, a folder of files, a data frame, or a dataset on the hub.

Each is read from front to back in bounded memory. A file's compression is recognised by its first
bytes, its format by its name.
"""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ftlab_kit.datasets import tables
from ftlab_kit.datasets.lines import (
    BLOCK_BYTES,
    Block,
    Line,
    Stream,
    rows_in_lines,
    rows_of_json,
)
from ftlab_kit.errors import InputError

COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
ARCHIVES = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a rar archive"}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")

Reader = Callable[[Any], Iterator[Line | Block]]
OnShare = Callable[[float], None]  # called with the share of a source that was read, from 0 to 1


class Frame(Protocol):
    """A pandas data frame, as far as it is used here."""

    iloc: Any

    def __len__(self) -> int:
        """Return the number of rows."""


@dataclass
class Source:
    """Something that rows can be read from, any number of times.

    Attributes:
        label: Its name in messages.
        parts: Yields single rows, or blocks of lines; calls its argument with the share that was
            read, where that can be known.
        skipped: Files of a folder that hold no rows.
    """

    label: str
    parts: Callable[[OnShare], Iterator[Line | Block]]
    skipped: tuple[str, ...] = ()

    def lines(self) -> Iterator[Line]:
        """Yield every row by itself."""
        for part in self.parts(lambda share: None):
            if isinstance(part, Block):
                yield from part.lines()
            else:
                yield part


def source(origin: "str | Path | Frame") -> Source:
    """Return the source that a path, a hub name or a data frame stands for.

    Raises:
        InputError: It does not exist, is an archive, or is a folder without any rows.
    """
    if not isinstance(origin, str | Path):
        return Source("data frame", lambda on_share: tables.rows_of(None, tables.slices(origin)))
    path = Path(origin).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return Source(str(origin), lambda on_share: _read(path, None, on_share))
    if isinstance(origin, str) and HUB_NAME.fullmatch(origin) and path.suffix[1:] not in SUFFIXES:
        return Source(origin, lambda on_share: tables.rows_of(None, tables.hub(origin)))
    raise InputError(
        f"{path} does not exist; expected a file of rows, a folder of such files, or the name of a "
        "dataset on the hub, such as openai/gsm8k:main:train. Check the path."
    )


def _folder(path: Path) -> Source:
    root = path.resolve()
    files: list[str] = []
    skipped: list[str] = []
    for child in sorted(path.rglob("*")):
        name = str(child.relative_to(path))
        if not child.resolve().is_relative_to(root):
            raise InputError(
                f"{child} links to a place outside the folder {path}; expected files inside it. "
                "Remove the link, or copy its target into the folder."
            )
        if child.is_file():
            (files if _suffix(child) in SUFFIXES else skipped).append(name)
    if not files:
        suffixes = ", ".join(SUFFIXES)
        raise InputError(f"{path} is a folder without any rows; expected files of: {suffixes}.")

    def parts(on_share: OnShare) -> Iterator[Line | Block]:
        for index, name in enumerate(files):
            yield from _read(path / name, name, _of_file(on_share, index, len(files)))

    return Source(str(path), parts, tuple(skipped))


def _of_file(on_share: OnShare, index: int, count: int) -> OnShare:
    """Return a callback that turns the share of one file into the share of its folder."""
    return lambda share: on_share((index + share) / count)


def _suffix(path: Path) -> str:
    """Return a file's suffix without that of its compression: 'jsonl' for rows.jsonl.gz."""
    is_packed = path.suffix.lower() in (".gz", ".zst")
    return (path.with_suffix("") if is_packed else path).suffix.lower()[1:]


def _read(path: Path, name: str | None, on_share: OnShare) -> Iterator[Line | Block]:
    """Yield the rows of a file, whatever its format.

    Args:
        name: The file's name within its folder; None for a file that is the whole source.
    """
    with path.open("rb") as file:
        head = file.read(8)
    packing = next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None)
    if packing is None:
        _refuse_archives(path, head)
    if head.startswith(b"PAR1"):
        yield from tables.rows_of(name, tables.parquet(path))
        return
    size = max(1, path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        stream = _unpacked(path, file, packing) if packing is not None else file
        watched = _Watched(stream, lambda: on_share(file.tell() / size))
        reader: Reader = READERS.get(_suffix(path), rows_in_lines)
        for part in reader(watched):
            yield part._replace(file=name)


def _unpacked(path: Path, file: Stream, packing: str) -> Stream:
    stream = _Unpacked(path, file, packing)
    head = stream.peek()
    if head[257:262] == b"ustar":
        raise InputError(_archive_message(path, "a tar archive"))
    _refuse_archives(path, head[:8])
    return stream


def _refuse_archives(path: Path, head: bytes) -> None:
    for magic, archive in ARCHIVES.items():
        if head.startswith(magic):
            raise InputError(_archive_message(path, archive))
    if head.startswith(UTF16):
        raise InputError(f"{path} is UTF-16; expected UTF-8. Save it as UTF-8.")


def _archive_message(path: Path, archive: str) -> str:
    return (
        f"{path} is {archive}; expected a file of rows, alone or packed with gzip or zstd. "
        "Unpack it into a folder, and give the folder."
    )


class _Unpacked:
    """The bytes of a compressed file; damage becomes an error of the kit."""

    def __init__(self, path: Path, file: Any, packing: str) -> None:
        import pyarrow

        self._path = path
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), packing)
        self._head = b""

    def peek(self) -> bytes:
        """Return the first bytes, which `read` then returns again."""
        self._head = self.read(512)
        return self._head

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""
        if self._head:
            head, self._head = self._head, b""
            return head
        try:
            return bytes(self._stream.read(size))
        except OSError as error:
            raise InputError(
                f"{self._path} can't be unpacked ({error}); perhaps it was cut off. "
                "Fetch it again, or unpack it yourself and see how far that goes."
            ) from error


class _Watched(io.RawIOBase):
    """Bytes of a stream, with a callback before every read."""

    def __init__(self, stream: Stream, on_read: Callable[[], None]) -> None:
        self._stream, self._on_read = stream, on_read

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self._on_read()
        return self._stream.read(size if size > 0 else BLOCK_BYTES)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


READERS: dict[str, Reader] = {
    "jsonl": rows_in_lines,
    "ndjson": rows_in_lines,
    "json": rows_of_json,
    "csv": tables.separated(","),
    "tsv": tables.separated("\t"),
}
SUFFIXES = (*READERS, "parquet")

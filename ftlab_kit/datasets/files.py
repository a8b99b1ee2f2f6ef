"""Where rows come from: a file of any kind that people have, a folder of them, a data frame, a hub.

Whatever it is, it is read once from front to back, in bounded memory, and every row comes with its
number and its bytes, or with what is wrong with it.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ftlab_kit.datasets.strict import ENCODE, Fault, decode
from ftlab_kit.errors import InputError, NotFound, Unavailable

BLOCK = 2**16
BEGINNING = 2**20  # bytes of a row that are set aside, where it is too long
SHOWS = 20  # lines that show whether a .json file has a row in each
LONGEST = 8 * 2**20  # bytes of a row; what they decode to is up to fifty times as large
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
ARCHIVES = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a rar archive"}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")


class Frame(Protocol):
    """A pandas data frame, as far as it is used here."""

    iloc: Any

    def __len__(self) -> int:
        """Return the number of rows."""


class Line(NamedTuple):
    """A row of a source: where it stands, its bytes, and its value or its fault.

    `number` is the line's where there are lines, else the row's; both count from 1.
    """

    file: str | None
    number: int
    raw: bytes
    value: Any
    fault: Fault | None


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""


class Block(NamedTuple):
    """Whole lines of a file of JSON lines, as they are, and the number of the first."""

    file: str | None
    number: int
    raw: bytes

    def lines(self) -> Iterator[Line]:
        """Yield the lines that are not blank, each with its value or its fault."""
        for number, raw in enumerate(self.raw.split(b"\n"), self.number):
            raw = raw.strip()
            if raw:
                yield Line(self.file, number, raw, *decode(raw))


Reader = Callable[[Any], Iterator[Line | Block]]


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
        return Source("data frame", lambda tell: _tables(None, _slices(given)))
    path = Path(given).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return Source(str(given), lambda tell: _read(path, None, tell))
    if isinstance(given, str) and HUB_NAME.fullmatch(given) and path.suffix[1:] not in SUFFIXES:
        return Source(given, lambda tell: _tables(None, _hub(given)))
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
        yield from _tables(file, _parquet(path))
        return
    size = max(1, path.stat().st_size)
    with path.open("rb", buffering=0) as opened:
        stream = _unpacked(path, opened, packing) if packing is not None else opened
        watched = _Watched(stream, lambda: tell(opened.tell() / size))
        reader: Reader = READERS.get(_suffix(path), _json_lines)
        for part in reader(watched):
            yield _placed(part, file)


def _unpacked(path: Path, opened: Stream, packing: str) -> Stream:
    stream = _Unpacked(path, opened, packing)
    begin = stream.peek()
    if begin[257:262] == b"ustar":
        raise InputError(_archive(path, "a tar archive"))
    _refuse(path, begin[:8])
    return stream


def _placed(part: Line | Block, file: str | None) -> Line | Block:
    if isinstance(part, Block):
        return part._replace(file=file)
    return part._replace(file=file)


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


def _json_lines(stream: Stream) -> Iterator[Line | Block]:
    """Yield whole lines, as many as come at once; of one that is too long, its beginning."""
    number, rest, is_long = 1, b"", False
    while block := stream.read(BLOCK):
        if number == 1 and not rest:
            block = block.removeprefix(codecs.BOM_UTF8)
        end = block.rfind(b"\n") + 1
        if not end:
            rest = rest if is_long else rest + block
            is_long = len(rest) > LONGEST
            continue
        whole, rest = rest + block[:end], block[end:]
        if is_long:
            first, _, whole = whole.partition(b"\n")
            yield _too_long(number, first)
            number, is_long = number + 1, False
        if whole:
            yield Block(None, number, whole)
            number += whole.count(b"\n")
    if rest:
        yield _too_long(number, rest) if is_long else Block(None, number, rest)


def _too_long(number: int, raw: bytes) -> Line:
    found = f"longer than {LONGEST // 2**20} MiB, of which the beginning is set aside"
    cure = "Part the file's rows by line ends; a row this long is none."
    return Line(None, number, raw[:BEGINNING], None, Fault("line", found, "one row", cure))


def _json(stream: Stream) -> Iterator[Line | Block]:
    """Yield the rows of a .json file: one array of them, or one after the other."""
    begin = stream.read(BEGINNING)
    head = begin.removeprefix(codecs.BOM_UTF8).strip()
    lines = head.split(b"\n")[:SHOWS]
    looks = lines[:1] if head.startswith(b"[") else lines
    is_lines = len(lines) > 1 and any(decode(line.strip())[1] is None for line in looks)
    both = _Chained(begin, stream)
    yield from (_json_lines(both) if is_lines else _values(both))


class _Chained:
    """Bytes that were read already, then the rest."""

    def __init__(self, begin: bytes, stream: Stream) -> None:
        self._begin, self._stream = begin, stream

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes, none at the end."""
        if self._begin:
            found, self._begin = self._begin[:size], self._begin[size:]
            return found
        return self._stream.read(size)


def _values(stream: Stream) -> Iterator[Line]:
    """Yield JSON values that stand in an array or one after the other, however they are broken.

    After one that can't be read nothing can be told apart, and the rest is one fault.
    """
    text = _Text(stream)
    is_open = text.peek() == "["
    text.at += is_open
    is_closed = False
    while first := text.peek():
        if is_open and first == "]":
            is_open, is_closed = False, True
            text.at += 1
            continue
        end = None if is_closed else text.end()
        raw = text.buffer[text.at : end].strip().encode("utf-8", "surrogateescape")
        value, fault = decode(raw)
        if is_closed:
            cure = "Put all rows in one array."
            fault = Fault("line", "more after the array", "nothing after the array", cure)
        yield Line(None, text.line, raw[:LONGEST], value, fault)
        if end is None:
            return
        text.go(end)
    if is_open:
        fault = Fault("line", "no end", "a closing ]", "Fetch the file again.")
        yield Line(None, text.line, b"", None, fault)


class _Text:
    """Text that is read when it is wanted, and the place in it where one is."""

    _space = re.compile(r"[\s,]*")
    _scan = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._is_over = False
        self.buffer, self.at, self.line = "", 0, 1

    def peek(self) -> str:
        """Go to the next value or bracket, and return its first letter; nothing at the end."""
        while True:
            space = self._space.match(self.buffer, self.at)
            assert space is not None
            self.go(space.end())
            if self.at < len(self.buffer) or self._is_over:
                return self.buffer[self.at : self.at + 1]
            self._more()

    def end(self) -> int | None:
        """Return where the value ends at which one is; None if it can't be read."""
        while True:
            try:
                _, end = self._scan(self.buffer, self.at)
            except (ValueError, RecursionError):
                end = len(self.buffer) + 1
            # what ends with the buffer may go on
            if end < len(self.buffer) or self._is_over or len(self.buffer) - self.at > LONGEST:
                return end if end <= len(self.buffer) else None
            self._more()

    def go(self, place: int) -> None:
        """Go on to a place of the buffer."""
        self.line += self.buffer.count("\n", self.at, place)
        self.at = place

    def _more(self) -> None:
        rest = self.buffer[self.at :]
        block = self._stream.read(max(BEGINNING, len(rest)))
        self._is_over = not block
        self.buffer, self.at = rest + self._decoder.decode(block, final=self._is_over), 0


def _table(delimiter: str) -> Callable[[Stream], Iterator[Line]]:
    def read(stream: Any) -> Iterator[Line]:
        csv.field_size_limit(LONGEST)
        text = io.TextIOWrapper(
            io.BufferedReader(stream, BEGINNING),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        )
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        names: list[str] | None = None
        while True:
            number = rows.line_num + 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                cure = "Close every quote, and double the quotes inside one."
                yield Line(
                    None, number, b"", None, Fault("line", f"no row ({error})", "cells", cure)
                )
                continue
            if cells is None:
                return
            if not cells:
                continue
            if names is None:
                names = cells
                continue
            yield Line(None, number, *_row(names, cells))

    return read


def _row(names: list[str], cells: list[str]) -> tuple[bytes, Any, Fault | None]:
    value = {name: cell for name, cell in zip(names, cells, strict=False) if name or cell}
    try:
        raw = ENCODE(value if len(cells) == len(names) else cells)
    except UnicodeEncodeError:
        raw = json.dumps(cells).encode()
        return raw, None, Fault("line", "no UTF-8", "text in UTF-8", "Save the file as UTF-8.")
    if len(cells) != len(names):
        found, cure = f"{len(cells)} cells", "Quote cells that hold commas or line ends."
        return raw, None, Fault("line", found, f"{len(names)}, as in the first line", cure)
    if "" in value:  # an empty cell there is what a spreadsheet leaves behind
        cure = "Name every column in the first line, or empty those that have no name."
        return raw, None, Fault("line", "a cell in a column without a name", "a name", cure)
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        return raw, None, Fault(twice, "a column twice", "every column once", "Rename one.")
    return raw, value, None


def _tables(file: str | None, tables: Iterator[Any]) -> Iterator[Line]:
    """Yield the rows of Arrow tables."""
    number = 0
    for table in tables:
        for value in table.to_pylist():
            number += 1
            try:
                raw = ENCODE(value)
            except (TypeError, ValueError, RecursionError) as error:
                cure = "Keep text, numbers and lists of them."
                fault = Fault("row", f"nothing that JSON has ({error})", "JSON values", cure)
                yield Line(file, number, repr(value)[:BEGINNING].encode(), None, fault)
                continue
            yield Line(file, number, raw, value, None)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import parquet

    try:
        yield from parquet.ParquetFile(path).iter_batches(batch_size=1000)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} can't be read as Parquet ({error}); perhaps it was cut off. Fetch it again."
        ) from error


def _slices(frame: Any) -> Iterator[Any]:
    import pyarrow

    for start in range(0, len(frame), 1000):
        try:
            yield pyarrow.Table.from_pandas(frame.iloc[start : start + 1000], preserve_index=False)
        except pyarrow.ArrowException as error:
            raise InputError(
                f"The data frame has a column of mixed kinds ({error}); expected one kind a "
                "column. Turn it into text, or leave it out."
            ) from error


def _hub(name: str) -> Iterator[Any]:
    """Yield a dataset of the Hugging Face hub: `owner/name`, `:split`, or `:config:split`."""
    from datasets import DatasetDict, disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import OfflineModeIsEnabled

    repo, *rest = name.split(":")
    config, split = rest[0] if len(rest) == 2 else None, rest[-1] if rest else None
    disable_progress_bars()
    try:
        found = load_dataset(repo, config, split=split)
    except (DatasetNotFoundError, ValueError) as error:
        raise NotFound(
            f"{name} is neither a path here nor a dataset of the hub ({error}). "
            "Give owner/name, owner/name:split or owner/name:config:split."
        ) from error
    except (OSError, OfflineModeIsEnabled) as error:
        raise Unavailable(
            f"{name} is no path here, and the hub can't be reached ({error}). "
            "Check the path or the network, or give a file."
        ) from error
    if isinstance(found, DatasetDict):
        if "train" not in found:
            splits = ", ".join(found)
            raise InputError(f"{repo} has the splits {splits}; name one: {repo}:{[*found][0]}.")
        found = found["train"]
    for start in range(0, len(found), 1000):
        yield found.with_format("arrow")[start : start + 1000]


READERS: dict[str, Reader] = {
    "jsonl": _json_lines,
    "ndjson": _json_lines,
    "json": _json,
    "csv": _table(","),
    "tsv": _table("\t"),
}
SUFFIXES = (*READERS, "parquet")

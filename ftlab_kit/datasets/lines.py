"""JSON files: one row a line, one array, or one value after the other, over any number of lines.

Every row comes with the line on which it begins and its bytes, and with its value or its fault.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from ftlab_kit.datasets.json_strict import Fault, decode

BLOCK_BYTES = 2**16
HEAD_BYTES = 2**20  # what is set aside of a row that is too long
SNIFFED_LINES = 20  # lines that show whether a .json file has a row in each
MAX_ROW_BYTES = 8 * 2**20  # its decoded value takes up to fifty times as much


class Line(NamedTuple):
    """A row of a source: its place, its bytes, and its value or its fault.

    `number` is the line number where the source has lines, else the row's; both count from 1.
    """

    file: str | None
    number: int
    raw: bytes
    value: Any
    fault: Fault | None


class Stream(Protocol):
    """Bytes that can be read in order."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class Block(NamedTuple):
    """Whole lines of a JSONL file, unparsed, and the number of the first."""

    file: str | None
    number: int
    raw: bytes

    def lines(self) -> Iterator[Line]:
        """Yield the lines that are not blank, each with its value or its fault."""
        for number, raw in enumerate(self.raw.split(b"\n"), self.number):
            raw = raw.strip()
            if raw:
                yield Line(self.file, number, raw, *decode(raw))


def rows_in_lines(stream: Stream) -> Iterator[Line | Block]:
    """Yield blocks of whole lines; of a line that is too long, only its beginning."""
    number, rest, is_long = 1, b"", False
    while block := stream.read(BLOCK_BYTES):
        if number == 1 and not rest:
            block = block.removeprefix(codecs.BOM_UTF8)
        end = block.rfind(b"\n") + 1
        if not end:
            rest = rest if is_long else rest + block
            is_long = len(rest) > MAX_ROW_BYTES
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
    got = f"longer than {MAX_ROW_BYTES // 2**20} MiB; only its beginning is set aside"
    fix = "Separate the file's rows by line ends; a row this long can't be used."
    return Line(None, number, raw[:HEAD_BYTES], None, Fault("line", got, "one row", fix))


def rows_of_json(stream: Stream) -> Iterator[Line | Block]:
    """Yield the rows of a .json file: one array of them, or one after the other."""
    start = stream.read(HEAD_BYTES)
    head = start.removeprefix(codecs.BOM_UTF8).strip()
    lines = head.split(b"\n")[:SNIFFED_LINES]
    candidates = lines[:1] if head.startswith(b"[") else lines
    is_lines = len(lines) > 1 and any(
        isinstance(decode(line.strip())[0], dict | list) for line in candidates
    )
    whole = _Chained(start, stream)
    yield from (rows_in_lines(whole) if is_lines else _values(whole))


class _Chained:
    """Bytes that were read already, then the rest of their stream."""

    def __init__(self, start: bytes, stream: Stream) -> None:
        self._start, self._stream = start, stream

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""
        if self._start:
            part, self._start = self._start[:size], self._start[size:]
            return part
        return self._stream.read(size)


def _values(stream: Stream) -> Iterator[Line]:
    """Yield JSON values that stand in an array or one after the other, over any number of lines.

    After a value that can't be parsed, no value boundary is certain: the rest becomes one fault.
    """
    text = _Text(stream)
    is_open = text.peek() == "["
    text.position += is_open
    is_closed = False
    while first := text.peek():
        if is_open and first == "]":
            is_open, is_closed = False, True
            text.position += 1
            continue
        end = None if is_closed else text.end()
        raw = text.buffer[text.position : end].strip().encode("utf-8", "surrogateescape")
        value, fault = decode(raw)
        if is_closed:
            fix = "Put all rows into one array."
            fault = Fault("line", "more after the array", "nothing after the array", fix)
        elif end is None:
            got = f"{fault.got if fault else 'not valid JSON'}; what comes after it was not read"
            fix = "Correct it and read the file again, or write one row a line."
            fault = Fault("line", got, "JSON values", fix)
        yield Line(None, text.line, raw[:MAX_ROW_BYTES], value, fault)
        if end is None:
            return
        text.move_to(end)
    if is_open:
        fault = Fault("line", "no end", "a closing ]", "Fetch the file again.")
        yield Line(None, text.line, b"", None, fault)


class _Text:
    """Text that is read on demand, with the current position and line."""

    _space = re.compile(r"[\s,]*")
    _scan = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._is_at_end = False
        self.buffer, self.position, self.line = "", 0, 1

    def peek(self) -> str:
        """Move to the next value or bracket, and return its first character; '' at the end."""
        while True:
            space = self._space.match(self.buffer, self.position)
            self.move_to(space.end() if space else self.position)
            if self.position < len(self.buffer) or self._is_at_end:
                return self.buffer[self.position : self.position + 1]
            self._read_more()

    def end(self) -> int | None:
        """Return where the current value ends; None if it can't be parsed."""
        while True:
            try:
                _, end = self._scan(self.buffer, self.position)
            except (ValueError, RecursionError):
                end = len(self.buffer) + 1
            # a value that ends with the buffer may continue beyond it
            size = len(self.buffer) - self.position
            if end < len(self.buffer) or self._is_at_end or size > MAX_ROW_BYTES:
                return end if end <= len(self.buffer) else None
            self._read_more()

    def move_to(self, position: int) -> None:
        """Move forward to a position in the buffer."""
        self.line += self.buffer.count("\n", self.position, position)
        self.position = position

    def _read_more(self) -> None:
        rest = self.buffer[self.position :]
        block = self._stream.read(max(HEAD_BYTES, len(rest)))
        self._is_at_end = not block
        self.buffer = rest + self._decoder.decode(block, final=self._is_at_end)
        self.position = 0

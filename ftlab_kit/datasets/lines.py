"""JSON in files: a row a line, an array, or one value after the other, however they are broken.

Every row comes with the line on which it begins and its bytes, or with what is wrong with it.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from ftlab_kit.datasets.json_strict import Fault, decode

BLOCK = 2**16
BEGINNING = 2**20  # bytes of a row that are set aside, where it is too long
SHOWS = 20  # lines that show whether a .json file has a row in each
LONGEST = 8 * 2**20  # bytes of a row; what they decode to is up to fifty times as large


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


def rows_in_lines(stream: Stream) -> Iterator[Line | Block]:
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


def rows_of_json(stream: Stream) -> Iterator[Line | Block]:
    """Yield the rows of a .json file: one array of them, or one after the other."""
    begin = stream.read(BEGINNING)
    head = begin.removeprefix(codecs.BOM_UTF8).strip()
    lines = head.split(b"\n")[:SHOWS]
    looks = lines[:1] if head.startswith(b"[") else lines
    is_lines = len(lines) > 1 and any(
        isinstance(decode(line.strip())[0], dict | list) for line in looks
    )
    both = _Chained(begin, stream)
    yield from (rows_in_lines(both) if is_lines else _values(both))


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
        elif end is None:
            found = f"{fault.got if fault else 'no JSON'}; what comes after it was not read"
            cure = "Mend it and read the file again, or write one row a line."
            fault = Fault("line", found, "JSON values", cure)
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

"""Reads a source and separates good rows from bad ones: what `validate` and `add` share.

A source is read twice: its first rows for the format that most of them have, then every row
against that format.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ftlab_kit.datasets import formats, schema
from ftlab_kit.datasets.files import Source
from ftlab_kit.datasets.formats import RowError
from ftlab_kit.datasets.json_strict import Fault, is_too_deep, too_deep
from ftlab_kit.datasets.lines import Line
from ftlab_kit.datasets.schema import CHAT_EXAMPLE, Row
from ftlab_kit.errors import DataError
from ftlab_kit.records import OnProgress, Problem, Progress

SNIFFED_ROWS = 1000  # rows that show a source's format
REPORT_EVERY = 0.01  # share of a source between two calls of on_progress
EXCERPT_BYTES = 1000  # what a problem quotes of its line
SHOWN = 5  # problems named in an error


class RowBlock(NamedTuple):
    """A part of a source: its bytes, and its normalised rows or the problem that refuses it.

    The rows are meant for an encoder: dicts, or objects with the same fields.
    """

    raw: bytes
    rows: Sequence[Any]
    problem: Problem | None


class RowReader:
    """A source with the format of its rows; counts the good and the refused ones."""

    def __init__(self, source: Source, columns: Mapping[str, str] | None = None) -> None:
        """Read the first rows to detect the format.

        Raises:
            InputError: The source can't be read, or `columns` names a field that no format has.
        """
        self.source, self.columns = source, dict(columns or {})
        formats.check_columns(self.columns)
        first = islice(source.lines(), SNIFFED_ROWS)
        self.format = formats.detect(
            formats.rename_columns(line.value, self.columns) for line in first
        )
        self.n_rows = self.n_refused = 0

    @property
    def kind(self) -> str:
        """The kind of the normalised rows."""
        return formats.ROW_KINDS.get(self.format or "", "chat")

    def derivation(self, verb: str) -> dict[str, Any]:
        """Return how a version was made from this source, for its record."""
        facts: dict[str, Any] = {"verb": verb, "source": self.source.label, "format": self.format}
        facts |= {"columns": self.columns} if self.columns else {}
        return facts | ({"skipped": [*self.source.skipped]} if self.source.skipped else {})

    def blocks(self, progress: OnProgress | None = None) -> Iterator[RowBlock]:
        """Yield everything that the source holds: good rows, several at a time, and problems."""
        on_share = self._reporter(progress)
        is_plain = self.format == "chat" and not self.columns
        for part in self.source.parts(on_share):
            if isinstance(part, Line):
                yield self._check(part)
            elif is_plain and (rows := schema.decode_plain_chats(part.raw)) is not None:
                self.n_rows += len(rows)
                yield RowBlock(part.raw, rows, None)
            else:
                yield from map(self._check, part.lines())
        on_share(1.0)

    def _check(self, line: Line) -> RowBlock:
        row, fault = (None, line.fault) if line.fault else self._normalise(line)
        if fault is None:
            self.n_rows += 1
            return RowBlock(line.raw, [row], None)
        self.n_refused += 1
        text = line.raw[:EXCERPT_BYTES].decode(errors="replace")
        return RowBlock(line.raw, [], Problem(line.number, *fault, file=line.file, text=text))

    def _normalise(self, line: Line) -> tuple[Row | None, Fault | None]:
        """Return a row, normalised, or its fault with the file's own column name."""
        value, columns = line.value, self.columns
        if is_too_deep(line.raw, value):
            return None, too_deep()
        if self.format == "chat" and not columns and schema.is_plain_chat(value):
            return value, None
        if columns and isinstance(value, dict):
            missing = [column for column in columns.values() if column not in value]
            if missing:
                keys = ", ".join(map(repr, [*value][:5])) or "none"
                fix = "Correct the row, or the mapping in columns."
                return None, Fault(missing[0], f"missing (keys: {keys})", "a value", fix)
            value = formats.rename_columns(value, columns)
        try:
            row = formats.read(self.format or "chat", value)
            fault = next(schema.faults(row), None)
        except RowError as error:
            fault = error.fault
        if fault is None:
            return row, None
        return None, fault._replace(field=columns.get(fault.field, fault.field))

    def _reporter(self, progress: OnProgress | None) -> Callable[[float], None]:
        """Return a callback that passes the share that was read on to `progress`, in percent."""
        last_share = -1.0
        last: Progress | None = None

        def on_share(share: float) -> None:
            nonlocal last_share, last
            if progress is None or (share < last_share + REPORT_EVERY and share < 1.0):
                return
            last_share = share
            note = f"{self.n_rows:,} rows, {self.n_refused:,} refused"
            news = Progress("percent read", round(100 * share), 100, note)
            if news != last:
                last = news
                progress(news)

        return on_share


def refusal(reader: RowReader, problems: Sequence[Problem]) -> DataError:
    """Return the error for a source with bad rows, or without good ones.

    Args:
        problems: The first of them.
    """
    label, n_rows, n_refused = reader.source.label, reader.n_rows, reader.n_refused
    if not n_rows and not n_refused:
        return DataError(f"{label} is empty; expected one chat a line: {CHAT_EXAMPLE}")
    if not n_rows and all(problem.field == "line" for problem in problems):
        return DataError(
            f"{label}:{problems[0].line}: {label} is not JSONL: none of its {n_refused} lines is "
            f"a JSON object. Expected one chat a line: {CHAT_EXAMPLE}"
        )
    lines = [
        f"{f'{label}/{problem.file}' if problem.file else label}:{problem.line}: {problem}"
        for problem in problems[:SHOWN]
    ]
    more = f"\n… and {n_refused - SHOWN} more lines." if n_refused > SHOWN else ""
    fix = (
        "\nCorrect the lines, or set them aside with strict=False."
        if n_rows
        else "\nCorrect the lines; none can be used as it stands."
    )
    total = f"{n_refused} of {n_rows + n_refused} lines are refused.\n"
    return DataError(total + "\n".join(lines) + more + fix)

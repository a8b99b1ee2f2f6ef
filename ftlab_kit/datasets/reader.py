"""Good rows apart from bad ones, as they stream by: what `validate` and `add` share.

A source is looked at twice: its first rows for the form that most of them have, then every row
against that form.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ftlab_kit.datasets import forms, schema
from ftlab_kit.datasets.files import Source
from ftlab_kit.datasets.json_strict import Fault, is_too_deep, too_deep
from ftlab_kit.datasets.lines import Line
from ftlab_kit.datasets.schema import FORM, Row
from ftlab_kit.errors import DataError
from ftlab_kit.records import Problem

LOOKED_AT = 1000  # rows that show a source's form
TOLD_AT = 0.01  # share after which progress is told again
SAYS = 1000  # bytes of a line that its problem carries along
SHOWN = 5  # problems named in an error


class RowBlock(NamedTuple):
    """A part of a source: its bytes, and its rows in the one form or the problem that refuses it.

    The rows are for an encoder, dicts or not.
    """

    raw: bytes
    rows: Sequence[Any]
    problem: Problem | None


class RowReader:
    """A source with the form of its rows; counts what passes and what does not."""

    def __init__(self, source: Source, columns: Mapping[str, str] | None = None) -> None:
        """Look at the first rows.

        Raises:
            InputError: The source can't be read, or `columns` names no field of a form.
        """
        self.source, self.columns = source, dict(columns or {})
        forms.check(self.columns)
        first = islice(source.lines(), LOOKED_AT)
        self.form = forms.detect(forms.rename(line.value, self.columns) for line in first)
        self.n_rows = self.n_refused = 0

    @property
    def kind(self) -> str:
        """The kind of the rows that pass."""
        return forms.KIND.get(self.form or "", "chat")

    def parts(self, progress: Callable[..., None] | None = None) -> Iterator[RowBlock]:
        """Yield all that the source holds: good rows, several at a time, and problems."""
        tell = self._tell(progress)
        is_plain = self.form == "chat" and not self.columns
        for part in self.source.parts(tell):
            if isinstance(part, Line):
                yield self._look(part)
            elif is_plain and (rows := schema.plain(part.raw)) is not None:
                self.n_rows += len(rows)
                yield RowBlock(part.raw, rows, None)
            else:
                yield from map(self._look, part.lines())
        tell(1.0, is_over=True)

    def _look(self, line: Line) -> RowBlock:
        row, fault = (None, line.fault) if line.fault else self._brought(line)
        if fault is None:
            self.n_rows += 1
            return RowBlock(line.raw, [row], None)
        self.n_refused += 1
        text = line.raw[:SAYS].decode(errors="replace")
        return RowBlock(line.raw, [], Problem(line.number, *fault, file=line.file, text=text))

    def _brought(self, line: Line) -> tuple[Row | None, Fault | None]:
        """Return a row in the one form, or its fault in the words of the file."""
        value, columns = line.value, self.columns
        if is_too_deep(line.raw, value):
            return None, too_deep()
        if self.form == "chat" and not columns and schema.is_good(value):
            return value, None
        if columns and isinstance(value, dict):
            absent = [source for source in columns.values() if source not in value]
            if absent:
                keys = ", ".join(map(repr, [*value][:5])) or "none"
                cure = "Mend the row, or the mapping in columns."
                return None, Fault(absent[0], f"missing (keys: {keys})", "a value", cure)
            value = forms.rename(value, columns)
        try:
            row = forms.read(self.form or "chat", value)
            fault = next(schema.faults(row), None)
        except forms.Misfit as misfit:
            fault = misfit.fault
        if fault is None:
            return row, None
        return None, fault._replace(field=columns.get(fault.field, fault.field))

    def _tell(self, progress: Callable[..., None] | None) -> Callable[..., None]:
        told = -1.0
        last: tuple[str, ...] = ()

        def tell(share: float, is_over: bool = False) -> None:
            nonlocal told, last
            if progress is None or not (share >= told + TOLD_AT or is_over):
                return
            told = share
            news = (f"{share:.0%}", f"{self.n_rows:,} rows", f"{self.n_refused:,} refused")
            if news != last:
                last = news
                progress(*news)

        return tell


def refusal(sieve: RowReader, problems: list[Problem]) -> DataError:
    """Return the error of a source with bad rows, or without good ones.

    Args:
        problems: The first of them.
    """
    label, n_rows, n_refused = sieve.source.label, sieve.n_rows, sieve.n_refused
    if not n_rows and not n_refused:
        return DataError(f"{label} is empty; expected one chat a line: {FORM}")
    if not n_rows and all(problem.field == "line" for problem in problems):
        return DataError(
            f"{label}:{problems[0].line}: {label} is no JSONL: none of its {n_refused} lines is "
            f"a JSON object. Expected one chat a line: {FORM}"
        )
    lines = [
        f"{f'{label}/{problem.file}' if problem.file else label}:{problem.line}: {problem}"
        for problem in problems[:SHOWN]
    ]
    more = f"\n… and {n_refused - SHOWN} more lines." if n_refused > SHOWN else ""
    cure = (
        "\nMend the lines, or set them aside with strict=False."
        if n_rows
        else "\nMend the lines; none can be used as it stands."
    )
    total = f"{n_refused} of {n_rows + n_refused} lines are refused.\n"
    return DataError(total + "\n".join(lines) + more + cure)

"""Rows in tables: CSV, Parquet, data frames, and the Hugging Face hub.

Nulls of a table become None; values that JSON does not have become a fault.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftlab_kit.datasets.json_strict import ENCODE, Fault
from ftlab_kit.datasets.lines import HEAD_BYTES, MAX_ROW_BYTES, Line, Stream
from ftlab_kit.errors import InputError, NotFound, Unavailable

BATCH_ROWS = 1000


def separated(delimiter: str) -> Callable[[Stream], Iterator[Line]]:
    """Return a reader of delimited text whose first line names the columns."""

    def read_cells(stream: Any) -> Iterator[Line]:
        csv.field_size_limit(MAX_ROW_BYTES)
        text = io.TextIOWrapper(
            io.BufferedReader(stream, HEAD_BYTES),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        )
        pending: list[str] = []
        rows = csv.reader(_lines(text, pending), delimiter=delimiter, strict=True)
        columns: list[str] | None = None
        while True:
            number = rows.line_num + 1
            pending.clear()
            try:
                cells = next(rows, None)
            except csv.Error as error:
                fix = "Close every quote, and double the quotes inside one."
                raw = "".join(pending).rstrip().encode("utf-8", "surrogateescape")
                fault = Fault("line", f"not a valid row ({error})", "cells", fix)
                yield Line(None, number, raw[:MAX_ROW_BYTES], None, fault)
                continue
            if cells is None:
                return
            if not cells:
                continue
            if columns is None:
                columns = cells
                continue
            yield Line(None, number, *_row(columns, cells))

    return read_cells


def _lines(text: io.TextIOWrapper, pending: list[str]) -> Iterator[str]:
    """Yield lines, an overlong one in parts, and append each to `pending`."""
    while line := text.readline(MAX_ROW_BYTES + 1):
        pending.append(line)
        yield line


def _row(columns: list[str], cells: list[str]) -> tuple[bytes, Any, Fault | None]:
    """Return the bytes of a row, and its value or its fault."""
    value = {name: cell for name, cell in zip(columns, cells, strict=False) if name or cell}
    try:
        raw = ENCODE(value if len(cells) == len(columns) else cells)
    except UnicodeEncodeError:
        raw = json.dumps(cells).encode()
        return raw, None, Fault("line", "not UTF-8", "text in UTF-8", "Save the file as UTF-8.")
    if len(cells) != len(columns):
        got, fix = f"{len(cells)} cells", "Quote cells that hold commas or line ends."
        return raw, None, Fault("line", got, f"{len(columns)}, as in the first line", fix)
    if "" in value:  # spreadsheets leave empty unnamed columns behind, and those do no harm
        fix = "Name every column in the first line, or empty the unnamed ones."
        return raw, None, Fault("line", "a cell in a column without a name", "a name", fix)
    duplicate = next((name for name in columns if name and columns.count(name) > 1), None)
    if duplicate is not None:
        return raw, None, Fault(duplicate, "a duplicate column", "every column once", "Rename one.")
    return raw, value, None


def rows_of(file: str | None, tables: Iterator[Any]) -> Iterator[Line]:
    """Yield the rows of Arrow tables."""
    number = 0
    for table in tables:
        for value in table.to_pylist():
            number += 1
            try:
                raw = ENCODE(value)
            except (TypeError, ValueError, RecursionError) as error:
                fix = "Use only text, numbers, and lists and objects of them."
                got = f"a value that JSON can't hold ({error})"
                raw = repr(value)[:HEAD_BYTES].encode()
                yield Line(file, number, raw, None, Fault("row", got, "JSON values", fix))
                continue
            yield Line(file, number, raw, value, None)


def parquet(path: Path) -> Iterator[Any]:
    """Yield a Parquet file as Arrow tables.

    Raises:
        InputError: It is not a Parquet file, or damaged.
    """
    import pyarrow
    from pyarrow import parquet as reader

    try:
        yield from reader.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} can't be read as Parquet ({error}); perhaps it was cut off. Fetch it again."
        ) from error


def slices(frame: Any) -> Iterator[Any]:
    """Yield a data frame as Arrow tables.

    Raises:
        InputError: A column holds values of several types.
    """
    import pyarrow

    for start in range(0, len(frame), BATCH_ROWS):
        try:
            yield pyarrow.Table.from_pandas(
                frame.iloc[start : start + BATCH_ROWS], preserve_index=False
            )
        except pyarrow.ArrowException as error:
            raise InputError(
                f"The data frame has a column of mixed types ({error}); expected one type a "
                "column. Convert it to text, or leave it out."
            ) from error


def hub(name: str) -> Iterator[Any]:
    """Yield a dataset of the hub as Arrow tables: `owner/name`, `:split`, or `:config:split`.

    Raises:
        NotFound: The hub has no such dataset, config or split.
        Unavailable: The hub can't be reached.
        InputError: It has several splits, none called `train`, and none was named.
    """
    from datasets import DatasetDict, disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import OfflineModeIsEnabled

    repo, *rest = name.split(":")
    config, split = rest[0] if len(rest) == 2 else None, rest[-1] if rest else None
    disable_progress_bars()
    try:
        dataset = load_dataset(repo, config, split=split)
    except (DatasetNotFoundError, ValueError) as error:
        raise NotFound(
            f"{name} is neither a path here nor a dataset of the hub ({error}). "
            "Give owner/name, owner/name:split or owner/name:config:split."
        ) from error
    except (OSError, OfflineModeIsEnabled) as error:
        raise Unavailable(
            f"{name} is not a path here, and the hub can't be reached ({error}). "
            "Check the path or the network, or give a file."
        ) from error
    if isinstance(dataset, DatasetDict):
        if "train" not in dataset:
            splits = ", ".join(dataset)
            raise InputError(f"{repo} has the splits {splits}; name one: {repo}:{[*dataset][0]}.")
        dataset = dataset["train"]
    for start in range(0, len(dataset), BATCH_ROWS):
        yield dataset.with_format("arrow")[start : start + BATCH_ROWS]

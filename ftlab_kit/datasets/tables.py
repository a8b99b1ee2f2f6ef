"""Rows in tables: CSV, Parquet, data frames, and the Hugging Face hub.

What is null in a table is None; whatever JSON does not have is a fault.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftlab_kit.datasets.json_strict import ENCODE, Fault
from ftlab_kit.datasets.lines import BEGINNING, LONGEST, Line, Stream
from ftlab_kit.errors import InputError, NotFound, Unavailable

AT_ONCE = 1000  # rows


def separated(delimiter: str) -> Callable[[Stream], Iterator[Line]]:
    """Return what reads rows of cells that a delimiter separates, their names in the first."""

    def rows_of_cells(stream: Any) -> Iterator[Line]:
        csv.field_size_limit(LONGEST)
        text = io.TextIOWrapper(
            io.BufferedReader(stream, BEGINNING),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        )
        read: list[str] = []
        rows = csv.reader(_lines(text, read), delimiter=delimiter, strict=True)
        names: list[str] | None = None
        while True:
            number = rows.line_num + 1
            read.clear()
            try:
                cells = next(rows, None)
            except csv.Error as error:
                cure = "Close every quote, and double the quotes inside one."
                raw = "".join(read).rstrip().encode("utf-8", "surrogateescape")
                fault = Fault("line", f"no row ({error})", "cells", cure)
                yield Line(None, number, raw[:LONGEST], None, fault)
                continue
            if cells is None:
                return
            if not cells:
                continue
            if names is None:
                names = cells
                continue
            yield Line(None, number, *_row(names, cells))

    return rows_of_cells


def _lines(text: io.TextIOWrapper, read: list[str]) -> Iterator[str]:
    """Yield lines, or parts of one that is longer than any row, and remember them."""
    while line := text.readline(LONGEST + 1):
        read.append(line)
        yield line


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


def rows_of(file: str | None, tables: Iterator[Any]) -> Iterator[Line]:
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


def parquet(path: Path) -> Iterator[Any]:
    """Yield a Parquet file as Arrow tables.

    Raises:
        InputError: It is none, or damaged.
    """
    import pyarrow
    from pyarrow import parquet as reader

    try:
        yield from reader.ParquetFile(path).iter_batches(batch_size=AT_ONCE)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} can't be read as Parquet ({error}); perhaps it was cut off. Fetch it again."
        ) from error


def slices(frame: Any) -> Iterator[Any]:
    """Yield a data frame as Arrow tables.

    Raises:
        InputError: A column holds values of several kinds.
    """
    import pyarrow

    for start in range(0, len(frame), AT_ONCE):
        try:
            yield pyarrow.Table.from_pandas(
                frame.iloc[start : start + AT_ONCE], preserve_index=False
            )
        except pyarrow.ArrowException as error:
            raise InputError(
                f"The data frame has a column of mixed kinds ({error}); expected one kind a "
                "column. Turn it into text, or leave it out."
            ) from error


def hub(name: str) -> Iterator[Any]:
    """Yield a dataset of the hub as Arrow tables: `owner/name`, `:split`, or `:config:split`.

    Raises:
        NotFound: The hub has no such dataset, config or split.
        Unavailable: The hub can't be reached.
        InputError: It has several splits, none of them `train`, and none was named.
    """
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
    for start in range(0, len(found), AT_ONCE):
        yield found.with_format("arrow")[start : start + AT_ONCE]

"""What must hold for any file, checked by Hypothesis and by atheris."""

from pathlib import Path

from ftlab_kit.datasets import files, formats, schema
from ftlab_kit.datasets.json_strict import ENCODE, decode
from ftlab_kit.datasets.reader import RowReader
from ftlab_kit.errors import InputError

# the format of normalised rows, by kind
FORMAT_OF = {"chat": "chat", "preference": "preference", "label": "kto", "text": "text"}


def look(path: Path) -> tuple[int, int]:
    """Read a file as rows, and return how many were accepted and refused."""
    try:
        reader = RowReader(files.source(path))
        for raw, rows, problem in reader.blocks():
            assert bool(rows) != bool(problem), raw
            if problem is not None:
                assert problem.line >= 1
                assert problem.field and problem.got and problem.expected, problem
                ENCODE(problem.as_dict())
            for accepted in rows:
                row, fault = decode(ENCODE(accepted))
                assert fault is None, (accepted, fault)
                # a normalised row is accepted again, unchanged
                assert formats.read(FORMAT_OF[schema.kind(row)], row) == row, row
                assert next(schema.faults(row), None) is None, row
    except InputError as error:
        assert str(path) in str(error)
        return 0, 1
    return reader.n_rows, reader.n_refused

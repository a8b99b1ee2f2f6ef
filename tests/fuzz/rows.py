"""What must hold of any file whatever, for Hypothesis and for atheris."""

from pathlib import Path

from ftlab_kit.datasets import files, forms, schema
from ftlab_kit.datasets.json_strict import ENCODE, decode
from ftlab_kit.datasets.reader import RowReader
from ftlab_kit.errors import InputError

# a form's name for rows of each kind that are in the one form already
OWN = {"chat": "chat", "preference": "preference", "label": "kto", "text": "text"}


def look(path: Path) -> tuple[int, int]:
    """Read a file as rows, and return how many were accepted and refused."""
    try:
        sieve = RowReader(files.source(path))
        for raw, rows, problem in sieve.parts():
            assert bool(rows) != bool(problem), raw
            if problem is not None:
                assert problem.line >= 1
                assert problem.field and problem.got and problem.expected, problem
                ENCODE(problem.as_dict())
            for found in rows:
                row, fault = decode(ENCODE(found))
                assert fault is None, (found, fault)
                # a row that was accepted once is accepted for good, as it is
                assert forms.read(OWN[schema.kind(row)], row) == row, row
                assert next(schema.faults(row), None) is None, row
    except InputError as error:
        assert str(path) in str(error)
        return 0, 1
    return sieve.n_rows, sieve.n_refused

"""Jupyter notebooks: prose as it is, code in fences, outputs left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlab_kit.errors import InputError
from ftlab_kit.graphs.loaders import Line, Text, read_utf8, unread_notes
from ftlab_kit.graphs.loaders.blocks import code_block
from ftlab_kit.graphs.loaders.markdown import count_pictures, split_lines


def read(path: Path) -> Text:
    """Return the cells of a notebook. `part` is 'cell 1' and so on, `number` the line in the cell.

    Raises:
        InputError: The file is not a notebook of format 4.
    """
    notebook = _notebook(path)
    cells = [cell for cell in notebook["cells"] if isinstance(cell, dict)]
    language = _language(notebook)
    lines = [line for at, cell in enumerate(cells, 1) for line in _lines(cell, at, language)]
    prose = [text for cell in cells if cell.get("cell_type") == "markdown" for text in _texts(cell)]
    notes = unread_notes(
        {
            "picture": count_pictures(prose),
            "output": sum(len(cell.get("outputs") or ()) for cell in cells),
            "raw cell": sum(cell.get("cell_type") == "raw" for cell in cells),
        }
    )
    return Text(tuple(lines), notes)


def _notebook(path: Path) -> dict[str, Any]:
    try:
        notebook: Any = json.loads(read_utf8(path))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno} is not JSON at column {error.colno}: {error.msg}. "
            "Open the notebook in Jupyter and save it again."
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(
            f"{path} is nested too deep, or contains a number that is too long."
        ) from error
    nbformat = notebook.get("nbformat") if isinstance(notebook, dict) else None
    if not isinstance(nbformat, int):
        raise InputError(
            f"{path} is not a Jupyter notebook: it has no nbformat. Save it in Jupyter again."
        )
    if nbformat < 4 or not isinstance(notebook.get("cells"), list):
        raise InputError(
            f"{path} is a notebook of format {nbformat}; expected format 4, with cells. Convert it "
            "with: jupyter nbconvert --to notebook --nbformat 4."
        )
    return dict(notebook)


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata")
    info = metadata.get("language_info") if isinstance(metadata, dict) else None
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) and name.isalnum() else "python"


def _texts(cell: dict[str, Any]) -> list[str]:
    source = cell.get("source", "")
    text = source if isinstance(source, str) else "".join(map(str, source or ()))
    return split_lines(text.replace("\r\n", "\n"))


def _lines(cell: dict[str, Any], at: int, language: str) -> Iterator[Line]:
    part, texts = f"cell {at}", _texts(cell)
    if not any(text.strip() for text in texts):
        return
    if cell.get("cell_type") == "code":
        yield from code_block(texts, 1, language, part)
    elif cell.get("cell_type") == "markdown":
        yield from (Line(text, number, part) for number, text in enumerate(texts, 1))
    else:
        return
    # so that the last line of a cell and the first of the next are two paragraphs
    yield Line("", len(texts), part)

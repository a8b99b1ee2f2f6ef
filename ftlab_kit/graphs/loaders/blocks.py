"""Markdown for the loaders of formatted documents: runs of text, lists, code, tables, spacing."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ftlab_kit.graphs.loaders import Line

BULLET = re.compile(r"^(?:[•‣◦▪▫●○■□·∙⁃–*\uf0b7\uf0a7\uf0d8-]|`o`)\s+(?=\S)")
LOOKS_MARKED = re.compile(r"^(#{1,6}\s|```|~~~)")
IN_A_LIST = re.compile(r"\s+\S|- |\d+[.)] ")
# a merged cell is repeated so that each row reads alone; a long one would multiply the text
MAX_REPEATED_CHARACTERS = 200
MAX_SPAN = 16


class Run(NamedTuple):
    """A stretch of text in one style."""

    text: str
    is_bold: bool = False
    is_code: bool = False


def to_markdown(runs: Iterable[Run]) -> str:
    """Return runs as one line of Markdown, with bold text and code marked."""
    joined: list[Run] = []
    for run in runs:
        # a space has no visible style; kept apart it would cut a label in two
        if joined and (run[1:] == joined[-1][1:] or not run.text.strip()):
            joined[-1] = joined[-1]._replace(text=joined[-1].text + run.text)
        elif run.text:
            joined.append(run)
    return " ".join("".join(map(_with_marks, joined)).split())


def _with_marks(run: Run) -> str:
    stripped = run.text.strip()
    if not re.search(r"\w", stripped):
        return run.text
    text = f"`{stripped}`" if run.is_code and "`" not in stripped else stripped
    text = f"**{text}**" if run.is_bold else text
    before, after = run.text.split(stripped, 1)
    return before + text + after


def escape(text: str) -> str:
    """Return a line with a backslash before what would make it a heading or a fence."""
    return LOOKS_MARKED.sub(r"\\\1", text)


def list_item(text: str, depth: int) -> str:
    """Return an item of a list, without the bullet that the text itself has."""
    return "  " * depth + "- " + BULLET.sub("", text)


def code_block(
    texts: Iterable[str], number: int, language: str = "", part: str = ""
) -> Iterator[Line]:
    """Yield lines of code between fences; the first line of code has the given number."""
    body = list(texts)
    fence = "```"
    while any(text.lstrip().startswith(fence) for text in body):
        fence += "`"
    yield Line(fence + language, number, part)
    yield from (Line(text, at, part) for at, text in enumerate(body, number))
    yield Line(fence, number + max(0, len(body) - 1), part)


def table(rows: Iterable[tuple[int, list[str]]]) -> Iterator[Line]:
    """Yield a table in Markdown; if it has a single column, the text of its cells.

    Args:
        rows: The number and the cells of each row. The first is the header.
    """
    filled = [(number, cells) for number, cells in rows if any(cells)]
    if all(len(cells) == 1 for _, cells in filled):
        yield from (Line(escape(cells[0]), number) for number, cells in filled)
        return
    for index, (number, cells) in enumerate(filled):
        texts = [cell.replace("**", "") for cell in cells] if index == 0 else cells
        escaped = (cell.replace("|", "\\|") for cell in texts)
        yield Line(f"| {' | '.join(escaped)} |", number)
        if index == 0:
            yield Line("|" + " --- |" * len(cells), number)


def repeated(text: str) -> str:
    """Return the text for a cell that is merged with the one above; '' if it is long."""
    return text if len(text) <= MAX_REPEATED_CHARACTERS else ""


def with_blank_lines(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield lines with an empty one between blocks, so that Markdown keeps paragraphs apart."""
    before, fence = "", ""
    for index, line in enumerate(lines):
        kind = "code" if fence else _kind(line.text)
        if index and not (kind and kind == before):
            yield Line("", line.number, line.part)
        yield line
        if kind == "code":
            fence = _fence_after(line.text, fence)
        before = kind


def _kind(text: str) -> str:
    if text.startswith("```"):
        return "code"
    if text.startswith("|"):
        return "table"
    return "list" if IN_A_LIST.match(text) else ""


def _fence_after(text: str, fence: str) -> str:
    """Return the fence that is open after a line, '' if none is."""
    if not fence:
        return text[: len(text) - len(text.lstrip("`"))]
    return "" if text == fence else fence

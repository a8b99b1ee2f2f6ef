"""What the loaders of formatted documents share: runs of type, tables, and room between blocks."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ftlab_kit.graphs.loaders import Line

BULLET = re.compile(r"^(?:[•‣◦▪▫●○■□·∙⁃–*\uf0b7\uf0a7\uf0d8-]|`o`)\s+(?=\S)")
LOOKS_MARKED = re.compile(r"^(#{1,6}\s|```|~~~)")
IN_A_LIST = re.compile(r"\s+\S|- |\d+[.)] ")
# a repeated cell is for reading; a long one would multiply what the file holds
MAX_REPEATED_CHARACTERS = 200
MAX_SPAN = 16


class Run(NamedTuple):
    """A stretch of text in one kind of type."""

    text: str
    is_bold: bool = False
    is_code: bool = False


def marked(runs: Iterable[Run]) -> str:
    """Return runs as one line of Markdown, with bold type and code marked."""
    joined: list[Run] = []
    for run in runs:
        # a space has no type of its own; left apart it would cut a label in two
        if joined and (run[1:] == joined[-1][1:] or not run.text.strip()):
            joined[-1] = joined[-1]._replace(text=joined[-1].text + run.text)
        elif run.text:
            joined.append(run)
    return " ".join("".join(map(_marked, joined)).split())


def _marked(run: Run) -> str:
    core = run.text.strip()
    if not re.search(r"\w", core):
        return run.text
    text = f"`{core}`" if run.is_code and "`" not in core else core
    text = f"**{text}**" if run.is_bold else text
    begin, end = run.text.split(core, 1)
    return begin + text + end


def plain(text: str) -> str:
    """Return a line that is no heading and no fence, whatever its first characters are."""
    return LOOKS_MARKED.sub(r"\\\1", text)


def listed(text: str, depth: int) -> str:
    """Return an item of a list; a bullet in the text itself is taken off."""
    return "  " * depth + "- " + BULLET.sub("", text)


def fenced(texts: Iterable[str], number: int, language: str = "", part: str = "") -> Iterator[Line]:
    """Yield lines of code between fences; `number` is that of the first."""
    body = list(texts)
    fence = "```"
    while any(text.lstrip().startswith(fence) for text in body):
        fence += "`"
    yield Line(fence + language, number, part)
    yield from (Line(text, at, part) for at, text in enumerate(body, number))
    yield Line(fence, number + max(0, len(body) - 1), part)


def table(rows: Iterable[tuple[int, list[str]]]) -> Iterator[Line]:
    """Yield a table in Markdown; of one with a single column, the text of its cells.

    Args:
        rows: The number and the cells of each row. The first is the header.
    """
    filled = [(number, cells) for number, cells in rows if any(cells)]
    if all(len(cells) == 1 for _, cells in filled):
        yield from (Line(plain(cells[0]), number) for number, cells in filled)
        return
    for index, (number, cells) in enumerate(filled):
        bare = [cell.replace("**", "") for cell in cells] if index == 0 else cells
        yield Line(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in bare)} |", number)
        if index == 0:
            yield Line("|" + " --- |" * len(cells), number)


def repeated(text: str) -> str:
    """Return what a cell that is merged with the one above it says."""
    return text if len(text) <= MAX_REPEATED_CHARACTERS else ""


def apart(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield lines with an empty one between blocks, so that paragraphs stay apart in Markdown."""
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
    """Return the fence that is open after a line, else ''."""
    if not fence:
        return text[: len(text) - len(text.lstrip("`"))]
    return "" if text == fence else fence

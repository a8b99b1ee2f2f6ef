"""Markdown as it is; front matter (between two `---` at the top) becomes labels."""

import re
from collections.abc import Iterator
from pathlib import Path

from ftlab_kit.graphs.loaders import Line, Text, read_utf8, unread_notes

PAIR = re.compile(r"([A-Za-z_][\w.-]*(?: [\w.-]+)*) ?:(?:\s+(\S.*)?)?")
REST_OF_YAML = re.compile(r"\s.*|-\s.*|#.*|")
FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
PICTURE = re.compile(r"!\[[^\[\]]*\][(\[]|<img\b", re.IGNORECASE)


def read(path: Path) -> Text:
    """Return every line of a Markdown file."""
    texts = split_lines(read_utf8(path))
    end = _end_of_front_matter(texts)
    lines = [*map(_label, texts[:end]), *texts[end:]]
    numbered = tuple(Line(text, number) for number, text in enumerate(lines, 1))
    return Text(numbered, unread_notes({"picture": count_pictures(texts)}))


def split_lines(text: str) -> list[str]:
    """Return the lines of a text; a newline at its end does not begin another line."""
    return text.removesuffix("\n").split("\n")


def count_pictures(texts: list[str]) -> int:
    """Return the number of pictures in lines of Markdown."""
    return sum(len(PICTURE.findall(text)) for text in outside_fences(texts))


def outside_fences(texts: list[str]) -> Iterator[str]:
    """Yield the lines that are not code."""
    fence = ""
    for text in texts:
        match = FENCE.match(text)
        if fence:
            is_end = match is not None and match[1].startswith(fence)
            fence = "" if is_end and text.strip() == (match or "")[1] else fence
        elif match:
            fence = match[1]
        else:
            yield text


def _end_of_front_matter(texts: list[str]) -> int:
    """Return the number of lines of front matter; 0 if `---` is only a rule."""
    if texts[0].rstrip() != "---":
        return 0
    for index, text in enumerate(texts[1:], 1):
        if text.rstrip() in ("---", "..."):
            return index + 1 if index > 1 else 0
        if not (PAIR.fullmatch(text) or REST_OF_YAML.fullmatch(text)):
            return 0
    return 0


def _label(text: str) -> str:
    """Return a line of front matter as Markdown, where a comment or `---` would be a heading."""
    pair = PAIR.fullmatch(text)
    if pair:
        value = (pair[2] or "").rstrip()
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        return f"**{pair[1]}:** {value[1:-1] if is_quoted else value}".rstrip()
    return "" if text.startswith(("#", "---", "...")) else text

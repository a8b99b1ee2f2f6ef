"""Plain text: what looks like a heading, a label or a list becomes one.

A heading is underlined with `===` or `---`, all in capitals, or numbered as in `3.2 Title`. A label
is `Key: value` next to others. Markdown in a text file stays as it is.
"""

import re
from pathlib import Path

from ftlab_kit.graphs.loaders import Line, Text, read_utf8, unread_notes
from ftlab_kit.graphs.loaders.markdown import FENCE, count_pictures, split_lines

UNDERLINE = re.compile(r"(=|-)\1{2,}\s*")
NUMBERED = re.compile(r"(\d+(?:\.\d+)*)[.)]?\s+[A-Z\u00c0-\u00de].*[^.,;:]")
LABEL = re.compile(r"([A-Z][\w/&'-]*(?: [\w/&'()-]+){0,3}):(?: +(\S.*))?")
BULLET = re.compile(r"(\s*)[•‣◦▪●○■·*–]\s+(?=\S)(?!\*)")
MAX_HEADING_CHARACTERS = 80
MAX_LEVEL = 6


def read(path: Path) -> Text:
    """Return every line of a text file, with its headings, labels and lists as in Markdown."""
    texts = [text.replace("\f", "") for text in split_lines(read_utf8(path))]
    code = _in_fences(texts)
    # if titles are underlined with ===, all other headings are below them
    top = 1 + any(_underlined(texts, index) == 1 for index in range(len(texts)))
    lines = tuple(
        Line(texts[index] if code[index] else _line(texts, index, top), index + 1)
        for index in range(len(texts))
    )
    return Text(lines, unread_notes({"picture": count_pictures(texts)}))


def _in_fences(texts: list[str]) -> list[bool]:
    is_code, fence = [], ""
    for text in texts:
        match = FENCE.match(text)
        is_code.append(bool(fence or match))
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence):
            fence = ""
    return is_code


def _line(texts: list[str], index: int, top: int) -> str:
    text = texts[index]
    level = _level(texts, index, top)
    if level:
        return "#" * min(level, MAX_LEVEL) + " " + text.strip().rstrip(":")
    if _is_rule_of_heading(texts, index):
        return ""
    label = LABEL.fullmatch(text.rstrip())
    if label and (_is_in_block(texts, index) if label[2] else _leads(texts, index)):
        return f"**{label[1]}:** {label[2] or ''}".rstrip()
    return BULLET.sub(r"\1- ", text, count=1) if BULLET.match(text) else text


def _at(texts: list[str], index: int) -> str:
    return texts[index].strip() if 0 <= index < len(texts) else ""


def _is_apart(texts: list[str], index: int) -> bool:
    """Return whether a line is empty or only a rule."""
    return not _at(texts, index) or bool(UNDERLINE.fullmatch(_at(texts, index)))


def _level(texts: list[str], index: int, top: int) -> int:
    """Return a line's level as a heading, 0 if it is none."""
    text = texts[index]
    is_title = bool(text.strip()) and not text.startswith(("    ", "\t", "#", "-", "|"))
    if not is_title or len(text) > MAX_HEADING_CHARACTERS or not _is_apart(texts, index - 1):
        return 0
    level = _underlined(texts, index)
    if level:
        return level
    if _is_capitals(text) and not _is_capitals(_at(texts, index + 1)):
        return top
    return _numbered(texts, index, top)


def _underlined(texts: list[str], index: int) -> int:
    title, below = _at(texts, index), UNDERLINE.fullmatch(_at(texts, index + 1))
    is_heading = (
        below is not None
        and bool(re.search(r"\w", title))
        and len(title) <= MAX_HEADING_CHARACTERS
        and _is_apart(texts, index - 1)
    )
    return (1 if below[1] == "=" else 2) if is_heading and below else 0


def _is_rule_of_heading(texts: list[str], index: int) -> bool:
    if not UNDERLINE.fullmatch(_at(texts, index)):
        return False
    return bool(_underlined(texts, index - 1)) or bool(
        _underlined(texts, index + 1) and _at(texts, index) == _at(texts, index + 2)
    )


def _is_capitals(text: str) -> bool:
    text = text.strip()
    letters = sum(character.isalpha() for character in text)
    is_short = ":" not in text[:-1] and not text.endswith((".", ",", ";", "!", "?"))
    return text.isupper() and is_short and letters >= 3 and letters * 2 > len(text)


def _numbered(texts: list[str], index: int, top: int) -> int:
    match = NUMBERED.fullmatch(texts[index].strip())
    if not match or _at(texts, index + 1):
        return 0
    depth = match[1].count(".")
    if depth:
        return top + depth
    # `2. Do this` between `1.` and `3.` is an item of a list with blank lines
    beside = (re.match(r"(\d+)[.)]?\s", _neighbour(texts, index, step)) for step in (-1, 1))
    is_item = any(near is not None and abs(int(near[1]) - int(match[1])) == 1 for near in beside)
    return 0 if is_item else top


def _neighbour(texts: list[str], index: int, step: int) -> str:
    """Return the next line, up or down, that is not empty."""
    index += step
    while 0 <= index < len(texts) and not texts[index].strip():
        index += step
    return _at(texts, index)


def _is_in_block(texts: list[str], index: int) -> bool:
    """Return whether a label stands next to another, with no line between them."""
    beside = (LABEL.fullmatch(_at(texts, index + step)) for step in (-1, 1))
    return any(label is not None and label[2] for label in beside)


def _leads(texts: list[str], index: int) -> bool:
    """Return whether a line is a key without a value, above the list or text that it labels."""
    above, key = _at(texts, index - 1), _at(texts, index).rstrip(":").split()
    # more words, not written like a title, begin a sentence: `To do so, you need:`
    is_key = len(key) < 3 or all(word[0].isupper() or len(word) < 4 for word in key)
    is_first = not above or bool(LABEL.fullmatch(above))
    return is_key and is_first and bool(_neighbour(texts, index, 1))

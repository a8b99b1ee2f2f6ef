"""Plain text: what its writer made look like a heading, a label or a list is one.

A heading is underlined with `===` or `---`, written all in capitals, or numbered as in `3.2 Title`.
A label is `Key: value` among others of its kind. Whoever wrote Markdown finds it unchanged.
"""

import re
from pathlib import Path

from ftlab_kit.graphs.loaders import Line, Text, decoded, not_read
from ftlab_kit.graphs.loaders.markdown import FENCE, pictures, texts_of

UNDERLINE = re.compile(r"(=|-)\1{2,}\s*")
NUMBERED = re.compile(r"(\d+(?:\.\d+)*)[.)]?\s+[A-Z\u00c0-\u00de].*[^.,;:]")
LABEL = re.compile(r"([A-Z][\w/&'-]*(?: [\w/&'()-]+){0,3}):(?: +(\S.*))?")
BULLET = re.compile(r"(\s*)[•‣◦▪●○■·*–]\s+(?=\S)(?!\*)")
LONGEST = 80  # characters of a heading
DEEPEST = 6


def read(path: Path) -> Text:
    """Return every line of a text file, with its headings, labels and lists as in Markdown."""
    texts = [text.replace("\f", "") for text in texts_of(decoded(path))]
    code = _in_fences(texts)
    # where there are titles underlined with ===, all other headings stand below them
    top = 1 + any(_underlined(texts, index) == 1 for index in range(len(texts)))
    lines = tuple(
        Line(texts[index] if code[index] else _line(texts, index, top), index + 1)
        for index in range(len(texts))
    )
    return Text(lines, not_read({"picture": pictures(texts)}))


def _in_fences(texts: list[str]) -> list[bool]:
    is_code, fence = [], ""
    for text in texts:
        found = FENCE.match(text)
        is_code.append(bool(fence or found))
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence):
            fence = ""
    return is_code


def _line(texts: list[str], index: int, top: int) -> str:
    text = texts[index]
    level = _level(texts, index, top)
    if level:
        return "#" * min(level, DEEPEST) + " " + text.strip().rstrip(":")
    if _is_rule_of_heading(texts, index):
        return ""
    label = LABEL.fullmatch(text.rstrip())
    if label and (_is_in_block(texts, index) if label[2] else _leads(texts, index)):
        return f"**{label[1]}:** {label[2] or ''}".rstrip()
    return BULLET.sub(r"\1- ", text, count=1) if BULLET.match(text) else text


def _at(texts: list[str], index: int) -> str:
    return texts[index].strip() if 0 <= index < len(texts) else ""


def _is_apart(texts: list[str], index: int) -> bool:
    """Return whether nothing, or only a rule, stands in a line."""
    return not _at(texts, index) or bool(UNDERLINE.fullmatch(_at(texts, index)))


def _level(texts: list[str], index: int, top: int) -> int:
    """Return the level of the heading that a line is, else 0."""
    text = texts[index]
    is_title = bool(text.strip()) and not text.startswith(("    ", "\t", "#", "-", "|"))
    if not is_title or len(text) > LONGEST or not _is_apart(texts, index - 1):
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
        and len(title) <= LONGEST
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
    found = NUMBERED.fullmatch(texts[index].strip())
    if not found or _at(texts, index + 1):
        return 0
    depth = found[1].count(".")
    if depth:
        return top + depth
    # `2. Do this` between `1.` and `3.` is an item of a list that has room between its lines
    beside = (re.match(r"(\d+)[.)]?\s", _neighbour(texts, index, step)) for step in (-1, 1))
    is_item = any(near is not None and abs(int(near[1]) - int(found[1])) == 1 for near in beside)
    return 0 if is_item else top


def _neighbour(texts: list[str], index: int, step: int) -> str:
    """Return the next line, up or down, in which something stands."""
    index += step
    while 0 <= index < len(texts) and not texts[index].strip():
        index += step
    return _at(texts, index)


def _is_in_block(texts: list[str], index: int) -> bool:
    """Return whether a label stands next to another, with no line between them."""
    beside = (LABEL.fullmatch(_at(texts, index + step)) for step in (-1, 1))
    return any(found is not None and found[2] for found in beside)


def _leads(texts: list[str], index: int) -> bool:
    """Return whether a key without a value stands above what it is the label of."""
    above, words = _at(texts, index - 1), _at(texts, index).rstrip(":").split()
    # more words, not written like a title, are the begin of a sentence: `To do so, you need:`
    is_key = len(words) < 3 or all(word[0].isupper() or len(word) < 4 for word in words)
    is_first = not above or bool(LABEL.fullmatch(above))
    return is_key and is_first and bool(_neighbour(texts, index, 1))

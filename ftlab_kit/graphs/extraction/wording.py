"""Names and sentences in English: types, attributes, singular and plural, names within a text."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from ftlab_kit.graphs.extraction.values import strip_markdown

SMALL_WORDS = frozenset("and of the for with in to a an or per on by".split())
# 'Use Cases' are of type UseCase: these nouns say nothing without the word before them
NEEDS_TWO_WORDS = frozenset("case aspect right".split())
# names that Graphiti or the kit gives to an entity's own fields
RESERVED_ATTRIBUTES = frozenset(
    "uuid name group_id labels created_at name_embedding summary attributes ended_at".split()
)
RESERVED_LABELS = frozenset("Entity Episodic Community Saga FtlabGraph".split())


def singular(word: str) -> str:
    """Return the singular of an English noun, by its ending."""
    lower = word.lower()
    if lower.endswith(("ss", "us", "is", "news", "series")) or len(lower) < 4:
        return word
    if lower.endswith("ies"):
        return word[:-3] + "y"
    if lower.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1] if lower.endswith("s") else word


def type_noun(heading: str) -> str:
    """Return the noun for a heading's items: 'OpenAI Models' gives Model; '' if there is none.

    Brackets, and all after ' by ', ' for ', ' with ' and the like, are ignored.
    """
    text = re.split(
        r"\s*[(:–—]|\s+(?:by|for|with|without|in|of|on|to)\s+", strip_markdown(heading)
    )[0]
    tokens = [
        word for word in re.findall(r"[A-Za-z][\w-]*", text) if word.lower() not in SMALL_WORDS
    ]
    if not tokens:
        return ""
    last = singular(tokens[-1])
    parts = [tokens[-2], last] if last.lower() in NEEDS_TWO_WORDS and tokens[1:] else [last]
    return "".join(word[:1].upper() + word[1:] for word in parts)


def is_plural(heading: str) -> bool:
    """Return whether a heading's last word is a plural."""
    tokens = re.findall(r"[A-Za-z]+", re.split(r"\s*[(:–—]", strip_markdown(heading))[0])
    return bool(tokens) and singular(tokens[-1]) != tokens[-1]


def attribute_name(text: str) -> str:
    """Return a label as the name of an attribute: 'Context Window' is context_window."""
    tokens = re.findall(r"[^\W_]+", strip_markdown(text).lower())
    name = "_".join(tokens) or "value"
    return f"n{name}" if name[0].isdigit() else name


def unreserved(name: str) -> str:
    """Return the name of an attribute, with 'stated_' before one that Graphiti or the kit uses."""
    return f"stated_{name}" if name in RESERVED_ATTRIBUTES else name


def type_label(text: str) -> str:
    """Return a text as a label that Graphiti accepts and does not use itself.

    Graphiti accepts ASCII letters, digits and underscores, and no digit first.
    """
    latin = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    capitalized = "".join(word[:1].upper() + word[1:] for word in latin.split())
    label = re.sub(r"\W", "", capitalized, flags=re.A)
    if not label or label in RESERVED_LABELS:
        return f"{label}Thing"
    return f"T{label}" if label[0].isdigit() else label


def spoken_name(name: str) -> str:
    """Return an attribute's name as people say it: price_input is 'input price'."""
    tokens = name.split("_")
    return " ".join([*tokens[1:], tokens[0]] if tokens[0] == "price" else tokens)


def as_sentence(text: str) -> str:
    """Return a text that ends with a full stop."""
    text = strip_markdown(text).rstrip(":;, ")
    return text if text.endswith((".", "!", "?")) else f"{text}."


def lower_first(text: str) -> str:
    """Return a text as it continues a sentence: in lower case, unless its first word is a name."""
    first = text.split(" ")[0]
    is_name = any(letter.isupper() for letter in first[1:]) or any(map(str.isdigit, first))
    return text if is_name else text[:1].lower() + text[1:]


def upper_first(text: str) -> str:
    """Return a text with a capital first letter."""
    return text[:1].upper() + text[1:]


def split_list(text: str) -> list[str]:
    """Return the parts of 'A, B (with, commas) and C'."""
    parts = re.split(r",\s*(?![^(]*\))|\s+and\s+(?![^(]*\))", strip_markdown(text).rstrip("."))
    return [part.strip() for part in parts if part.strip()]


def without_parenthesis(text: str) -> str:
    """Return a text without the brackets at its end: 'GPT-5 Mini (text-only)'."""
    return re.sub(r"\s*\([^)]*\)\s*$", "", text).strip()


class NameMatcher:
    """Finds names in texts: the longest first, at word boundaries, none inside another.

    'GPT-5' is not found in 'GPT-5 Pro' if both are names, nor in 'GPT-50'.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names; upper and lower case are the same."""
        self._by_folded = {name.lower(): name for name in sorted(names, reverse=True)}
        longest_first = sorted(self._by_folded, key=lambda name: (-len(name), name))
        any_name = "|".join(re.escape(name) for name in longest_first) or r"(?!)"
        self._pattern = re.compile(rf"(?<![\w/-])(?:{any_name})(?!\w|-\w|\.\d)", re.IGNORECASE)

    def find(self, text: str) -> Iterator[str]:
        """Yield the names that a text contains, in order, each once."""
        seen = set()
        for match in self._pattern.finditer(text):
            name = self._by_folded.get(match[0].lower())
            if name is not None and name not in seen:
                seen.add(name)
                yield name

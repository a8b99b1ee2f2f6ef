"""Words and values: names of types and attributes, numbers with their units, names in a text."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

MARKS = re.compile(r"\*\*|__|`")
MONEY = re.compile(r"(US\$|\$|€|£)\s?(\d[\d,]*(?:\.\d+)?)\s*(.*)$")
NUMBER = re.compile(r"(-?\d[\d,]*(?:\.\d+)?)\s?([KMGTkmgt]?)(B?|%)(?:\s+(\S.*))?$")
THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
CURRENCY = {"US$": "USD", "$": "USD", "€": "EUR", "£": "GBP"}
YES = {"yes": True, "true": True, "no": False, "false": False}
SMALL = {"and", "of", "the", "for", "with", "in", "to", "a", "an", "or", "per", "on", "by"}
TAKEN = {
    "uuid",
    "name",
    "group_id",
    "labels",
    "created_at",
    "name_embedding",
    "summary",
    "attributes",
    "ended_at",
}
GRAPHITIS = {"Entity", "Episodic", "Community", "Saga", "FtlabGraph"}
# words of a heading that say what one does with its items, not what these are
ABOUT = {
    "guideline",
    "comparison",
    "overview",
    "support",
    "reference",
    "table",
    "relationship",
    "management",
    "faq",
    "development",
}


class Value(NamedTuple):
    """A value as it is written, as a number or truth where it is one, and its unit."""

    text: str
    value: Any
    unit: str


def plain(text: str) -> str:
    """Return a text without Markdown's marks."""
    return re.sub(r"\s+", " ", MARKS.sub("", text)).strip()


def value(text: str) -> Value:
    """Return what a value says: '$1.25 per 1M tokens' is 1.25 USD per 1M tokens, 'Yes' is true."""
    text = plain(text)
    if text.lower() in YES:
        return Value(text, YES[text.lower()], "")
    if found := MONEY.fullmatch(text):
        unit = " ".join([CURRENCY[found[1]], found[3].strip()]).strip()
        return Value(text, float(found[2].replace(",", "")), unit)
    if (found := NUMBER.fullmatch(text)) and len((found[4] or "").split()) <= 3:
        number = float(found[1].replace(",", "")) * THOUSANDS[found[2].lower()]
        whole = int(number) if number.is_integer() else number
        return Value(text, whole, f"{found[3]} {found[4] or ''}".strip().lower())
    return Value(text, text, "")


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


def noun(heading: str) -> str:
    """Return the noun that a heading's items are, as a type: 'OpenAI Models' is Model; '' if none.

    What stands in brackets and after ' by ', ' for ' or ' with ' is left out. 'Use Cases' keeps two
    words: a case alone says nothing.
    """
    text = re.split(r"\s*[(:–—]|\s+(?:by|for|with|without|in|of|on|to)\s+", plain(heading))[0]
    words = [word for word in re.findall(r"[A-Za-z][\w-]*", text) if word.lower() not in SMALL]
    if not words:
        return ""
    last = singular(words[-1])
    kept = (
        [words[-2], last] if last.lower() in {"case", "aspect", "right"} and words[1:] else [last]
    )
    return "".join(word[:1].upper() + word[1:] for word in kept)


def is_plural(heading: str) -> bool:
    """Return whether a heading's last word is a plural."""
    words = re.findall(r"[A-Za-z]+", re.split(r"\s*[(:–—]", plain(heading))[0])
    return bool(words) and singular(words[-1]) != words[-1]


def snake(text: str) -> str:
    """Return a name as an attribute has it: 'Context Window' is context_window."""
    words = re.findall(r"[^\W_]+", plain(text).lower())
    name = "_".join(words) or "value"
    return f"n{name}" if name[0].isdigit() else name


def free(name: str) -> str:
    """Return the name of an attribute that Graphiti, or the kit, has no other use for."""
    return f"stated_{name}" if name in TAKEN else name


def label(text: str) -> str:
    """Return a text as a label that Graphiti takes, and that is none of its own.

    That is ASCII letters, digits and underscores, not a digit first.
    """
    latin = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    found = re.sub(r"\W", "", "".join(w[:1].upper() + w[1:] for w in latin.split()), flags=re.A)
    if not found or found in GRAPHITIS:
        return f"{found}Thing"
    return f"T{found}" if found[0].isdigit() else found


def spoken(name: str) -> str:
    """Return an attribute as people say it: price_input is 'input price'."""
    words = name.split("_")
    return " ".join([*words[1:], words[0]] if words[0] == "price" else words)


def sentence(text: str) -> str:
    """Return a text that ends with a full stop."""
    text = plain(text).rstrip(":;, ")
    return text if text.endswith((".", "!", "?")) else f"{text}."


def lower_first(text: str) -> str:
    """Return a text as it goes on in a sentence: its first word small, unless it is a name."""
    first = text.split(" ")[0]
    is_name = any(letter.isupper() for letter in first[1:]) or any(map(str.isdigit, first))
    return text if is_name else text[:1].lower() + text[1:]


class Names:
    """Names to be found in texts: the longest first, at word bounds, none within another.

    'GPT-5' is not in 'GPT-5 Pro' where both are known, nor in 'GPT-50'.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Take the names; upper and lower case are one."""
        self._by_folded = {name.lower(): name for name in sorted(names, reverse=True)}
        longest = sorted(self._by_folded, key=lambda name: (-len(name), name))
        either = "|".join(re.escape(name) for name in longest) or r"(?!)"
        self._pattern = re.compile(rf"(?<![\w/-])(?:{either})(?!\w|-\w|\.\d)", re.IGNORECASE)

    def within(self, text: str) -> Iterator[str]:
        """Yield the names that stand in a text, in their order, each once."""
        seen = set()
        for found in self._pattern.finditer(text):
            name = self._by_folded.get(found[0].lower())
            if name is not None and name not in seen:
                seen.add(name)
                yield name


def listed(text: str) -> list[str]:
    """Return the parts of 'A, B (with, commas) and C'."""
    parts = re.split(r",\s*(?![^(]*\))|\s+and\s+(?![^(]*\))", plain(text).rstrip("."))
    return [part.strip() for part in parts if part.strip()]


def without_brackets(text: str) -> str:
    """Return a text without what stands in brackets at its end: 'GPT-5 Mini (text-only)'."""
    return re.sub(r"\s*\([^)]*\)\s*$", "", text).strip()

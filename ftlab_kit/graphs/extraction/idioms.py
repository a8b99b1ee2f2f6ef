"""Turns of phrase of one kind of document: a product handbook with a catalogue of things to choose.

The rules were made on such a handbook (models with prices, tiers and capabilities) and read its
phrases: 'Most models except A', 'Models without Vision', 'Price Comparison (Input / Output)',
'Requires `name`'. In other documents they rarely match. What remains there are the forms that every
Markdown has: headings become topics, the first paragraph below a heading describes it, and tables,
labels and endpoints become attributes. README.md beside this file tells more.

Every function takes text and returns its parts, or None (or nothing) where the idiom is absent.
"""

import re
from typing import NamedTuple

from ftlab_kit.graphs.extraction.values import strip_markdown
from ftlab_kit.graphs.extraction.wording import attribute_name

EXCEPT = re.compile(r"(?:most|all)\s+(\w+)\s+(?:except|but)\s+(.+)$", re.IGNORECASE)
HAVING = re.compile(r"(\w+)\s+(with|without)\s+(.+)$", re.IGNORECASE)
COMPARED = re.compile(r"(.+?)\s+Comparison\b\s*(?:\((.+)\))?$", re.IGNORECASE)
REQUIRES = re.compile(r"[Rr]equires?\s+((?:`[^`]+`(?:,\s*|\s+and\s+)?)+)")
CAPABLE = re.compile(r"\s+(?:capabilit(?:y|ies)|support)$", re.IGNORECASE)
FAMILY = re.compile(r"(.+?)\s+(?:models|family|series|variants|line)")
UNIT = re.compile(r"\bper\b.*$")

# nouns of a heading that say what its items are for, not what they are: the items stay topics
ABOUT = frozenset(
    "guideline comparison overview support reference table relationship management faq "
    "development".split()
)
DESCRIBING_KEYS = frozenset(("description", "about", "summary"))  # labels whose value is a sentence
PRICE_KEYS = frozenset("pricing price prices cost costs".split())  # labels above a list of prices
CAPABILITY = "Capability"
# types that other entities are in, so that a definition of one is not a part of its heading
GROUPING_TYPES = frozenset((CAPABILITY, "Tier", "Provider"))


class AllBut(NamedTuple):
    """Everything of a kind but some: the plural noun, and the text that lists who is left out."""

    kind: str
    names: str


class Comparison(NamedTuple):
    """What a heading compares: an attribute, its sides ('input', 'output'), and their unit."""

    attribute: str
    sides: list[str]
    unit: str


class Having(NamedTuple):
    """Whether the items of a list have a capability, and which."""

    has_it: bool
    capability: str


def read_all_but(text: str) -> AllBut | None:
    """Return the parts of 'Most models except A and B'."""
    match = EXCEPT.match(text)
    return AllBut(match[1], match[2]) if match else None


def read_comparison(heading: str) -> Comparison | None:
    """Return the parts of 'Price Comparison (Input / Output per 1M tokens)'."""
    match = COMPARED.match(heading)
    if not match:
        return None
    columns = match[2] or ""
    unit = UNIT.search(columns)
    names = columns[: unit.start()] if unit else columns
    sides = [attribute_name(side) for side in names.split("/") if side.strip()]
    return Comparison(attribute_name(match[1]), sides, unit[0] if unit else "")


def read_compared(text: str) -> tuple[str, list[str]] | None:
    """Return who and which values 'GPT-5: $1.25 / $10.00' names."""
    match = re.match(r"(.+?):\s+(\S.*)$", strip_markdown(text))
    return (match[1], [part.strip() for part in re.split(r"\s+/\s+", match[2])]) if match else None


def read_having(label: str) -> Having | None:
    """Return the parts of 'Models with Vision Capabilities' or 'Models without Vision'."""
    match = HAVING.match(label)
    if not match:
        return None
    return Having(match[2].lower() == "with", CAPABLE.sub("", strip_markdown(match[3])))


def required_parameters(text: str) -> list[str]:
    """Return the names in 'Requires `name`, `size` and `kind`'."""
    return [name for names in REQUIRES.findall(text) for name in re.findall(r"`([^`]+)`", names)]


def family_prefix(text: str) -> str | None:
    """Return the beginning of the names that 'GPT-5 family' means, in lower case."""
    match = FAMILY.fullmatch(text)
    prefix = match[1].lower() if match else None
    return None if prefix in ("all", "most", "other") else prefix

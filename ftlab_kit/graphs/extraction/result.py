"""What an extraction yields: chunks of the text, things, and claims with their lines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ftlab_kit.graphs.loaders import Line


class Mention(NamedTuple):
    """An entity, by what makes it one: its type and its name."""

    type: str
    name: str


class Chunk(NamedTuple):
    """A part of a document that is kept and searched as a whole."""

    text: str
    first: Line
    last: Line
    title: str


@dataclass(frozen=True)
class Claim:
    """A sentence about one thing (source is target) or two, and the lines that say it.

    `sets` are the attributes of the source that it gives a value. `is_inferred` marks what no line
    says in so many words.
    """

    source: Mention
    relation: str
    target: Mention
    sentence: str
    first: Line
    last: Line
    sets: Mapping[str, Any] = field(default_factory=dict, hash=False)
    unit: str = ""
    is_inferred: bool = False


@dataclass
class Extract:
    """A document, read: its chunks, what it claims, which chunk mentions what, and its date.

    `at` is the number of the chunk that a line stands in.
    """

    chunks: list[Chunk] = field(default_factory=list)
    at: dict[Line, int] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    mentions: set[tuple[int, Mention]] = field(default_factory=set)
    dated_at: datetime | None = None

"""The result of an extraction: chunks of the text, entities, and claims with their lines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ftlab_kit.graphs.loaders import Line


class Mention(NamedTuple):
    """An entity as a document names it. Two are the same if type and name are."""

    type: str
    name: str


class Chunk(NamedTuple):
    """A part of a document that is stored and searched as one. `title` is its path of headings."""

    text: str
    first: Line
    last: Line
    title: str


@dataclass(frozen=True)
class Claim:
    """A sentence about one entity (source is target) or two, and the lines that state it.

    `sets` are the attributes that it gives the source. `is_inferred` marks a claim that no line
    states literally.
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
    """A document after extraction.

    Attributes:
        chunk_of_line: By line, the number of its chunk.
        mentions: Which chunk (by number) mentions which entity.
        dated_at: The date that the document gives itself; None if it gives none.
    """

    chunks: list[Chunk] = field(default_factory=list)
    chunk_of_line: dict[Line, int] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    mentions: set[tuple[int, Mention]] = field(default_factory=set)
    dated_at: datetime | None = None

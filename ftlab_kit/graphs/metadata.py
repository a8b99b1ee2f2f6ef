"""What the kit stores beside Graphiti's own fields: with each chunk, and with each fact.

A chunk's metadata is JSON in its `source_description`: document, path, lines, version, and when it
ended. A fact's are attributes: its evidence (the lines of each chunk that states it) and the values
that it gives to attributes of its source.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from graphiti_core.edges import EntityEdge
from graphiti_core.nodes import EpisodicNode

from ftlab_kit.graphs.extraction import Claim

EVIDENCE, VALUES, UNIT, INFERRED = "evidence", "sets", "unit", "is_inferred"


class Evidence(NamedTuple):
    """The lines of a chunk that state a fact; `part` is the page or cell that they count in."""

    chunk_id: str
    first_line: int
    last_line: int
    part: str


def of_chunk(chunk: EpisodicNode) -> dict[str, Any]:
    """Return a chunk's metadata; nothing for one that the kit did not write."""
    try:
        metadata = json.loads(chunk.source_description)
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def as_text(metadata: Mapping[str, Any]) -> str:
    """Return a chunk's metadata as it is stored."""
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)


def is_live(chunk: EpisodicNode) -> bool:
    """Return whether the newest version of its document still has a chunk."""
    return not of_chunk(chunk).get("ended_at")


def ended_at(chunk: EpisodicNode) -> datetime | None:
    """Return when a newer version without a chunk came to hold; None for a live chunk."""
    return time(of_chunk(chunk).get("ended_at"))


def time(text: str | None) -> datetime | None:
    """Return a time that is stored as text."""
    return datetime.fromisoformat(text) if text else None


def values(fact: EntityEdge) -> dict[str, Any]:
    """Return the values that a fact gives to attributes of its source."""
    stored: dict[str, Any] = json.loads(fact.attributes.get(VALUES, "{}"))
    return stored


def evidence_text(chunk_id: str, claim: Claim) -> str:
    """Return the lines of a chunk that make a claim, as evidence is stored."""
    return f"{chunk_id}|{claim.first.number}|{claim.last.number}|{claim.first.part}"


def evidence(text: str) -> Evidence:
    """Return evidence from its stored text."""
    chunk_id, first, last, part = text.split("|", 3)
    return Evidence(chunk_id, int(first), int(last), part)


def chunk_of_evidence(text: str) -> str:
    """Return the uuid of the chunk that evidence stands in."""
    return text.split("|", 1)[0]

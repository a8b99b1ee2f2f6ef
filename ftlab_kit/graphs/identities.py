"""The uuids of what a graph holds, computed from what makes each thing itself.

The same document, loaded twice or in two graphs of one owner, so gets the same uuids.
"""

import json
import uuid

from ftlab_kit.graphs.extraction import Claim, Mention

NAMESPACE = uuid.UUID("8a6b0a52-5d0c-4d0b-9a3e-0c6f6a3f4f11")


def identity(*parts: str) -> str:
    """Return the uuid of what these parts identify."""
    return str(uuid.uuid5(NAMESPACE, "\x1f".join(parts)))


def document_id(group: str, name: str) -> str:
    """Return the uuid of a document."""
    return identity(group, "document", name)


def entity_id(group: str, mention: Mention) -> str:
    """Return the uuid of an entity."""
    return identity(group, "entity", mention.type, mention.name)


def fact_id(group: str, claim: Claim) -> str:
    """Return the uuid of a fact: its ends, its relation, its value and its sentence.

    The same value in other words ('256K', '256,000') is another fact. Otherwise a fact's sentence
    would depend on which document came first, and would stay when that one is deleted.
    """
    ends = [entity_id(group, claim.source), claim.relation, entity_id(group, claim.target)]
    values = json.dumps(claim.sets, sort_keys=True)
    return identity(group, "fact", *ends, claim.sentence, values)


def mention_id(chunk_id: str, entity_id: str) -> str:
    """Return the uuid of the edge from a chunk to an entity that it mentions."""
    return identity(chunk_id, "mentions", entity_id)


def next_id(chunk_id: str, next_chunk_id: str) -> str:
    """Return the uuid of the edge from a chunk to the next one."""
    return identity(chunk_id, "next", next_chunk_id)


def chunk_edge_id(document_id: str, chunk_id: str) -> str:
    """Return the uuid of the edge from a document to a chunk of it."""
    return identity(document_id, "has", chunk_id)

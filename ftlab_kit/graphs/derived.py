"""What follows from chunks and their evidence: facts with their times, mentions, entities.

A fact lives while a chunk states it, ends when the last such chunk was replaced, and is removed
when its last document is. An entity has the attributes and the summary of its living facts, and
goes with its last mention.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from graphiti_core.edges import EntityEdge, EpisodicEdge
from graphiti_core.nodes import EntityNode, EpisodicNode

from ftlab_kit.graphs import metadata
from ftlab_kit.graphs.document_state import FAR, State
from ftlab_kit.graphs.extraction import Claim, Mention
from ftlab_kit.graphs.identities import entity_id, mention_id
from ftlab_kit.graphs.metadata import EVIDENCE, INFERRED, UNIT, VALUES

SUMMARY_CHARACTERS = 400


# facts


def changed_facts(
    group: str, old: Mapping[str, EntityEdge], before: Mapping[str, EpisodicNode], state: State
) -> dict[str, EntityEdge]:
    """Return the facts whose evidence changes, with their new evidence; times are not set yet.

    Args:
        group: The graph's group.
        old: Facts of the entities that the change touches, by uuid.
        before: The document's chunks before the change.
        state: The document after it.
    """
    changed: dict[str, EntityEdge] = {}
    for key, fact in old.items():
        is_of_document = any(chunk_id in before for chunk_id in fact.episodes)
        if is_of_document and key not in state.claims:
            changed[key] = _with_evidence(fact, before, state, set())
    for key, (claim, evidence) in state.claims.items():
        fact = old.get(key) or _fact(group, key, claim)
        changed[key] = _with_evidence(fact, before, state, evidence)
    return changed


def _fact(group: str, key: str, claim: Claim) -> EntityEdge:
    attributes: dict[str, Any] = {}
    if claim.sets:
        attributes[VALUES] = json.dumps(claim.sets, sort_keys=True)
    if claim.unit:
        attributes[UNIT] = claim.unit
    if claim.is_inferred:
        attributes[INFERRED] = True
    return EntityEdge(
        uuid=key,
        group_id=group,
        source_node_uuid=entity_id(group, claim.source),
        target_node_uuid=entity_id(group, claim.target),
        name=claim.relation,
        fact=claim.sentence,
        created_at=FAR,
        attributes=attributes,
    )


def _with_evidence(
    fact: EntityEdge, before: Mapping[str, EpisodicNode], state: State, new: set[str]
) -> EntityEdge:
    """Return a fact with its document's new evidence; that of chunks which ended stays."""
    old: list[str] = fact.attributes.get(EVIDENCE) or []
    of_others = {item for item in old if metadata.chunk_of_evidence(item) not in before}
    of_ended = {item for item in old if metadata.chunk_of_evidence(item) in state.ended}
    evidence = sorted(of_others | of_ended | new)
    # what a language model found in a chunk has no lines, and so no evidence
    without_lines = {
        chunk_id for chunk_id in fact.episodes if not any(item.startswith(chunk_id) for item in old)
    }
    without_lines = {
        chunk_id
        for chunk_id in without_lines
        if chunk_id not in before or chunk_id in state.episodes
    }
    episodes = sorted({metadata.chunk_of_evidence(item) for item in evidence} | without_lines)
    attributes = dict(fact.attributes) | ({EVIDENCE: evidence} if evidence else {})
    if not evidence:
        attributes.pop(EVIDENCE, None)
    return fact.model_copy(update={"episodes": episodes, "attributes": attributes})


def set_times(fact: EntityEdge, chunks: Mapping[str, EpisodicNode]) -> None:
    """Give a fact its times: those of the chunks that state it."""
    stating = [chunks[key] for key in fact.episodes if key in chunks]
    if not stating:
        return
    ends = [metadata.ended_at(chunk) for chunk in stating]
    known_ends = [
        metadata.time(metadata.of_chunk(chunk).get("ended_known_at")) for chunk in stating
    ]
    ended = max(end for end in ends if end) if all(ends) else None
    expired = max(end for end in known_ends if end) if all(ends) else None
    if EVIDENCE not in fact.attributes and fact.created_at != FAR:
        # a language model found it, and its dates
        if ended and fact.invalid_at is None:
            fact.invalid_at, fact.expired_at = ended, expired
        return
    fact.valid_at = fact.reference_time = _since(stating)
    fact.created_at = min(chunk.created_at for chunk in stating)
    fact.invalid_at, fact.expired_at = ended, expired


def _since(stating: Sequence[EpisodicNode]) -> datetime:
    """Return the time since which chunks have stated something without a gap, up to its end."""
    spans = [(metadata.ended_at(chunk) or FAR, chunk.valid_at) for chunk in stating]
    spans.sort(reverse=True)
    since: datetime = spans[0][1]
    for end, begin in spans:
        if end < since:
            break
        since = min(since, begin)
    return since


# mentions


def mentions_after(
    group: str, old: Sequence[EpisodicEdge], before: Mapping[str, EpisodicNode], state: State
) -> dict[str, EpisodicEdge]:
    """Return the mentions of the touched entities after a change, by uuid."""
    mentions = {
        edge.uuid: edge
        for edge in old
        if edge.source_node_uuid not in before or edge.source_node_uuid in state.ended
    }
    for chunk_id, mention in state.mentions:
        target = entity_id(group, mention)
        edge = EpisodicEdge(
            uuid=mention_id(chunk_id, target),
            group_id=group,
            source_node_uuid=chunk_id,
            target_node_uuid=target,
            created_at=state.episodes[chunk_id].created_at,
        )
        mentions[edge.uuid] = edge
    # what a language model found in a chunk that stays
    for edge in old:
        if edge.source_node_uuid in state.order and not _is_by_kit(edge):
            mentions[edge.uuid] = edge
    return mentions


def _is_by_kit(edge: EpisodicEdge) -> bool:
    return bool(edge.uuid == mention_id(edge.source_node_uuid, edge.target_node_uuid))


# entities


def by_end(facts: Iterable[EntityEdge]) -> dict[str, list[EntityEdge]]:
    """Return facts by the uuid of each of their ends."""
    edges: dict[str, list[EntityEdge]] = {}
    for fact in facts:
        for end in {fact.source_node_uuid, fact.target_node_uuid}:
            edges.setdefault(end, []).append(fact)
    return edges


def by_entity(mentions: Iterable[EpisodicEdge]) -> dict[str, list[EpisodicEdge]]:
    """Return mentions by the uuid of the entity that they mention."""
    edges: dict[str, list[EpisodicEdge]] = {}
    for edge in mentions:
        edges.setdefault(edge.target_node_uuid, []).append(edge)
    return edges


def new_entity(group: str, key: str, mention: Mention) -> EntityNode:
    """Return an entity that the graph does not have yet."""
    labels = ["Entity", mention.type]
    return EntityNode(uuid=key, name=mention.name, group_id=group, labels=labels, summary="")


def entity_after(
    group: str, node: EntityNode, facts: Sequence[EntityEdge], mentions: Sequence[EpisodicEdge]
) -> EntityNode:
    """Return an entity with the attributes, summary and times that facts and mentions give it."""
    is_by_kit = node.uuid in {entity_id(group, Mention(label, node.name)) for label in node.labels}
    living = [fact for fact in facts if fact.invalid_at is None]
    attributes, summary = describe(node.uuid, living, {} if is_by_kit else node.attributes)
    if not living and facts:
        ended_at = max(fact.invalid_at for fact in facts if fact.invalid_at)
        attributes["ended_at"] = ended_at.isoformat()
    created_at = min(edge.created_at for edge in mentions) if is_by_kit else node.created_at
    return node.model_copy(
        update={
            "attributes": dict(sorted(attributes.items())),
            "summary": summary,
            "created_at": created_at,
            "labels": sorted(node.labels),
        }
    )


def describe(
    key: str, facts: Sequence[EntityEdge], other_attributes: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return an entity's attributes and summary.

    Args:
        key: The entity's uuid.
        facts: Facts that touch it; the latest value of an attribute wins.
        other_attributes: Attributes that no fact gives.
    """
    attributes = dict(other_attributes)
    for fact in sorted(facts, key=lambda fact: (fact.valid_at or FAR, fact.uuid)):
        if fact.source_node_uuid == key:
            attributes |= metadata.values(fact)
    summary = str(attributes.get("description") or _sentences(facts))
    return attributes, summary[:SUMMARY_CHARACTERS]


def _sentences(facts: Sequence[EntityEdge]) -> str:
    """Return the sentences of facts that fit into a summary, in alphabetical order."""
    text = ""
    for sentence in sorted({fact.fact for fact in facts}):
        if len(text) + len(sentence) < SUMMARY_CHARACTERS:
            text = f"{text} {sentence}".strip()
    return text

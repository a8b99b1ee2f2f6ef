"""What a graph holds, as a function of its documents: putting one in, and taking one out exactly.

A document is a saga, its chunks are episodes, and every fact names the lines of the chunks that
state it (its evidence). All else is derived from evidence. So it makes no difference in which order
documents came, or which others came and went.

`document_state` has a document's chunks after a change, `derived` what follows from them; this file
compares both with what the graph holds, and writes the difference as one change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphiti_core.edges import EntityEdge, EpisodicEdge, HasEpisodeEdge, NextEpisodeEdge
from graphiti_core.nodes import EntityNode, EpisodicNode

from ftlab_kit.errors import Conflict
from ftlab_kit.graphs import derived, metadata, owner_groups
from ftlab_kit.graphs.document_state import Draft, State, chunks_of, state_after, version_of
from ftlab_kit.graphs.drivers.protocol import Change
from ftlab_kit.graphs.extraction import Mention
from ftlab_kit.graphs.identities import chunk_edge_id, document_id, entity_id, fact_id, next_id
from ftlab_kit.graphs.open_graph import Graph


@dataclass
class ChangeSummary:
    """What a change did: the document's live chunks, and facts that came, ended and went."""

    n_chunks: int = 0
    n_entities: int = 0
    n_facts: int = 0
    n_new_facts: int = 0
    n_ended_facts: int = 0
    n_removed_facts: int = 0
    version: int = 1
    touched: list[str] = field(default_factory=list)


async def put(graph: Graph, draft: Draft, vectors: Mapping[str, list[float]]) -> ChangeSummary:
    """Put a document into a graph, or its new content in place of the old; all or nothing.

    Args:
        graph: The open graph.
        draft: The document.
        vectors: By text, for names of entities and sentences of facts that may be new.
    """
    async with graph.driver.write_transaction(graph.group):
        before = await chunks_of(graph, draft.name)
        state = state_after(graph, draft, before)
        return await _settle(graph, draft.name, before, state, vectors)


async def drop(graph: Graph, name: str) -> ChangeSummary:
    """Take a document out of a graph, with all that nothing else states."""
    async with graph.driver.write_transaction(graph.group):
        before = await chunks_of(graph, name)
        return await _settle(graph, name, before, State(), {})


async def new_texts(graph: Graph, draft: Draft) -> list[str]:
    """Return the texts of a draft that the graph has no vector of yet: names, and sentences."""
    claims, group = draft.extract.claims, graph.group
    sentences = {fact_id(group, claim): claim.sentence for claim in claims}
    mentions = {end for claim in claims for end in (claim.source, claim.target)}
    mentions |= {mention for _, mention in draft.extract.mentions}
    names = {entity_id(group, mention): mention.name for mention in mentions}
    nodes = await EntityNode.get_by_uuids(graph.driver, sorted(names)) if names else []
    edges = await EntityEdge.get_by_uuids(graph.driver, sorted(sentences)) if sentences else []
    present = {item.uuid for item in (*nodes, *edges)}
    return sorted({text for key, text in (sentences | names).items() if key not in present})


async def _settle(
    graph: Graph,
    name: str,
    before: Mapping[str, EpisodicNode],
    state: State,
    vectors: Mapping[str, list[float]],
) -> ChangeSummary:
    """Write a document's state, and everything that follows from it."""
    mentioned = _mentioned(graph, state)
    touched = await _touched(graph, before) | mentioned.keys()
    around = await graph.driver.around(graph.group, sorted(touched))
    _check_embedder(graph, around.metadata)
    old_facts = {fact.uuid: fact for fact in around.facts}
    old_nodes = {node.uuid: node for node in await _nodes(graph, sorted(touched))}
    # a fact's other end may not be touched itself, and keeps what it has
    facts = derived.changed_facts(graph.group, old_facts, before, state)
    chunks = await _chunks(graph, before, state, facts.values())
    for fact in facts.values():
        derived.set_times(fact, chunks)
    removed = [key for key in old_facts if key in facts and not facts[key].episodes]
    live = {key: fact for key, fact in (old_facts | facts).items() if key not in removed}
    mentions = derived.mentions_after(graph.group, around.mentions, before, state)
    change = Change(group=graph.group)
    change.nodes, change.deleted_nodes = _changed_entities(
        graph.group,
        old_nodes,
        {key: derived.new_entity(graph.group, key, mention) for key, mention in mentioned.items()},
        derived.by_end(live.values()),
        derived.by_entity(mentions.values()),
    )
    remaining = touched - set(change.deleted_nodes)
    change.edges += [
        fact
        for key, fact in facts.items()
        if key in live and not _is_alike(fact, old_facts.get(key))
    ]
    old_mentions = {edge.uuid for edge in around.mentions}
    change.edges += [edge for key, edge in mentions.items() if key not in old_mentions]
    change.deleted_edges += removed
    change.deleted_edges += [edge.uuid for edge in around.mentions if edge.uuid not in mentions]
    _change_document(graph, change, name, before, state, facts)
    _set_vectors(graph, change, old_nodes.keys() | old_facts.keys(), vectors)
    change.metadata = {
        "embedder": graph.embedder.name,
        "dimension": str(graph.embedder.dimension),
        owner_groups.OWNER: graph.ws.owner,
    }
    await graph.driver.write(change)
    return _summary(graph, old_facts, live, removed, state, remaining)


def _check_embedder(graph: Graph, about: Mapping[str, str]) -> None:
    """Refuse to write vectors beside those of another embedder.

    Raises:
        Conflict: Another process has begun the graph with another one since it was opened here.
    """
    if about.get("embedder", graph.embedder.name) != graph.embedder.name:
        raise Conflict(
            f"{graph.address} is now embedded with {about['embedder']}, not with "
            f"{graph.embedder.name}. Open the workspace again."
        )


def _mentioned(graph: Graph, state: State) -> dict[str, Mention]:
    """Return the entities that a document mentions or makes claims about, by uuid."""
    ends = [end for claim, _ in state.claims.values() for end in (claim.source, claim.target)]
    mentions = {*ends, *(mention for _, mention in state.mentions)}
    return {entity_id(graph.group, mention): mention for mention in mentions}


async def _touched(graph: Graph, before: Mapping[str, EpisodicNode]) -> set[str]:
    """Return the entities that a document's chunks mention before the change."""
    from graphiti_core.search.search_utils import get_mentioned_nodes

    if not before:
        return set()
    mentioned = await get_mentioned_nodes(graph.driver, list(before.values()))
    keys = sorted({key for chunk in before.values() for key in chunk.entity_edges})
    facts = await EntityEdge.get_by_uuids(graph.driver, keys) if keys else []
    ends = {end for fact in facts for end in (fact.source_node_uuid, fact.target_node_uuid)}
    return ends | {node.uuid for node in mentioned}


async def _nodes(graph: Graph, keys: Sequence[str]) -> list[EntityNode]:
    nodes = await EntityNode.get_by_uuids(graph.driver, list(keys)) if keys else []
    return list(nodes)


async def _chunks(
    graph: Graph,
    before: Mapping[str, EpisodicNode],
    state: State,
    facts: Iterable[EntityEdge],
) -> dict[str, EpisodicNode]:
    """Return the chunks that facts depend on, this document's as they are after the change."""
    stating = {key for fact in facts for key in fact.episodes}
    of_others = sorted(stating - state.episodes.keys() - before.keys())
    chunks = await EpisodicNode.get_by_uuids(graph.driver, of_others) if of_others else []
    return {chunk.uuid: chunk for chunk in chunks} | state.episodes


def _changed_entities(
    group: str,
    old: Mapping[str, EntityNode],
    mentioned: Mapping[str, EntityNode],
    facts: Mapping[str, Sequence[EntityEdge]],
    mentions: Mapping[str, Sequence[EpisodicEdge]],
) -> tuple[list[Any], list[str]]:
    """Return the entities that differ after a change, and those that go with their last mention."""
    changed, gone = [], []
    for key, node in sorted({**mentioned, **old}.items()):
        if key not in mentions:
            gone += [key] if key in old else []
            continue
        after = derived.entity_after(group, node, facts.get(key, []), mentions[key])
        if not _is_alike(after, old.get(key)):
            changed.append(after)
    return changed, gone


def _is_alike(item: Any, other: Any) -> bool:
    """Return whether two nodes or edges are the same except for their vectors."""
    vectors = {"name_embedding", "fact_embedding"}
    if other is None:
        return False
    return bool(item.model_dump(exclude=vectors) == other.model_dump(exclude=vectors))


def _change_document(
    graph: Graph,
    change: Change,
    name: str,
    before: Mapping[str, EpisodicNode],
    state: State,
    facts: Mapping[str, EntityEdge],
) -> None:
    """Add the document's saga, its chunks and the edges between them to a change."""
    change.deleted_nodes += [key for key in before if key not in state.episodes]
    old_order = [key for key, chunk in before.items() if metadata.is_live(chunk)]
    old_links = [next_id(first, second) for first, second in _pairs(old_order)]
    if state.saga is None:
        change.deleted_edges += old_links
        change.deleted_nodes.append(document_id(graph.group, name))
        return
    new_links = {next_id(first, second) for first, second in _pairs(state.order)}
    change.deleted_edges += [key for key in old_links if key not in new_links]
    _set_facts_of_chunks(before, state, facts)
    change.nodes += [state.saga, *state.episodes.values()]
    for key, chunk in state.episodes.items():
        change.edges.append(
            HasEpisodeEdge(
                uuid=chunk_edge_id(state.saga.uuid, key),
                group_id=graph.group,
                source_node_uuid=state.saga.uuid,
                target_node_uuid=key,
                created_at=chunk.created_at,
            )
        )
    for first, second in _pairs(state.order):
        change.edges.append(
            NextEpisodeEdge(
                uuid=next_id(first, second),
                group_id=graph.group,
                source_node_uuid=first,
                target_node_uuid=second,
                created_at=state.episodes[second].created_at,
            )
        )


def _set_facts_of_chunks(
    before: Mapping[str, EpisodicNode], state: State, facts: Mapping[str, EntityEdge]
) -> None:
    """Give each chunk the list of the facts that it states."""
    by_chunk: dict[str, set[str]] = {}
    for key, fact in facts.items():
        for chunk_id in fact.episodes:
            by_chunk.setdefault(chunk_id, set()).add(key)
    for chunk_id, chunk in state.episodes.items():
        old = before[chunk_id].entity_edges if chunk_id in before else []
        unchanged = {key for key in old if key not in facts}
        chunk.entity_edges = sorted(by_chunk.get(chunk_id, set()) | unchanged)


def _pairs(order: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(order, order[1:], strict=False)


def _set_vectors(
    graph: Graph, change: Change, old: set[str], vectors: Mapping[str, list[float]]
) -> None:
    """Give entities and facts of a change their vectors; one that the graph has already stays."""
    items = (*change.nodes, *change.edges)
    new_texts = {text for item in items if item.uuid not in old and (text := _text(item))}
    # what was there when the vectors were computed may have gone before the graph was held
    late = list(new_texts - vectors.keys())
    vectors = {**vectors, **dict(zip(late, graph.vectors(late), strict=True))}
    for item in items:
        if isinstance(item, EntityNode):
            item.name_embedding = vectors.get(item.name)
        elif isinstance(item, EntityEdge):
            item.fact_embedding = vectors.get(item.fact)


def _text(item: Any) -> str | None:
    """Return the text that an entity's or a fact's vector is of; None for all else."""
    if isinstance(item, EntityNode):
        return str(item.name)
    return str(item.fact) if isinstance(item, EntityEdge) else None


def _summary(
    graph: Graph,
    old_facts: Mapping[str, EntityEdge],
    live: Mapping[str, EntityEdge],
    removed: Sequence[str],
    state: State,
    remaining: set[str],
) -> ChangeSummary:
    ended = [
        key
        for key, fact in live.items()
        if fact.invalid_at and key in old_facts and old_facts[key].invalid_at is None
    ]
    order = set(state.order)
    return ChangeSummary(
        n_chunks=len(state.order),
        n_entities=len({entity_id(graph.group, mention) for _, mention in state.mentions}),
        n_facts=sum(bool(order & set(fact.episodes)) for fact in live.values()),
        n_new_facts=len(live.keys() - old_facts.keys()),
        n_ended_facts=len(ended),
        n_removed_facts=len(removed),
        version=version_of(state.episodes.values()),
        touched=sorted(remaining),
    )

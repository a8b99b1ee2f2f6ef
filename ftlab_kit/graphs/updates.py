"""What a graph holds, as a function of its documents: how one is put in, and taken out exactly.

A document is a saga, its chunks are episodes, and every fact names the lines of the chunks that say
it (its evidence). All else is worked out from evidence: a fact lives while a chunk says it, ends
when the last such chunk was replaced, and is gone when its last document is; an entity has the
attributes and the summary of its living facts, and goes with its last mention. So it makes no
difference in which order documents came, or which others came and went.

A chunk's identity is its document, its text and what it claims. Changed chunks are new ones; those
they replace stay, with the date on which they ended: Graphiti's two times.
"""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from graphiti_core.edges import EntityEdge, EpisodicEdge, HasEpisodeEdge, NextEpisodeEdge
from graphiti_core.nodes import EntityNode, EpisodeType, EpisodicNode, SagaNode

from ftlab_kit.errors import Conflict
from ftlab_kit.graphs import extraction
from ftlab_kit.graphs.drivers.protocol import Change
from ftlab_kit.graphs.extraction import Claim, Extract, Mention
from ftlab_kit.graphs.loaders import Line
from ftlab_kit.graphs.open_graph import Graph

SPACE = uuid.UUID("8a6b0a52-5d0c-4d0b-9a3e-0c6f6a3f4f11")
FAR = datetime(9999, 1, 1, tzinfo=UTC)
SUMMARY_CHARACTERS = 400
EVIDENCE, SETS, UNIT, INFERRED = "evidence", "sets", "unit", "is_inferred"


@dataclass(frozen=True)
class Draft:
    """A document that is to be put into a graph."""

    name: str
    path: str
    format: str
    sha256: str
    extract: Extract
    dated_at: datetime
    loaded_at: datetime


@dataclass
class ChangeSummary:
    """What a change did: the chunks that live, and how facts came, ended and went."""

    n_chunks: int = 0
    n_entities: int = 0
    n_facts: int = 0
    n_new_facts: int = 0
    n_ended_facts: int = 0
    n_removed_facts: int = 0
    version: int = 1
    touched: list[str] = field(default_factory=list)


@dataclass
class State:
    """A document as it shall be: its episodes, what they say, and what they mention."""

    saga: SagaNode | None
    episodes: dict[str, EpisodicNode]
    ended: set[str]
    claims: dict[str, tuple[Claim, set[str]]] = field(default_factory=dict)  # by fact: its evidence
    mentions: set[tuple[str, Mention]] = field(default_factory=set)
    order: list[str] = field(default_factory=list)


def ident(*parts: str) -> str:
    """Return the uuid of something by what makes it that."""
    return str(uuid.uuid5(SPACE, "\x1f".join(parts)))


def saga_id(graph: Graph, name: str) -> str:
    """Return the uuid of a document."""
    return ident(graph.group, "document", name)


def thing_id(graph: Graph, thing: Mention) -> str:
    """Return the uuid of an entity."""
    return ident(graph.group, "entity", thing.type, thing.name)


def fact_id(graph: Graph, claim: Claim) -> str:
    """Return the uuid of a fact: who, what, with which value, and in which words.

    A value in other words ('256K', '256,000') is another fact: whose words a fact had would else
    depend on which document came first, and stay when that one goes.
    """
    ends = [thing_id(graph, claim.source), claim.relation, thing_id(graph, claim.target)]
    sets = json.dumps(claim.sets, sort_keys=True)
    return ident(graph.group, "fact", *ends, claim.sentence, sets)


def about(episode: EpisodicNode) -> dict[str, Any]:
    """Return what is kept with a chunk: document, path, lines, version, and when it ended."""
    try:
        found = json.loads(episode.source_description)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def when(text: str | None) -> datetime | None:
    """Return a time that is kept as text."""
    return datetime.fromisoformat(text) if text else None


async def episodes_of(graph: Graph, name: str) -> dict[str, EpisodicNode]:
    """Return a document's chunks, those that have ended too, in the order of the document."""
    driver = graph.driver
    found = await graph.graphiti.retrieve_episodes(
        FAR, last_n=10**6, group_ids=[graph.group], saga=name, driver=driver
    )
    found.sort(key=lambda episode: (about(episode).get("n", 0), episode.uuid))
    return {episode.uuid: episode for episode in found}


# putting in


async def put(graph: Graph, draft: Draft, vectors: Mapping[str, list[float]]) -> ChangeSummary:
    """Put a document into a graph, or its new content in place of the old one; all or nothing.

    Args:
        vectors: Of every text that may be new, by text: names of entities, sentences of facts.
    """
    async with graph.driver.write_transaction(graph.group):
        before = await episodes_of(graph, draft.name)
        return await _settle(graph, before, _state(graph, draft, before), vectors)


async def drop(graph: Graph, name: str) -> ChangeSummary:
    """Take a document out of a graph, with all that nothing else says."""
    async with graph.driver.write_transaction(graph.group):
        before = await episodes_of(graph, name)
        nothing = State(None, {}, set())
        return await _settle(graph, before, nothing, {}, saga=saga_id(graph, name))


def is_same(before: Mapping[str, EpisodicNode], sha256: str) -> bool:
    """Return whether a document's living chunks are those of a content."""
    live = [about(episode) for episode in before.values() if not about(episode).get("ended_at")]
    return bool(live) and all(kept.get("sha256") == sha256 for kept in live)


def texts(draft: Draft) -> list[str]:
    """Return every text of a document that has a vector: names and sentences."""
    claims = draft.extract.claims
    names = {end.name for claim in claims for end in (claim.source, claim.target)}
    names |= {thing.name for _, thing in draft.extract.mentions}
    return sorted(names | {claim.sentence for claim in claims})


def _state(graph: Graph, draft: Draft, before: Mapping[str, EpisodicNode]) -> State:
    """Return a document as it shall be: chunks that stay, that are new, and that end."""
    saga = saga_id(graph, draft.name)
    live = {key for key, episode in before.items() if not about(episode).get("ended_at")}
    versions = [about(episode).get("version", 1) for episode in before.values()]
    version = max(versions, default=0) + 1
    state = State(None, {}, set())
    said = _by_chunk(draft.extract)
    seen: Counter[str] = Counter()
    for number, chunk in enumerate(draft.extract.chunks):
        mark = _mark(chunk.text, chunk.title, said[number])
        seen[mark] += 1
        lives = (ident(saga, mark, str(seen[mark]), str(life)) for life in count())
        key = next(key for key in lives if key in live or key not in before)
        kept = before.get(key)
        state.order.append(key)
        state.episodes[key] = EpisodicNode(
            uuid=key,
            name=f"{draft.name} > {chunk.title}" if chunk.title else draft.name,
            group_id=graph.group,
            source=EpisodeType.text,
            source_description=_described(draft, version, number, chunk.first, chunk.last),
            content=chunk.text,
            created_at=kept.created_at if kept else draft.loaded_at,
            valid_at=kept.valid_at if kept else draft.dated_at,
        )
        for claim in said[number]:
            evidence = f"{key}|{claim.first.number}|{claim.last.number}|{claim.first.part}"
            state.claims.setdefault(fact_id(graph, claim), (claim, set()))[1].add(evidence)
    state.mentions = {(state.order[number], thing) for number, thing in draft.extract.mentions}
    for key in before.keys() - state.episodes.keys():
        state.episodes[key] = _ended(before[key], draft) if key in live else before[key]
        state.ended.add(key)
    state.saga = SagaNode(
        uuid=saga,
        name=draft.name,
        group_id=graph.group,
        created_at=min(episode.created_at for episode in state.episodes.values()),
        first_episode_uuid=state.order[0],
        last_episode_uuid=state.order[-1],
    )
    return state


def _by_chunk(extract: Extract) -> list[list[Claim]]:
    said: list[list[Claim]] = [[] for _ in extract.chunks]
    for claim in extract.claims:
        said[extraction.chunk_of(extract, claim)].append(claim)
    return said


def _mark(text: str, title: str, claims: Iterable[Claim]) -> str:
    """Return what makes a chunk the one it is: its text, and what it says."""
    sentences = sorted(f"{claim.relation} {claim.sentence}" for claim in claims)
    return hashlib.sha256("\x1f".join([text, title, *sentences]).encode()).hexdigest()


def _described(draft: Draft, version: int, number: int, first: Line, last: Line) -> str:
    kept = {
        "document": draft.name,
        "path": draft.path,
        "format": draft.format,
        "sha256": draft.sha256,
        "version": version,
        "n": number,
        "part": first.part,
        "lines": [first.number, last.number],
    }
    return json.dumps(kept, sort_keys=True, ensure_ascii=False)


def _ended(episode: EpisodicNode, draft: Draft) -> EpisodicNode:
    """Return a chunk that a new version no longer has."""
    ended_at = max(draft.dated_at, episode.valid_at)
    kept = about(episode) | {"ended_at": ended_at.isoformat()}
    kept["ended_known_at"] = draft.loaded_at.isoformat()
    return episode.model_copy(
        update={"source_description": json.dumps(kept, sort_keys=True, ensure_ascii=False)}
    )


# working out the rest


async def _settle(
    graph: Graph,
    before: Mapping[str, EpisodicNode],
    state: State,
    vectors: Mapping[str, list[float]],
    saga: str | None = None,
) -> ChangeSummary:
    """Write a document's state, and everything that follows from it."""
    things = _things(graph, state)
    touched = await _touched(graph, before) | things.keys()
    around = await graph.driver.around(graph.group, sorted(touched))
    _check_embedder(graph, around.metadata)
    old = {fact.uuid: fact for fact in around.facts}
    nodes = {node.uuid: node for node in await _nodes(graph, sorted(touched))}
    # a fact's other end may not be touched itself, and keeps what it has
    facts = _facts(graph, old, before, state)
    known = await _episodes(graph, before, state, facts.values())
    for fact in facts.values():
        _date(fact, known)
    change = Change(group=graph.group)
    gone_facts = [key for key in old if key in facts and not facts[key].episodes]
    live = {key: fact for key, fact in (old | facts).items() if key not in gone_facts}
    mentions = _mentions(graph, around.mentions, before, state)
    _write_nodes(graph, change, nodes, things, (live, mentions, known), touched)
    kept_nodes = touched - set(change.deleted_nodes)
    change.edges += [
        fact for key, fact in facts.items() if key in live and not _is_alike(fact, old.get(key))
    ]
    there = {link.uuid for link in around.mentions}
    change.edges += [link for key, link in mentions.items() if key not in there]
    change.deleted_edges += gone_facts
    change.deleted_edges += [link.uuid for link in around.mentions if link.uuid not in mentions]
    _write_document(graph, change, before, state, facts, saga)
    new = [item for item in (*change.nodes, *change.edges) if item.uuid not in nodes | old]
    late = {text for item in new if (text := _embedded(item)) and text not in vectors}
    # what was there when the vectors were made may have gone before the graph was held
    vectors = {**vectors, **dict(zip(late, graph.vectors(list(late)), strict=True))}
    for item in (*change.nodes, *change.edges):
        _give_vector(item, vectors)
    change.metadata = {"embedder": graph.embedder.name, "dimension": str(graph.embedder.dimension)}
    await graph.driver.write(change)
    return _counted(graph, old, live, gone_facts, state, kept_nodes)


def _check_embedder(graph: Graph, about: Mapping[str, str]) -> None:
    """Refuse to write vectors beside those of another embedder.

    Raises:
        Conflict: Another process has begun the graph with another one since it was opened here.
    """
    if about.get("embedder", graph.embedder.name) != graph.embedder.name:
        raise Conflict(
            f"The vectors of {graph.address} are by {about['embedder']} now, not by "
            f"{graph.embedder.name}. Open the workspace again."
        )


def _things(graph: Graph, state: State) -> dict[str, Mention]:
    claimed = [end for claim, _ in state.claims.values() for end in (claim.source, claim.target)]
    every = {*claimed, *(thing for _, thing in state.mentions)}
    return {thing_id(graph, thing): thing for thing in every}


async def _touched(graph: Graph, before: Mapping[str, EpisodicNode]) -> set[str]:
    """Return the entities that a document's chunks speak of so far."""
    from graphiti_core.search.search_utils import get_mentioned_nodes

    if not before:
        return set()
    mentioned = await get_mentioned_nodes(graph.driver, list(before.values()))
    keys = sorted({key for episode in before.values() for key in episode.entity_edges})
    facts = await EntityEdge.get_by_uuids(graph.driver, keys) if keys else []
    ends = {end for fact in facts for end in (fact.source_node_uuid, fact.target_node_uuid)}
    return ends | {node.uuid for node in mentioned}


async def _nodes(graph: Graph, keys: Sequence[str]) -> list[EntityNode]:
    found = await EntityNode.get_by_uuids(graph.driver, list(keys)) if keys else []
    return list(found)


def _facts(
    graph: Graph, old: Mapping[str, EntityEdge], before: Mapping[str, EpisodicNode], state: State
) -> dict[str, EntityEdge]:
    """Return the facts whose evidence changes, with the evidence that they shall have."""
    changed: dict[str, EntityEdge] = {}
    for key, fact in old.items():
        mine = {item for item in fact.episodes if item in before}
        if mine and key not in state.claims:
            changed[key] = _with_evidence(fact, before, state, set())
    for key, (claim, evidence) in state.claims.items():
        made = old.get(key) or EntityEdge(
            uuid=key,
            group_id=graph.group,
            source_node_uuid=thing_id(graph, claim.source),
            target_node_uuid=thing_id(graph, claim.target),
            name=claim.relation,
            fact=claim.sentence,
            created_at=FAR,
            attributes=_attributes(claim),
        )
        changed[key] = _with_evidence(made, before, state, evidence)
    return changed


def _attributes(claim: Claim) -> dict[str, Any]:
    found: dict[str, Any] = {SETS: json.dumps(claim.sets, sort_keys=True)} if claim.sets else {}
    if claim.unit:
        found[UNIT] = claim.unit
    if claim.is_inferred:
        found[INFERRED] = True
    return found


def _with_evidence(
    fact: EntityEdge, before: Mapping[str, EpisodicNode], state: State, new: set[str]
) -> EntityEdge:
    """Return a fact with its document's evidence as it shall be; of chunks that ended it stays."""
    said: list[str] = fact.attributes.get(EVIDENCE) or []
    others = {item for item in said if item.split("|")[0] not in before}
    ended = {item for item in said if item.split("|")[0] in state.ended}
    evidence = sorted(others | ended | new)
    plain = {  # evidence of a language model has no lines
        item for item in fact.episodes if not any(mark.startswith(item) for mark in said)
    }
    kept = {item for item in plain if item not in before or item in state.episodes}
    episodes = sorted({item.split("|")[0] for item in evidence} | kept)
    attributes = dict(fact.attributes) | ({EVIDENCE: evidence} if evidence else {})
    if not evidence:
        attributes.pop(EVIDENCE, None)
    return fact.model_copy(update={"episodes": episodes, "attributes": attributes})


async def _episodes(
    graph: Graph,
    before: Mapping[str, EpisodicNode],
    state: State,
    facts: Iterable[EntityEdge],
) -> dict[str, EpisodicNode]:
    """Return the chunks that facts lean on, as they shall be."""
    wanted = (
        {key for fact in facts for key in fact.episodes} - state.episodes.keys() - before.keys()
    )
    found = await EpisodicNode.get_by_uuids(graph.driver, sorted(wanted)) if wanted else []
    return {episode.uuid: episode for episode in found} | state.episodes


def _date(fact: EntityEdge, known: Mapping[str, EpisodicNode]) -> None:
    """Give a fact its times: those of the chunks that say it."""
    said = [known[key] for key in fact.episodes if key in known]
    if not said:
        return
    ends = [when(about(episode).get("ended_at")) for episode in said]
    known_at = [when(about(episode).get("ended_known_at")) for episode in said]
    ended = max(end for end in ends if end) if all(ends) else None
    expired = max(end for end in known_at if end) if all(ends) else None
    if EVIDENCE not in fact.attributes and fact.created_at != FAR:
        if ended and fact.invalid_at is None:  # a language model had found it, and its dates
            fact.invalid_at, fact.expired_at = ended, expired
        return
    fact.valid_at = fact.reference_time = _since(said)
    fact.created_at = min(episode.created_at for episode in said)
    fact.invalid_at, fact.expired_at = ended, expired


def _since(said: Sequence[EpisodicNode]) -> datetime:
    """Return from when on something was said without a gap, chunk after chunk, up to its end."""
    spans = [(when(about(episode).get("ended_at")) or FAR, episode.valid_at) for episode in said]
    spans.sort(reverse=True)
    since: datetime = spans[0][1]
    for end, begin in spans:
        if end < since:
            break
        since = min(since, begin)
    return since


def _mentions(
    graph: Graph,
    old: Sequence[EpisodicEdge],
    before: Mapping[str, EpisodicNode],
    state: State,
) -> dict[str, EpisodicEdge]:
    """Return the mentions that there shall be of what is touched."""
    stay = {
        link.uuid: link
        for link in old
        if link.source_node_uuid not in before or link.source_node_uuid in state.ended
    }
    for key, thing in state.mentions:
        target = thing_id(graph, thing)
        made = EpisodicEdge(
            uuid=ident(key, "mentions", target),
            group_id=graph.group,
            source_node_uuid=key,
            target_node_uuid=target,
            created_at=state.episodes[key].created_at,
        )
        stay[made.uuid] = made
    # what a language model has found in a chunk that stays
    for link in old:
        if link.source_node_uuid in state.order and not _is_ours(link):
            stay[link.uuid] = link
    return stay


def _is_ours(link: EpisodicEdge) -> bool:
    return bool(link.uuid == ident(link.source_node_uuid, "mentions", link.target_node_uuid))


def _write_nodes(
    graph: Graph,
    change: Change,
    nodes: Mapping[str, EntityNode],
    things: Mapping[str, Mention],
    after: tuple[Mapping[str, EntityEdge], Mapping[str, EpisodicEdge], Mapping[str, EpisodicNode]],
    touched: Iterable[str],
) -> None:
    """Work entities out from their facts and mentions; those without a mention go."""
    live, mentions, _ = after
    facts: dict[str, list[EntityEdge]] = {}
    for fact in live.values():
        for end in {fact.source_node_uuid, fact.target_node_uuid}:
            facts.setdefault(end, []).append(fact)
    links: dict[str, list[EpisodicEdge]] = {}
    for link in mentions.values():
        links.setdefault(link.target_node_uuid, []).append(link)
    for key in sorted(touched):
        if key not in links:
            if key in nodes:
                change.deleted_nodes.append(key)
            continue
        node = nodes.get(key) or _node(graph, key, things[key])
        made = _worked_out(graph, node, facts.get(key, []), links[key])
        if key not in nodes or not _is_alike(made, nodes[key]):
            change.nodes.append(made)


def _node(graph: Graph, key: str, thing: Mention) -> EntityNode:
    return EntityNode(
        uuid=key, name=thing.name, group_id=graph.group, labels=["Entity", thing.type], summary=""
    )


def _worked_out(
    graph: Graph, node: EntityNode, facts: Sequence[EntityEdge], links: Sequence[EpisodicEdge]
) -> EntityNode:
    """Return an entity with the attributes, summary and times that its facts and mentions give."""
    ours = node.uuid in {thing_id(graph, Mention(label, node.name)) for label in node.labels}
    living = [fact for fact in facts if fact.invalid_at is None]
    attributes, summary = describe(node.uuid, living, {} if ours else node.attributes)
    if not living and facts:
        ended_at = max(fact.invalid_at for fact in facts if fact.invalid_at)
        attributes["ended_at"] = ended_at.isoformat()
    created_at = min(link.created_at for link in links) if ours else node.created_at
    return node.model_copy(
        update={
            "attributes": dict(sorted(attributes.items())),
            "summary": summary,
            "created_at": created_at,
            "labels": sorted(node.labels),
        }
    )


def describe(
    key: str, facts: Sequence[EntityEdge], other: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return the attributes that some facts give an entity beside others, and its summary."""
    attributes = dict(other)
    for fact in sorted(facts, key=lambda fact: (fact.valid_at or FAR, fact.uuid)):
        if fact.source_node_uuid == key:
            attributes |= json.loads(fact.attributes.get(SETS, "{}"))
    summary = str(attributes.get("description") or _sentences(facts))
    return attributes, summary[:SUMMARY_CHARACTERS]


def _sentences(facts: Sequence[EntityEdge]) -> str:
    """Return the first sentences of facts, in an order that is theirs alone."""
    text = ""
    for sentence in sorted({fact.fact for fact in facts}):
        if len(text) + len(sentence) < SUMMARY_CHARACTERS:
            text = f"{text} {sentence}".strip()
    return text


def _is_alike(made: Any, other: Any) -> bool:
    """Return whether two nodes or edges are the same but for their vectors."""
    unseen = {"name_embedding", "fact_embedding"}
    if other is None:
        return False
    return bool(made.model_dump(exclude=unseen) == other.model_dump(exclude=unseen))


def _write_document(
    graph: Graph,
    change: Change,
    before: Mapping[str, EpisodicNode],
    state: State,
    facts: Mapping[str, EntityEdge],
    saga: str | None,
) -> None:
    """Write the saga, its chunks, and the edges between them."""
    change.deleted_nodes += [key for key in before if key not in state.episodes]
    old_order = [key for key, kept in before.items() if not about(kept).get("ended_at")]
    change.deleted_edges += [ident(one, "next", two) for one, two in _pairs(old_order)]
    if state.saga is None:
        change.deleted_nodes.append(saga or "")
        return
    own: dict[str, list[str]] = {}
    for key, fact in facts.items():
        for episode in fact.episodes:
            own.setdefault(episode, []).append(key)
    for key, episode in state.episodes.items():
        ours = set(own.get(key, []))
        others = (
            {item for item in before[key].entity_edges if item not in facts}
            if key in before
            else set()
        )
        episode.entity_edges = sorted(ours | others)
    change.nodes += [state.saga, *state.episodes.values()]
    new = {ident(one, "next", two) for one, two in _pairs(state.order)}
    change.deleted_edges = [key for key in change.deleted_edges if key not in new]
    for key, episode in state.episodes.items():
        change.edges.append(
            HasEpisodeEdge(
                uuid=ident(state.saga.uuid, "has", key),
                group_id=graph.group,
                source_node_uuid=state.saga.uuid,
                target_node_uuid=key,
                created_at=episode.created_at,
            )
        )
    for one, two in _pairs(state.order):
        change.edges.append(
            NextEpisodeEdge(
                uuid=ident(one, "next", two),
                group_id=graph.group,
                source_node_uuid=one,
                target_node_uuid=two,
                created_at=state.episodes[two].created_at,
            )
        )


def _pairs(order: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(order, order[1:], strict=False)


def _embedded(item: Any) -> str | None:
    """Return the text of which an entity or a fact has a vector; None for all else."""
    if isinstance(item, EntityNode):
        return str(item.name)
    return str(item.fact) if isinstance(item, EntityEdge) else None


def _give_vector(item: Any, vectors: Mapping[str, list[float]]) -> None:
    """Give an entity or a fact its vector where it is known; one that the graph has stays."""
    if isinstance(item, EntityNode):
        item.name_embedding = vectors.get(item.name)
    elif isinstance(item, EntityEdge):
        item.fact_embedding = vectors.get(item.fact)


def _counted(
    graph: Graph,
    old: Mapping[str, EntityEdge],
    live: Mapping[str, EntityEdge],
    gone: Sequence[str],
    state: State,
    nodes: set[str],
) -> ChangeSummary:
    ended = [
        key
        for key, fact in live.items()
        if fact.invalid_at and key in old and old[key].invalid_at is None
    ]
    mine = {key for key, fact in live.items() if set(fact.episodes) & set(state.order)}
    entities = {thing_id(graph, thing) for _, thing in state.mentions}
    return ChangeSummary(
        n_chunks=len(state.order),
        n_entities=len(entities),
        n_facts=len(mine),
        n_new_facts=len(live.keys() - old.keys()),
        n_ended_facts=len(ended),
        n_removed_facts=len(gone),
        version=max((about(item).get("version", 1) for item in state.episodes.values()), default=0),
        touched=sorted(nodes),
    )

"""The state of a document: which of its chunks stay, which are new, which end, and their claims.

A chunk's identity is its document, its text and what it claims. A changed chunk is a new one; the
chunk that it replaces stays in the graph, with the date on which it ended.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from graphiti_core.nodes import EpisodeType, EpisodicNode, SagaNode

from ftlab_kit.graphs import extraction, metadata
from ftlab_kit.graphs.extraction import Claim, Extract, Mention
from ftlab_kit.graphs.identities import document_id, fact_id, identity
from ftlab_kit.graphs.loaders import Line
from ftlab_kit.graphs.open_graph import Graph

FAR = datetime(9999, 1, 1, tzinfo=UTC)


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
class State:
    """A document after a change: its chunks, what they claim, and what they mention.

    `saga` is None for a document that is deleted. `order` has the live chunks, `ended` the others.
    """

    saga: SagaNode | None = None
    episodes: dict[str, EpisodicNode] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    # by the fact's uuid: the claim, and its evidence in this document
    claims: dict[str, tuple[Claim, set[str]]] = field(default_factory=dict)
    mentions: set[tuple[str, Mention]] = field(default_factory=set)
    order: list[str] = field(default_factory=list)


async def chunks_of(graph: Graph, name: str) -> dict[str, EpisodicNode]:
    """Return a document's chunks by uuid, ended ones too, in the document's order."""
    episodes = await graph.graphiti.retrieve_episodes(
        FAR, last_n=10**6, group_ids=[graph.group], saga=name, driver=graph.driver
    )
    episodes.sort(key=lambda episode: (metadata.of_chunk(episode).get("n", 0), episode.uuid))
    return {episode.uuid: episode for episode in episodes}


def is_same(before: Mapping[str, EpisodicNode], sha256: str) -> bool:
    """Return whether a document's live chunks come from this content."""
    live = [episode for episode in before.values() if metadata.is_live(episode)]
    return bool(live) and all(metadata.of_chunk(chunk).get("sha256") == sha256 for chunk in live)


def state_after(graph: Graph, draft: Draft, before: Mapping[str, EpisodicNode]) -> State:
    """Return the state that a draft brings a document to."""
    saga_id = document_id(graph.group, draft.name)
    live = {key for key, episode in before.items() if metadata.is_live(episode)}
    version = version_of(before.values()) + 1
    state = State()
    claims = _by_chunk(draft.extract)
    n_alike: Counter[str] = Counter()
    for number, chunk in enumerate(draft.extract.chunks):
        digest = _digest(chunk.text, chunk.title, claims[number])
        n_alike[digest] += 1
        # a chunk that ended and comes again is a new life of it, with times of its own
        lives = (identity(saga_id, digest, str(n_alike[digest]), str(life)) for life in count())
        key = next(key for key in lives if key in live or key not in before)
        old = before.get(key)
        state.order.append(key)
        state.episodes[key] = EpisodicNode(
            uuid=key,
            name=f"{draft.name} > {chunk.title}" if chunk.title else draft.name,
            group_id=graph.group,
            source=EpisodeType.text,
            source_description=_metadata(draft, version, number, chunk.first, chunk.last),
            content=chunk.text,
            created_at=old.created_at if old else draft.loaded_at,
            valid_at=old.valid_at if old else draft.dated_at,
        )
        for claim in claims[number]:
            evidence = state.claims.setdefault(fact_id(graph.group, claim), (claim, set()))[1]
            evidence.add(metadata.evidence_text(key, claim))
    state.mentions = {(state.order[number], entity) for number, entity in draft.extract.mentions}
    for key in before.keys() - state.episodes.keys():
        state.episodes[key] = _ended(before[key], draft) if key in live else before[key]
        state.ended.add(key)
    state.saga = SagaNode(
        uuid=saga_id,
        name=draft.name,
        group_id=graph.group,
        created_at=min(episode.created_at for episode in state.episodes.values()),
        first_episode_uuid=state.order[0],
        last_episode_uuid=state.order[-1],
    )
    return state


def version_of(chunks: Iterable[EpisodicNode]) -> int:
    """Return the newest version that chunks come from, 0 if there are none."""
    return max((metadata.of_chunk(chunk).get("version", 1) for chunk in chunks), default=0)


def _by_chunk(extract: Extract) -> list[list[Claim]]:
    claims: list[list[Claim]] = [[] for _ in extract.chunks]
    for claim in extract.claims:
        claims[extraction.chunk_of(extract, claim)].append(claim)
    return claims


def _digest(text: str, title: str, claims: Iterable[Claim]) -> str:
    """Return a hash of what identifies a chunk in its document: its text, and what it claims."""
    sentences = sorted(f"{claim.relation} {claim.sentence}" for claim in claims)
    return hashlib.sha256("\x1f".join([text, title, *sentences]).encode()).hexdigest()


def _metadata(draft: Draft, version: int, number: int, first: Line, last: Line) -> str:
    return metadata.as_text(
        {
            "document": draft.name,
            "path": draft.path,
            "format": draft.format,
            "sha256": draft.sha256,
            "version": version,
            "n": number,
            "part": first.part,
            "lines": [first.number, last.number],
        }
    )


def _ended(chunk: EpisodicNode, draft: Draft) -> EpisodicNode:
    """Return a chunk that the draft no longer has."""
    ended_at = max(draft.dated_at, chunk.valid_at)
    ended = metadata.of_chunk(chunk) | {
        "ended_at": ended_at.isoformat(),
        "ended_known_at": draft.loaded_at.isoformat(),
    }
    return chunk.model_copy(update={"source_description": metadata.as_text(ended)})

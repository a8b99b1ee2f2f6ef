"""Hybrid search of a graph, by words and by meaning, with Graphiti's recipes.

The way of a search stands in README.md: our verb calls Graphiti's search, which calls back into our
driver for candidates; we then drop what has ended, and cite lines.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from graphiti_core.search import search_config_recipes
from graphiti_core.search.search import search as graphiti_search
from graphiti_core.search.search_config import SearchConfig, SearchResults
from graphiti_core.search.search_filters import ComparisonOperator, DateFilter, SearchFilters

from ftlab_kit.errors import InputError, nearest
from ftlab_kit.graphs import citations, derived, event_loop, lookups, metadata
from ftlab_kit.graphs.drivers.protocol import SCORES
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Hit, Rows

KINDS = {"fact": "edge", "entity": "node", "passage": "episode"}  # by Graphiti's word for each
RECIPES = ("rrf", "mmr", "cross_encoder", "node_distance", "episode_mentions")
PASSAGE_RECIPES = ("rrf", "cross_encoder", "mmr", "episode_mentions")
MAX_QUERY_WORDS = 512
MAX_HITS = 1000
MAX_CANDIDATES = 5000


@dataclass(frozen=True)
class SearchOptions:
    """Which kinds of hits a search returns, by which recipe, and what it filters by."""

    kinds: tuple[str, ...] = ("fact", "entity", "passage")
    recipe: str = "rrf"
    types: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    at: datetime | None = None
    ended: bool = False
    near: str | None = None
    reranker: str | None = None


@dataclass(frozen=True)
class Query:
    """A query as Graphiti's search takes it: text, vector, and the entity to be near to."""

    text: str
    vector: list[float]
    centre: str | None
    clients: Any


@dataclass(frozen=True)
class Candidate:
    """A node or edge that Graphiti's search returned, with its score."""

    kind: str
    item: Any
    score: float


def search(graph: Graph, query: str, limit: int, options: SearchOptions) -> Rows[Hit]:
    """Return the best hits of all kinds, the greatest score first, at most `limit`.

    Raises:
        InputError: The query has no word or too many, an option is not one of its values, or the
            recipe lacks what it needs.
        NotFound: There is no entity to be near to.
    """
    n_words = len(re.findall(r"\w+", query))
    if not 1 <= n_words <= MAX_QUERY_WORDS:
        raise InputError(
            f"The query has {n_words:,} words; expected from 1 to {MAX_QUERY_WORDS}. Describe what "
            "you look for in a sentence or two."
        )
    _check(limit, options)
    return event_loop.run(_search(graph, query, limit, options))


def _check(limit: int, options: SearchOptions) -> None:
    if not 1 <= limit <= MAX_HITS:
        raise InputError(f"limit is {limit}; expected from 1 to {MAX_HITS}.")
    for kind in options.kinds:
        if kind not in KINDS:
            raise InputError(
                f"Unknown kind of hit {kind!r}; expected {', '.join(KINDS)}.{nearest(kind, KINDS)}"
            )
    if options.recipe not in RECIPES:
        raise InputError(
            f"Unknown recipe {options.recipe!r}; expected {', '.join(RECIPES)}."
            f"{nearest(options.recipe, RECIPES)}"
        )
    if options.recipe == "node_distance" and not options.near:
        raise InputError("The recipe node_distance needs an entity to be near to. Give near='...'.")
    if options.recipe == "cross_encoder" and not options.reranker:
        raise InputError(
            "The recipe cross_encoder needs a reranker: give the folder of a "
            "sentence-transformers cross-encoder as reranker=."
        )


async def _search(graph: Graph, text: str, limit: int, options: SearchOptions) -> Rows[Hit]:
    query = Query(
        text=text,
        vector=graph.embedder.vectors([text.replace("\n", " ")])[0],
        centre=(await lookups.named(graph, options.near)).uuid if options.near else None,
        clients=graph.clients(options.reranker),
    )
    # the driver notes here what each of its methods computes for each candidate
    scores: dict[str, dict[str, float]] = {}
    token = SCORES.set(scores)
    try:
        candidates = [
            candidate
            for kind in options.kinds
            if kind != "passage" or options.recipe in PASSAGE_RECIPES
            for candidate in await _best(graph, query, kind, limit, options)
        ]
    finally:
        SCORES.reset(token)
    candidates.sort(key=lambda candidate: -candidate.score)
    return await _hits(graph, candidates[:limit], scores)


async def _best(
    graph: Graph, query: Query, kind: str, limit: int, options: SearchOptions
) -> list[Candidate]:
    """Return the best candidates of a kind that hold at the time of the search.

    Graphiti's filters do not know the end of entities and passages. So more and more of these are
    fetched, until enough of them hold.
    """
    n_fetched = limit
    while True:
        config, filters = _config(kind, n_fetched, options), _filters(kind, options)
        results: SearchResults = await graphiti_search(
            query.clients,
            query.text,
            [graph.group],
            config,
            filters,
            center_node_uuid=query.centre,
            query_vector=query.vector,
        )
        candidates = _candidates(kind, options.recipe, results)
        holding = [item for item in candidates if kind == "fact" or _holds(item, options)]
        is_all = len(candidates) < n_fetched or n_fetched > MAX_CANDIDATES
        if len(holding) >= limit or is_all:
            return holding[:limit]
        n_fetched *= 4


def _config(kind: str, limit: int, options: SearchOptions) -> SearchConfig:
    """Return Graphiti's settings for a kind and a recipe."""
    if kind == "passage":  # Graphiti ranks passages by words only
        recipe = "CROSS_ENCODER" if options.recipe == "cross_encoder" else "RRF"
        combined = getattr(search_config_recipes, f"COMBINED_HYBRID_SEARCH_{recipe}")
        episode_config = combined.episode_config.model_copy(deep=True)
        return SearchConfig(episode_config=episode_config, limit=limit)
    name = f"{KINDS[kind].upper()}_HYBRID_SEARCH_{options.recipe.upper()}"
    # MMR's scores may be below 0, which is no reason to leave a candidate out
    min_score = -2.0 if options.recipe == "mmr" else 0
    changes = {"limit": limit, "reranker_min_score": min_score}
    config: SearchConfig = getattr(search_config_recipes, name).model_copy(
        deep=True, update=changes
    )
    return config


def _filters(kind: str, options: SearchOptions) -> SearchFilters:
    """Return Graphiti's filters: by type, by relation, and by the time at which facts hold."""
    if kind == "passage":
        return SearchFilters()
    if kind == "entity":
        return SearchFilters(node_labels=list(options.types) or None)
    filters = SearchFilters(edge_types=list(options.relations) or None)
    never = DateFilter(comparison_operator=ComparisonOperator.is_null)
    if options.at is not None:
        at = options.at
        later = DateFilter(date=at, comparison_operator=ComparisonOperator.greater_than)
        until = DateFilter(date=at, comparison_operator=ComparisonOperator.less_than_equal)
        filters.valid_at, filters.invalid_at = [[until]], [[never], [later]]
    elif not options.ended:
        filters.invalid_at = [[never]]
    return filters


def _holds(candidate: Candidate, options: SearchOptions) -> bool:
    """Return whether an entity or a passage holds at the time of the search."""
    item = candidate.item
    if options.at is None and options.ended:
        return True
    if candidate.kind == "entity":
        return options.at is not None or "ended_at" not in item.attributes
    ended_at = metadata.ended_at(item)
    if options.at is None:
        return ended_at is None
    return bool(item.valid_at <= options.at and (ended_at is None or ended_at > options.at))


def _candidates(kind: str, recipe: str, results: SearchResults) -> list[Candidate]:
    items = getattr(results, f"{KINDS[kind]}s")
    scores = getattr(results, f"{KINDS[kind]}_reranker_scores")
    if kind == "fact" and recipe == "episode_mentions":
        scores = [len(item.episodes) for item in items]  # by which Graphiti has ordered them
    if kind == "fact" and recipe == "node_distance":
        # Graphiti scores the facts' sources, each once
        sources = dict.fromkeys(item.source_node_uuid for item in items)
        by_source = dict(zip(sources, scores, strict=False))
        scores = [by_source[item.source_node_uuid] for item in items]
    return [Candidate(kind, item, float(score)) for item, score in zip(items, scores, strict=False)]


async def _hits(
    graph: Graph, candidates: Sequence[Candidate], scores: Mapping[str, Mapping[str, float]]
) -> Rows[Hit]:
    """Return candidates as records, with the lines that state them."""
    entities = [candidate.item.uuid for candidate in candidates if candidate.kind == "entity"]
    around = await graph.driver.around(graph.group, entities) if entities else None
    mentions = derived.by_entity(around.mentions) if around else {}
    keys = {
        key
        for candidate in candidates
        if candidate.kind == "fact"
        for key in candidate.item.episodes
    }
    keys |= {edge.source_node_uuid for edges in mentions.values() for edge in edges}
    chunks = await citations.chunks(graph, keys)
    hits = []
    for candidate in candidates:
        item, valid_at, invalid_at = candidate.item, None, None
        if candidate.kind == "fact":
            text, places = item.fact, citations.of_fact(item, chunks)
            valid_at, invalid_at = item.valid_at, item.invalid_at
        elif candidate.kind == "entity":
            places = citations.entity(item, mentions.get(item.uuid, []), chunks).places
            text = f"{item.name} ({citations.type_of(item)}): {item.summary}".rstrip(": ")
        else:
            text, places = item.content, (citations.of_chunk(item),)
            valid_at, invalid_at = item.valid_at, metadata.ended_at(item)
        hits.append(
            Hit(
                text=text,
                kind=candidate.kind,
                score=candidate.score,
                scores=scores.get(item.uuid, {}),
                places=places,
                valid_at=valid_at,
                invalid_at=invalid_at,
                id=item.uuid,
            )
        )
    return Rows(hits)

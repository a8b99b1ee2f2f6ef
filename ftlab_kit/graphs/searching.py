"""Asking a graph: hybrid search by Graphiti's recipes, typed questions, and what stands around."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from graphiti_core.edges import EntityEdge
from graphiti_core.errors import GroupsEdgesNotFoundError
from graphiti_core.nodes import EntityNode, EpisodicNode
from graphiti_core.search import search_config_recipes as recipes
from graphiti_core.search.search import search as graphiti_search
from graphiti_core.search.search_config import SearchConfig, SearchResults
from graphiti_core.search.search_filters import ComparisonOperator, DateFilter, SearchFilters

from ftlab_kit.errors import InputError, NotFound, nearest
from ftlab_kit.graphs import citations, event_loop, updates
from ftlab_kit.graphs.drivers.protocol import SCORES
from ftlab_kit.graphs.extraction import values
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Entity, Fact, Hit, Neighbourhood, Rows

KINDS = {"fact": "edge", "entity": "node", "passage": "episode"}
RECIPES = ("rrf", "mmr", "cross_encoder", "node_distance", "episode_mentions")
MOST_WORDS = 512
MOST_HITS = 1000
MOST_ASKED = 5000
TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "!=": operator.ne,
    "in": lambda a, b: a in b,
    "contains": lambda a, b: str(b).casefold() in str(a).casefold(),
}


@dataclass(frozen=True)
class SearchOptions:
    """How one searches: which kinds, by which recipe, and what passes."""

    kinds: tuple[str, ...] = ("fact", "entity", "passage")
    recipe: str = "rrf"
    types: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    at: datetime | None = None
    ended: bool = False
    near: str | None = None
    reranker: str | None = None


def search(graph: Graph, query: str, limit: int, wish: SearchOptions) -> Rows[Hit]:
    """Return the best hits of all kinds, the greatest score first, `limit` of them at most.

    Raises:
        InputError: A query without a word or with too many, no such kind or recipe, or a recipe
            that lacks what it needs.
        NotFound: There is no entity to be near to.
    """
    words = len(re.findall(r"\w+", query))
    if not 1 <= words <= MOST_WORDS:
        raise InputError(
            f"The query has {words:,} words; expected from 1 to {MOST_WORDS}. Ask for what you "
            "look for in a sentence or two."
        )
    _check(limit, wish)
    return event_loop.run(_search(graph, query, limit, wish))


def _check(limit: int, wish: SearchOptions) -> None:
    if not 1 <= limit <= MOST_HITS:
        raise InputError(f"limit is {limit}; expected from 1 to {MOST_HITS}.")
    for kind in wish.kinds:
        if kind not in KINDS:
            raise InputError(
                f"{kind!r} is no kind of hit; there are {', '.join(KINDS)}.{nearest(kind, KINDS)}"
            )
    if wish.recipe not in RECIPES:
        raise InputError(
            f"{wish.recipe!r} is no recipe; there are {', '.join(RECIPES)}."
            f"{nearest(wish.recipe, RECIPES)}"
        )
    if wish.recipe == "node_distance" and not wish.near:
        raise InputError("The recipe node_distance needs an entity to be near to. Give near='...'.")
    if wish.recipe == "cross_encoder" and not wish.reranker:
        raise InputError(
            "The recipe cross_encoder needs one: give the folder of a cross-encoder of "
            "sentence-transformers as reranker=."
        )


async def _search(graph: Graph, query: str, limit: int, wish: SearchOptions) -> Rows[Hit]:
    vector = graph.embedder.vectors([query.replace("\n", " ")])[0]
    centre = (await _named(graph, wish.near)).uuid if wish.near else None
    clients = graph.clients(wish.reranker)
    seen: dict[str, dict[str, float]] = {}
    token = SCORES.set(seen)
    try:
        found = [
            (kind, await _passing(graph, clients, (query, vector, centre), (kind, limit, wish)))
            for kind in wish.kinds
            if _has(kind, wish.recipe)
        ]
    finally:
        SCORES.reset(token)
    ranked = [item for _, some in found for item in some]
    ranked.sort(key=lambda item: -item[2])
    return await _hits(graph, ranked[:limit], seen)


def _has(kind: str, recipe: str) -> bool:
    """Return whether Graphiti knows a recipe for a kind; passages are ordered by words only."""
    return kind != "passage" or recipe in ("rrf", "cross_encoder", "mmr", "episode_mentions")


Plan = tuple[SearchConfig, SearchFilters]


def _plan(graph: Graph, kind: str, limit: int, wish: SearchOptions) -> Plan:
    if kind == "passage":
        recipe = "CROSS_ENCODER" if wish.recipe == "cross_encoder" else "RRF"
        whole = getattr(recipes, f"COMBINED_HYBRID_SEARCH_{recipe}")
        config = SearchConfig(
            episode_config=whole.episode_config.model_copy(deep=True), limit=limit
        )
        return config, SearchFilters()
    name = f"{KINDS[kind].upper()}_HYBRID_SEARCH_{wish.recipe.upper()}"
    # MMR's scores may be below 0, and are no reason to leave something out
    more = {"limit": limit, "reranker_min_score": -2.0 if wish.recipe == "mmr" else 0}
    config = getattr(recipes, name).model_copy(deep=True, update=more)
    filters = (
        SearchFilters(node_labels=list(wish.types) or None) if kind == "entity" else _facts(wish)
    )
    return config, filters


def _facts(wish: SearchOptions) -> SearchFilters:
    filters = SearchFilters(edge_types=list(wish.relations) or None)
    never = DateFilter(comparison_operator=ComparisonOperator.is_null)
    if wish.at is not None:
        later = DateFilter(date=wish.at, comparison_operator=ComparisonOperator.greater_than)
        until = DateFilter(date=wish.at, comparison_operator=ComparisonOperator.less_than_equal)
        filters.valid_at, filters.invalid_at = [[until]], [[never], [later]]
    elif not wish.ended:
        filters.invalid_at = [[never]]
    return filters


Ranked = tuple[str, Any, float]


async def _passing(
    graph: Graph,
    clients: Any,
    asked: tuple[str, list[float], str | None],
    wanted: tuple[str, int, SearchOptions],
) -> list[Ranked]:
    """Return the best that pass; Graphiti's filters know no end of entities and passages.

    So of these more is asked for, until enough of what comes pass.
    """
    kind, limit, wish = wanted
    most = limit
    while True:
        plan = _plan(graph, kind, most, wish)
        found = _ranked(kind, wish.recipe, await _one(graph, clients, asked, plan))
        passing = [item for item in found if kind == "fact" or _is_on(kind, item[1], wish)]
        if len(passing) >= limit or len(found) < most or most > MOST_ASKED:
            return passing[:limit]
        most *= 4


def _is_on(kind: str, thing: Any, wish: SearchOptions) -> bool:
    """Return whether an entity or a passage holds at the time that one asks about."""
    if wish.at is None and wish.ended:
        return True
    if kind == "entity":
        return wish.at is not None or "ended_at" not in thing.attributes
    ended_at = updates.when(updates.about(thing).get("ended_at"))
    if wish.at is None:
        return ended_at is None
    return bool(thing.valid_at <= wish.at and (ended_at is None or ended_at > wish.at))


async def _one(
    graph: Graph, clients: Any, asked: tuple[str, list[float], str | None], plan: Plan
) -> SearchResults:
    query, vector, centre = asked
    found: SearchResults = await graphiti_search(
        clients,
        query,
        [graph.group],
        plan[0],
        plan[1],
        center_node_uuid=centre,
        query_vector=vector,
    )
    return found


def _ranked(kind: str, recipe: str, found: SearchResults) -> list[Ranked]:
    things = getattr(found, f"{KINDS[kind]}s")
    scores = getattr(found, f"{KINDS[kind]}_reranker_scores")
    if kind == "fact" and recipe == "episode_mentions":
        scores = [len(thing.episodes) for thing in things]  # by which Graphiti has ordered them
    if kind == "fact" and recipe == "node_distance":
        # Graphiti scores the facts' sources, each once
        order = dict.fromkeys(thing.source_node_uuid for thing in things)
        by_source = dict(zip(order, scores, strict=False))
        scores = [by_source[thing.source_node_uuid] for thing in things]
    return [(kind, thing, float(score)) for thing, score in zip(things, scores, strict=False)]


async def _hits(
    graph: Graph, ranked: Sequence[tuple[str, Any, float]], seen: Mapping[str, dict[str, float]]
) -> Rows[Hit]:
    entities = [thing.uuid for kind, thing, _ in ranked if kind == "entity"]
    mentions = (await graph.driver.around(graph.group, entities)).mentions if entities else []
    keys = {key for kind, thing, _ in ranked if kind == "fact" for key in thing.episodes}
    known = await citations.chunks(graph, keys | {link.source_node_uuid for link in mentions})
    hits = []
    for kind, thing, score in ranked:
        valid_at = invalid_at = None
        if kind == "fact":
            text, places = thing.fact, citations.places(thing, known)
            valid_at, invalid_at = thing.valid_at, thing.invalid_at
        elif kind == "entity":
            links = [link for link in mentions if link.target_node_uuid == thing.uuid]
            places = citations.entity(thing, links, known).places
            text = f"{thing.name} ({citations.kind(thing)}): {thing.summary}".rstrip(": ")
        else:
            text, places = thing.content, (citations.place(thing),)
            valid_at = thing.valid_at
            invalid_at = updates.when(updates.about(thing).get("ended_at"))
        scores = seen.get(thing.uuid, {})
        hits.append(Hit(text, kind, score, scores, places, valid_at, invalid_at, thing.uuid))
    return Rows(hits)


# entities


async def _named(graph: Graph, name: str) -> EntityNode:
    """Return the entity of a name or an id.

    Raises:
        NotFound: There is none.
    """
    by_id = await EntityNode.get_by_uuids(graph.driver, [name])
    if by_id:
        return by_id[0]
    every = await nodes(graph)
    folded = name.casefold()
    same = [node for node in every if node.name.casefold() == folded]
    if not same:
        raise NotFound(
            f"There is no entity {name!r}.{nearest(name, [node.name for node in every])}"
        )
    same.sort(key=lambda node: ("ended_at" in node.attributes, len(node.labels), node.uuid))
    return same[0]


async def nodes(graph: Graph, kind: str | None = None) -> list[EntityNode]:
    """Return the entities of a graph, of one type where it is given, by name."""
    found = await EntityNode.get_by_group_ids(graph.driver, [graph.group])
    wanted = [node for node in found if kind is None or kind in node.labels]
    return sorted(wanted, key=lambda node: (node.name, node.uuid))


async def edges(graph: Graph) -> list[EntityEdge]:
    """Return every fact of a graph."""
    try:
        return list(await EntityEdge.get_by_group_ids(graph.driver, [graph.group]))
    except GroupsEdgesNotFoundError:
        return []


def find(
    graph: Graph,
    kind: str,
    where: Mapping[str, Any],
    *,
    order: str | None,
    limit: int | None,
    at: datetime | None,
) -> Rows[Entity]:
    """Return the entities of a type that match, in an order, as of a time.

    Raises:
        InputError: There is no such type, attribute or test.
    """
    return event_loop.run(_find(graph, kind, where, order, limit, at))


async def _find(
    graph: Graph,
    kind: str,
    where: Mapping[str, Any],
    order: str | None,
    limit: int | None,
    at: datetime | None,
) -> Rows[Entity]:
    found = await nodes(graph, kind)
    if not found:
        types = {citations.kind(node) for node in await nodes(graph)}
        raise InputError(
            f"The graph has no entity of type {kind!r}; there are "
            f"{', '.join(sorted(types)) or 'none'}."
            f"{nearest(kind, types)}"
        )
    around = await graph.driver.around(graph.group, [node.uuid for node in found])
    found = _as_of(found, around.facts, at)
    known_names = {name for node in found for name in node.attributes}
    for name in (*where, *([order.lstrip("-")] if order else [])):
        if name not in known_names:
            raise InputError(
                f"No {kind} has the attribute {name!r}; there are "
                f"{', '.join(sorted(known_names)) or 'none'}.{nearest(name, known_names)}"
            )
    passing = [node for node in found if all(_passes(node, *item) for item in where.items())]
    if order:
        name = order.lstrip("-")
        passing = [node for node in passing if node.attributes.get(name) is not None]
        passing.sort(key=lambda node: _sortable(node.attributes[name]), reverse=order[0] == "-")
    passing = passing[:limit]
    links: dict[str, list[Any]] = {}
    for link in around.mentions:
        links.setdefault(link.target_node_uuid, []).append(link)
    keys = {link.source_node_uuid for node in passing for link in links.get(node.uuid, ())}
    known = await citations.chunks(graph, keys)
    return Rows(citations.entity(node, links.get(node.uuid, []), known) for node in passing)


def _as_of(
    found: Sequence[EntityNode], facts: Sequence[EntityEdge], at: datetime | None
) -> list[EntityNode]:
    """Return the entities that facts speak of at a time, as they were then."""
    if at is None:
        return [node for node in found if "ended_at" not in node.attributes]
    held: dict[str, list[EntityEdge]] = {}
    for fact in facts:
        for end in (
            {fact.source_node_uuid, fact.target_node_uuid} if citations.holds(fact, at) else ()
        ):
            held.setdefault(end, []).append(fact)
    made = []
    for node in found:
        if mine := held.get(node.uuid):
            attributes, summary = updates.describe(node.uuid, mine, {})
            made.append(node.model_copy(update={"attributes": attributes, "summary": summary}))
    return made


def _passes(node: EntityNode, name: str, wanted: Any) -> bool:
    """Return whether an attribute is as wanted: a value, or (test, value)."""
    value = node.attributes.get(name)
    if isinstance(wanted, str) and not isinstance(value, str):
        tested = re.match(r"(<=|>=|!=|<|>)\s*(.+)", wanted)
        typed = values.parse_value(tested[2] if tested else wanted).value
        wanted = (tested[1], typed) if tested else typed
    if not isinstance(wanted, tuple):
        return bool(value == wanted)
    if len(wanted) != 2 or wanted[0] not in TESTS:
        raise InputError(
            f"{name} is to be {wanted!r}; expected a value, or a pair such as ('<', 5) with one of "
            f"{', '.join(TESTS)}."
        )
    if value is None:
        return bool(wanted[0] == "!=")
    try:
        return bool(TESTS[wanted[0]](value, wanted[1]))
    except TypeError:
        return False


def _sortable(value: Any) -> tuple[bool, Any]:
    return (False, value) if isinstance(value, (int, float)) else (True, str(value))


# what stands around


def around(graph: Graph, entity: Entity | str | None, depth: int, limit: int) -> Neighbourhood:
    """Return an entity with what it is linked to; the entities with the most facts if None.

    Raises:
        NotFound: There is no such entity.
    """
    return event_loop.run(_around(graph, entity, depth, limit))


async def _around(
    graph: Graph, entity: Entity | str | None, depth: int, limit: int
) -> Neighbourhood:
    if entity is None:
        chosen, n_more = await _most(graph, limit)
    else:
        name = entity.id if isinstance(entity, Entity) else entity
        chosen, n_more = await _near(graph, (await _named(graph, name)).uuid, depth, limit)
    found = await graph.driver.around(graph.group, chosen)
    inner = [
        fact
        for fact in found.facts
        if fact.source_node_uuid in chosen and fact.target_node_uuid in chosen
    ]
    names = {node.uuid: node for node in await EntityNode.get_by_uuids(graph.driver, chosen)}
    keys = {key for fact in inner for key in fact.episodes}
    known = await citations.chunks(graph, keys | {link.source_node_uuid for link in found.mentions})
    links: dict[str, list[Any]] = {}
    for link in found.mentions:
        links.setdefault(link.target_node_uuid, []).append(link)
    inner.sort(key=lambda fact: (fact.invalid_at is not None, fact.name, fact.fact))
    return Neighbourhood(
        Rows(
            citations.entity(names[key], links.get(key, []), known)
            for key in chosen
            if key in names
        ),
        Rows(citations.fact(fact, names, known) for fact in inner),
        n_more,
    )


async def _most(graph: Graph, limit: int) -> tuple[list[str], int]:
    """Return the entities that have the most links to others."""
    counts: dict[str, int] = {node.uuid: 0 for node in await nodes(graph)}
    for fact in await edges(graph):
        if fact.source_node_uuid != fact.target_node_uuid and fact.invalid_at is None:
            for end in (fact.source_node_uuid, fact.target_node_uuid):
                counts[end] = counts.get(end, 0) + 1
    order = sorted(counts, key=lambda key: (-counts[key], key))
    return order[:limit], max(0, len(order) - limit)


async def _near(graph: Graph, centre: str, depth: int, limit: int) -> tuple[list[str], int]:
    """Return what lies within some steps of an entity, the nearest first."""
    order, edge = {centre: None}, [centre]
    for _ in range(depth):
        facts = (await graph.driver.around(graph.group, edge)).facts
        facts.sort(key=lambda fact: (fact.invalid_at is not None, fact.name, fact.uuid))
        ends = [end for fact in facts for end in (fact.source_node_uuid, fact.target_node_uuid)]
        edge = [end for end in dict.fromkeys(ends) if end not in order]
        order |= dict.fromkeys(edge)
    every = list(order)
    return every[:limit], max(0, len(every) - limit)


def facts_of(graph: Graph, entity: Entity | str, *, ended: bool) -> Rows[Fact]:
    """Return what is said of an entity: what holds now, and what did where it is asked for."""
    return event_loop.run(_facts_of(graph, entity, ended))


async def _facts_of(graph: Graph, entity: Entity | str, ended: bool) -> Rows[Fact]:
    name = entity.id if isinstance(entity, Entity) else entity
    node = await _named(graph, name)
    found = (await graph.driver.around(graph.group, [node.uuid])).facts
    wanted = [fact for fact in found if ended or fact.invalid_at is None]
    ends = {end for fact in wanted for end in (fact.source_node_uuid, fact.target_node_uuid)}
    names = {item.uuid: item for item in await EntityNode.get_by_uuids(graph.driver, sorted(ends))}
    known = await citations.chunks(graph, {key for fact in wanted for key in fact.episodes})
    made = [citations.fact(fact, names, known) for fact in wanted]
    return Rows(sorted(made, key=_place_order))


def _place_order(fact: Fact) -> tuple[str, int, str]:
    first = fact.places[0] if fact.places else None
    return (first.document if first else "", first.first_line if first else 0, fact.fact)


async def passages(graph: Graph) -> list[EpisodicNode]:
    """Return every chunk of a graph."""
    return list(await EpisodicNode.get_by_group_ids(graph.driver, [graph.group]))

"""Exact questions to a graph: an entity by its name, entities by type, neighbourhoods, facts."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from graphiti_core.edges import EntityEdge
from graphiti_core.errors import GroupsEdgesNotFoundError
from graphiti_core.nodes import EntityNode

from ftlab_kit.errors import InputError, NotFound, nearest
from ftlab_kit.graphs import citations, derived, event_loop
from ftlab_kit.graphs.extraction import values
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Entity, Fact, Neighbourhood, Rows

TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "!=": operator.ne,
    "in": lambda a, b: a in b,
    "contains": lambda a, b: str(b).casefold() in str(a).casefold(),
}


async def named(graph: Graph, name: str) -> EntityNode:
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
    return min(same, key=lambda node: ("ended_at" in node.attributes, len(node.labels), node.uuid))


async def nodes(graph: Graph, type: str | None = None) -> list[EntityNode]:
    """Return the entities of a graph by name, only those of a type if one is given."""
    every = await EntityNode.get_by_group_ids(graph.driver, [graph.group])
    of_type = [node for node in every if type is None or type in node.labels]
    return sorted(of_type, key=lambda node: (node.name, node.uuid))


async def edges(graph: Graph) -> list[EntityEdge]:
    """Return every fact of a graph."""
    try:
        return list(await EntityEdge.get_by_group_ids(graph.driver, [graph.group]))
    except GroupsEdgesNotFoundError:
        return []


def find(
    graph: Graph,
    type: str,
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
    return event_loop.run(_find(graph, type, where, order, limit, at))


async def _find(
    graph: Graph,
    type: str,
    where: Mapping[str, Any],
    order: str | None,
    limit: int | None,
    at: datetime | None,
) -> Rows[Entity]:
    of_type = await nodes(graph, type)
    if not of_type:
        types = {citations.type_of(node) for node in await nodes(graph)}
        raise InputError(
            f"The graph has no entity of type {type!r}; it has "
            f"{', '.join(sorted(types)) or 'no entity at all'}."
            f"{nearest(type, types)}"
        )
    around = await graph.driver.around(graph.group, [node.uuid for node in of_type])
    entities = _as_of(of_type, around.facts, at)
    attributes = {name for node in entities for name in node.attributes}
    for name in (*where, *([order.lstrip("-")] if order else [])):
        if name not in attributes:
            raise InputError(
                f"No {type} has the attribute {name!r}; expected one of "
                f"{', '.join(sorted(attributes)) or 'none'}.{nearest(name, attributes)}"
            )
    matches = [node for node in entities if all(_matches(node, *test) for test in where.items())]
    if order:
        name = order.lstrip("-")
        matches = [node for node in matches if node.attributes.get(name) is not None]
        matches.sort(key=lambda node: _sortable(node.attributes[name]), reverse=order[0] == "-")
    mentions = derived.by_entity(around.mentions)
    cited = [(node, mentions.get(node.uuid, [])) for node in matches[:limit]]
    chunks = await citations.chunks(
        graph, {edge.source_node_uuid for _, mentioning in cited for edge in mentioning}
    )
    return Rows(citations.entity(node, mentioning, chunks) for node, mentioning in cited)


def _as_of(
    entities: Sequence[EntityNode], facts: Sequence[EntityEdge], at: datetime | None
) -> list[EntityNode]:
    """Return the entities that have facts at a time, with the attributes that they had then."""
    if at is None:
        return [node for node in entities if "ended_at" not in node.attributes]
    holding = derived.by_end(fact for fact in facts if citations.holds(fact, at))
    as_of = []
    for node in entities:
        if own_facts := holding.get(node.uuid):
            attributes, summary = derived.describe(node.uuid, own_facts, {})
            as_of.append(node.model_copy(update={"attributes": attributes, "summary": summary}))
    return as_of


def _matches(node: EntityNode, name: str, expected: Any) -> bool:
    """Return whether an attribute passes a test: a value, or (test, value)."""
    value = node.attributes.get(name)
    if isinstance(expected, str) and not isinstance(value, str):
        test = re.match(r"(<=|>=|!=|<|>)\s*(.+)", expected)
        typed = values.parse_value(test[2] if test else expected).value
        expected = (test[1], typed) if test else typed
    if not isinstance(expected, tuple):
        return bool(value == expected)
    if len(expected) != 2 or expected[0] not in TESTS:
        raise InputError(
            f"{name} is tested by {expected!r}; expected a value, or a pair such as ('<', 5) with "
            f"one of {', '.join(TESTS)}."
        )
    if value is None:
        return bool(expected[0] == "!=")
    try:
        return bool(TESTS[expected[0]](value, expected[1]))
    except TypeError:
        return False


def _sortable(value: Any) -> tuple[bool, Any]:
    return (False, value) if isinstance(value, (int, float)) else (True, str(value))


def around(graph: Graph, entity: Entity | str | None, depth: int, limit: int) -> Neighbourhood:
    """Return an entity with its neighbours; the entities with the most links if None.

    Raises:
        NotFound: There is no such entity.
    """
    return event_loop.run(_around(graph, entity, depth, limit))


async def _around(
    graph: Graph, entity: Entity | str | None, depth: int, limit: int
) -> Neighbourhood:
    if entity is None:
        keys, n_more = await _most_linked(graph, limit)
    else:
        centre = (await named(graph, _name(entity))).uuid
        keys, n_more = await _nearest_to(graph, centre, depth, limit)
    around = await graph.driver.around(graph.group, keys)
    inner = [
        fact
        for fact in around.facts
        if fact.source_node_uuid in keys and fact.target_node_uuid in keys
    ]
    inner.sort(key=lambda fact: (fact.invalid_at is not None, fact.name, fact.fact))
    by_id = {node.uuid: node for node in await EntityNode.get_by_uuids(graph.driver, keys)}
    chunk_ids = {chunk_id for fact in inner for chunk_id in fact.episodes}
    chunk_ids |= {edge.source_node_uuid for edge in around.mentions}
    chunks = await citations.chunks(graph, chunk_ids)
    mentions = derived.by_entity(around.mentions)
    return Neighbourhood(
        Rows(
            citations.entity(by_id[key], mentions.get(key, []), chunks)
            for key in keys
            if key in by_id
        ),
        Rows(citations.fact(fact, by_id, chunks) for fact in inner),
        n_more,
    )


def _name(entity: Entity | str) -> str:
    return entity.id if isinstance(entity, Entity) else entity


async def _most_linked(graph: Graph, limit: int) -> tuple[list[str], int]:
    """Return the entities with the most links to others, and how many entities are left out."""
    n_links: dict[str, int] = {node.uuid: 0 for node in await nodes(graph)}
    for fact in await edges(graph):
        if fact.source_node_uuid != fact.target_node_uuid and fact.invalid_at is None:
            for end in (fact.source_node_uuid, fact.target_node_uuid):
                n_links[end] = n_links.get(end, 0) + 1
    order = sorted(n_links, key=lambda key: (-n_links[key], key))
    return order[:limit], max(0, len(order) - limit)


async def _nearest_to(graph: Graph, centre: str, depth: int, limit: int) -> tuple[list[str], int]:
    """Return the entities within some links of one, nearest first, and how many are left out."""
    order, frontier = {centre: None}, [centre]
    for _ in range(depth):
        facts = (await graph.driver.around(graph.group, frontier)).facts
        facts.sort(key=lambda fact: (fact.invalid_at is not None, fact.name, fact.uuid))
        ends = [end for fact in facts for end in (fact.source_node_uuid, fact.target_node_uuid)]
        frontier = [end for end in dict.fromkeys(ends) if end not in order]
        order |= dict.fromkeys(frontier)
    every = list(order)
    return every[:limit], max(0, len(every) - limit)


def facts_of(graph: Graph, entity: Entity | str, *, ended: bool) -> Rows[Fact]:
    """Return the facts about an entity that hold now, and on request those that have ended."""
    return event_loop.run(_facts_of(graph, entity, ended))


async def _facts_of(graph: Graph, entity: Entity | str, ended: bool) -> Rows[Fact]:
    node = await named(graph, _name(entity))
    around = await graph.driver.around(graph.group, [node.uuid])
    own = [fact for fact in around.facts if ended or fact.invalid_at is None]
    ends = {end for fact in own for end in (fact.source_node_uuid, fact.target_node_uuid)}
    by_id = {item.uuid: item for item in await EntityNode.get_by_uuids(graph.driver, sorted(ends))}
    chunks = await citations.chunks(graph, {key for fact in own for key in fact.episodes})
    facts = [citations.fact(fact, by_id, chunks) for fact in own]
    return Rows(sorted(facts, key=_place_order))


def _place_order(fact: Fact) -> tuple[str, int, str]:
    first = fact.places[0] if fact.places else None
    return (first.document if first else "", first.first_line if first else 0, fact.fact)

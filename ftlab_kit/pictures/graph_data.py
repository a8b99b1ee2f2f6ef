"""A part of a graph as the JSON that the explorer's front end draws."""

from collections.abc import Mapping, Sequence
from typing import Any

from ftlab_kit.pictures import links, network
from ftlab_kit.pictures.layout import Point
from ftlab_kit.records import Neighbourhood, Rows, show


def merged(old: Neighbourhood, new: Neighbourhood) -> Neighbourhood:
    """Return two parts of a graph as one; what is in both is taken from the new one."""
    entities = {item.id: item for item in (*old.entities, *new.entities)}
    facts = {item.id: item for item in (*old.facts, *new.facts)}
    return Neighbourhood(Rows(entities.values()), Rows(facts.values()), new.n_more)


def types(graph: Neighbourhood, before: Sequence[str]) -> list[str]:
    """Return the types of entities in the order of their shapes.

    Args:
        before: Types that are drawn already; they keep their place, and so their shape.
    """
    return [*before, *(name for name in links.types(graph.entities) if name not in before)]


def nodes(graph: Neighbourhood, types: Sequence[str]) -> list[dict[str, Any]]:
    """Return entities with what is shown about them, those with the most facts first.

    Args:
        types: In the order of their shapes.
    """
    counts = links.fact_counts(graph)
    return [
        {
            "id": one.id,
            "name": one.name,
            "short": network.shortened(one.name),
            "label": f"{one.name}, {one.type}, {links.plural(counts[one.id], 'fact', 'facts')}",
            "kind": types.index(one.type),
            "size": network.radius(counts[one.id]),
            "summary": one.summary,
            "attributes": [[key, show(value)] for key, value in one.attributes.items()],
            "sources": links.sources(one.places),
        }
        for one in sorted(graph.entities, key=lambda one: (-counts[one.id], one.name))
    ]


def edges(graph: Neighbourhood) -> list[dict[str, Any]]:
    """Return links with their labels, directions and facts."""
    return [
        {
            "ends": [link.source, link.target],
            "label": link.label,
            "title": link.text,
            "forth": link.is_forth,
            "back": link.is_back,
            "ended": link.is_ended,
        }
        for link in links.links(graph)
    ]


def facts(graph: Neighbourhood) -> list[dict[str, Any]]:
    """Return facts with their validity and sources, and the ids of the entities they are about."""
    ends = links.endpoints(graph)
    return [
        {
            "ends": [*ends[fact.id]],
            "text": fact.fact,
            "where": "; ".join(filter(None, [links.validity(fact), links.sources(fact.places)])),
            "ended": fact.invalid_at is not None,
        }
        for fact in graph.facts
    ]


def positions(graph: Neighbourhood, fixed: Mapping[str, Point]) -> dict[str, list[float]]:
    """Return where entities are drawn, rounded, in lengths of a link.

    Args:
        fixed: Positions of entities that do not move.
    """
    points = network.positions(graph, fixed=fixed)
    return {key: [round(x, 3), round(y, 3)] for key, (x, y) in points.items()}

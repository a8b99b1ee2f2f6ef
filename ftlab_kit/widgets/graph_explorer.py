"""A graph to walk through: what stands around an entity, one step after the other.

A person drags, zooms and expands it in `explorer_widget.Explorer`; a report has a picture of it.
"""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftlab_kit import graphs
from ftlab_kit.pictures import network
from ftlab_kit.pictures.layout import Point
from ftlab_kit.pictures.links import alt, cited, counts, ends, held, links, many, types
from ftlab_kit.records import Entity, Fact, Neighbourhood, Rows, show
from ftlab_kit.widgets.display import Html, is_interactive
from ftlab_kit.workspace import Workspace

if TYPE_CHECKING:
    from ftlab_kit.widgets.explorer_widget import Explorer

EMPTY = "The graph is empty. Load a document with graphs.load(ws, path), then look again."


def explorer(
    ws: Workspace, entity: Entity | str | None = None, *, graph: str | None = None
) -> "Explorer | Html":
    """Return a graph to walk through, from an entity on; a picture where no one can click.

    Args:
        entity: Where to begin; None begins with the entities that have the most facts.
        graph: Another one than the workspace's own.

    Raises:
        NotFound: There is no such entity, or no such graph.
    """
    found = graphs.around(ws, entity, graph=graph)
    if not found.entities:
        return Html(f'<p role="status">{html.escape(EMPTY)}</p>', EMPTY)
    if not is_interactive():
        return Html(network.figure(found), alt(found))
    from ftlab_kit.widgets.explorer_widget import (
        Explorer,  # a front end's library, for who has a front end
    )

    return Explorer(ws, found, graph=graph)


def merged(old: Neighbourhood, new: Neighbourhood) -> Neighbourhood:
    """Return two parts of a graph as one; what is known of both is taken as it is newer."""
    entities = {item.id: item for item in (*old.entities, *new.entities)}
    facts = {item.id: item for item in (*old.facts, *new.facts)}
    return Neighbourhood(Rows(entities.values()), Rows(facts.values()), new.n_more)


def nodes(found: Neighbourhood, kinds: list[str]) -> list[dict[str, Any]]:
    """Return entities as the front end draws and tells them, those with the most facts first."""
    counted = counts(found)
    return [
        {
            "id": one.id,
            "name": one.name,
            "short": network.shortened(one.name),
            "label": f"{one.name}, {one.type}, {many(counted[one.id], 'fact', 'facts')}",
            "kind": kinds.index(one.type),
            "size": network.radius(counted[one.id]),
            "summary": one.summary,
            "attributes": [[key, show(value)] for key, value in one.attributes.items()],
            "places": cited(one.places),
        }
        for one in sorted(found.entities, key=lambda one: (-counted[one.id], one.name))
    ]


def edges(found: Neighbourhood) -> list[dict[str, Any]]:
    """Return links as the front end draws them."""
    return [
        {
            "ends": [link.source, link.target],
            "label": link.label,
            "words": link.message,
            "forth": link.is_forth,
            "back": link.is_back,
            "ended": link.is_ended,
        }
        for link in links(found)
    ]


def facts(found: Neighbourhood) -> list[dict[str, Any]]:
    """Return facts as the front end tells them, with the ids of the entities they are about."""
    sides: Mapping[str, tuple[str, ...]] = ends(found)
    return [_told(fact, sides[fact.id]) for fact in found.facts]


def _told(fact: Fact, sides: tuple[str, ...]) -> dict[str, Any]:
    return {
        "ends": [*sides],
        "text": fact.fact,
        "where": "; ".join(filter(None, [held(fact), cited(fact.places)])),
        "ended": fact.invalid_at is not None,
    }


def kinds_of(found: Neighbourhood, before: list[str]) -> list[str]:
    """Return the types in the order of their signs; those that were there keep theirs."""
    return [*before, *(name for name in types(found.entities) if name not in before)]


def spots(found: Neighbourhood, before: Mapping[str, Point]) -> dict[str, list[float]]:
    """Return where entities stand, as JSON has it; those that were there stay."""
    placed = network.places(found, before=before)
    return {key: [round(x, 3), round(y, 3)] for key, (x, y) in placed.items()}

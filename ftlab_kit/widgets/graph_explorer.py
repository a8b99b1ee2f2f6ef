"""A graph to walk through, from one entity to those around it.

A person drags, zooms and expands it in `explorer_widget.Explorer`; a report has a picture of it.
"""

import html
from typing import TYPE_CHECKING

from ftlab_kit import graphs
from ftlab_kit.pictures import links, network
from ftlab_kit.records import Entity
from ftlab_kit.widgets.display import Html, is_interactive
from ftlab_kit.workspace import Workspace

if TYPE_CHECKING:
    from ftlab_kit.widgets.explorer_widget import Explorer

EMPTY = "The graph is empty. Load a document with graphs.load(ws, path), then look again."


def explorer(
    ws: Workspace, entity: Entity | str | None = None, *, graph: str | None = None
) -> "Explorer | Html":
    """Return a graph to walk through, starting from an entity; a picture where no one can click.

    Args:
        entity: Where to start; None starts with the entities that have the most facts.
        graph: The graph's name; None is the workspace's own.

    Raises:
        NotFound: There is no such entity, or no such graph.
    """
    around = graphs.around(ws, entity, graph=graph)
    if not around.entities:
        return Html(f'<p role="status">{html.escape(EMPTY)}</p>', EMPTY)
    if not is_interactive():
        return Html(network.figure(around), links.alt_text(around))
    from ftlab_kit.widgets.explorer_widget import Explorer  # anywidget, which a report can spare

    return Explorer(ws, around, graph=graph)

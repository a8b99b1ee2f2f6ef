"""The explorer in front of a person. Its state is traits: set `expand`, and read `nodes`.

The JavaScript and the style sheet in `static/` are sent with the widget; they load nothing else.
"""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ftlab_kit import graphs
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.pictures import graph_data, links, network
from ftlab_kit.records import Entity, Neighbourhood
from ftlab_kit.widgets.display import work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

STATIC = Path(__file__).parent / "static"
MAX_ENTITIES = 300  # more can't be told apart
HINT = (
    "Select an entity to read about it. Double-click it or press Enter to show what is around it; "
    "drag to move it. Click the graph, then use the wheel to zoom. Arrow keys move between "
    "entities, + and - zoom, Escape shows the whole graph."
)


class Explorer(anywidget.AnyWidget):
    """Entities to drag, the facts between them, and details of the selected one.

    `selected` is an entity's id. Setting `expand` to an entity's id or name adds what is around it;
    afterwards `expand` is empty again. `positions` are in lengths of a link.
    """

    _esm = STATIC / "explorer.js"
    _css = STATIC / "explorer.css"

    nodes: Any = traitlets.List().tag(sync=True)
    edges: Any = traitlets.List().tag(sync=True)
    facts: Any = traitlets.List().tag(sync=True)
    kinds: Any = traitlets.List().tag(sync=True)
    positions = traitlets.Dict().tag(sync=True)
    alt_text = traitlets.Unicode().tag(sync=True)
    selected = traitlets.Unicode().tag(sync=True)
    expand = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, ws: Workspace, around: Neighbourhood, *, graph: str | None = None) -> None:
        """Show a part of a graph.

        Args:
            graph: The graph's name; None is the workspace's own.
        """
        super().__init__()
        self._ws, self._graph, self._shown = ws, graph, around
        self._types: list[str] = []
        self._show(around)
        self.status = HINT
        self.observe(self._expand, "expand")

    def _show(self, shown: Neighbourhood) -> None:
        """Show a part of a graph; entities that are shown already stay in place."""
        fixed = {key: (x, y) for key, (x, y) in self.positions.items()}
        self._shown, self._types = shown, graph_data.types(shown, self._types)
        with self.hold_sync():
            self.kinds = [
                {"name": name, "colour": network.colour(index), "path": network.shape(index, 10)}
                for index, name in enumerate(self._types)
            ]
            self.positions = graph_data.positions(shown, fixed)
            self.nodes = graph_data.nodes(shown, self._types)
            self.edges, self.facts = graph_data.edges(shown), graph_data.facts(shown)
            self.alt_text = links.alt_text(shown)

    def _expand(self, change: dict[str, Any]) -> None:
        """Add what is around the entity that the front end names; an empty name does nothing."""
        if not change["new"]:
            return
        entities = {item.id: item for item in self._shown.entities}
        entity = entities.get(change["new"], change["new"])
        try:
            self._add(graphs.around(self._ws, entity, graph=self._graph), entity)
            self.error = ""
        except KitError as error:
            self.error = str(error)
        self.expand = ""
        work_around_ipykernel_7_4(self)

    def _add(self, around: Neighbourhood, entity: Entity | str) -> None:
        """Add what is around an entity; an entity given by name is selected.

        Raises:
            InputError: There would be too many entities.
        """
        shown = graph_data.merged(self._shown, around)
        n_new = len(shown.entities) - len(self._shown.entities)
        if len(shown.entities) > MAX_ENTITIES:
            raise InputError(
                f"With {n_new} more there would be {len(shown.entities)} entities; expected at "
                f"most {MAX_ENTITIES}. Start again from one of them: widgets.explorer(ws, name)."
            )
        self._show(shown)
        left_out = f", {around.n_more} more are left out" if around.n_more else ""
        more = links.plural(n_new, "more entity", "more entities")
        self.status = f"{more if n_new else 'there is nothing more around it'}{left_out}"
        if isinstance(entity, str):
            matches = [one for one in around.entities if one.name.casefold() == entity.casefold()]
            self.selected = [*matches, *around.entities][0].id if around.entities else ""

"""The explorer in front of a person. Its state is traits: set `expand`, and read `nodes`.

What is drawn stands in `static/`, is sent with the widget, and asks for nothing else.
"""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ftlab_kit import graphs
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.pictures import network
from ftlab_kit.pictures.links import alt, many
from ftlab_kit.records import Entity, Neighbourhood
from ftlab_kit.widgets.display import work_around_ipykernel_7_4
from ftlab_kit.widgets.graph_explorer import edges, facts, kinds_of, merged, nodes, spots
from ftlab_kit.workspace import Workspace

STATIC = Path(__file__).parent / "static"
MOST = 300  # entities that can be told apart
HINT = (
    "Select an entity to see what is known of it. Double click or Enter shows what is around it, "
    "drag moves it. The wheel zooms once the graph is clicked; arrow keys walk, + and - zoom, "
    "Escape shows the whole."
)


class Explorer(anywidget.AnyWidget):
    """Entities to drag, facts between them, and what is known of the one that is selected.

    `selected` is an entity's id. `expand` asks for what stands around an entity, by its id or name;
    it is empty again when that has come. `positions` are in lengths of a link.
    """

    _esm = STATIC / "explorer.js"
    _css = STATIC / "explorer.css"

    nodes: Any = traitlets.List().tag(sync=True)
    edges: Any = traitlets.List().tag(sync=True)
    facts: Any = traitlets.List().tag(sync=True)
    kinds: Any = traitlets.List().tag(sync=True)
    positions = traitlets.Dict().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    selected = traitlets.Unicode().tag(sync=True)
    expand = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, ws: Workspace, found: Neighbourhood, *, graph: str | None = None) -> None:
        """Show a part of a graph."""
        super().__init__()
        self._ws, self._graph, self._found = ws, graph, found
        self._names: list[str] = []
        self._show(found)
        self.said = HINT
        self.observe(self._expand, "expand")

    def _show(self, found: Neighbourhood) -> None:
        """Show a part of a graph; what is shown already stays where it is."""
        before = {key: (x, y) for key, (x, y) in self.positions.items()}
        self._found, self._names = found, kinds_of(found, self._names)
        with self.hold_sync():
            self.kinds = [
                {"name": name, "colour": network.colour(at), "path": network.shape(at, 10)}
                for at, name in enumerate(self._names)
            ]
            self.positions = spots(found, before)
            self.nodes = nodes(found, self._names)
            self.edges, self.facts = edges(found), facts(found)
            self.words = alt(found)

    def _expand(self, change: dict[str, Any]) -> None:
        """Answer what was asked; what is empty asks for nothing."""
        if not change["new"]:
            return
        known = {item.id: item for item in self._found.entities}
        asked = known.get(change["new"], change["new"])
        try:
            self._take(graphs.around(self._ws, asked, graph=self._graph), asked)
            self.error = ""
        except KitError as error:
            self.error = str(error)
        self.expand = ""
        work_around_ipykernel_7_4(self)

    def _take(self, new: Neighbourhood, asked: Entity | str) -> None:
        """Add what stands around an entity; one that was asked for by its name is selected.

        Raises:
            InputError: There would be too many.
        """
        found = merged(self._found, new)
        n_new = len(found.entities) - len(self._found.entities)
        if len(found.entities) > MOST:
            raise InputError(
                f"{n_new} more would be {len(found.entities)} entities; expected at most {MOST}. "
                "Begin anew from one of them, with widgets.explorer(ws, name)."
            )
        self._show(found)
        left = f", {new.n_more} more are left out" if new.n_more else ""
        more = many(n_new, "more entity", "more entities")
        self.said = f"{more if n_new else 'nothing more is around it'}{left}"
        if isinstance(asked, str):
            same = [item for item in new.entities if item.name.casefold() == asked.casefold()]
            self.selected = [*same, *new.entities][0].id if new.entities else ""

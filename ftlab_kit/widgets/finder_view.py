"""A search of a graph: the hits, where each one stands, and which search method scored it."""

import html
import time
from collections.abc import Sequence

import ipywidgets

from ftlab_kit import graphs
from ftlab_kit.errors import InputError
from ftlab_kit.pictures.links import date_range
from ftlab_kit.records import Hit, show
from ftlab_kit.widgets.display import (
    Html,
    button,
    is_interactive,
    table,
    work_around_ipykernel_7_4,
)
from ftlab_kit.workspace import Workspace

RECIPES = {
    "rrf: reciprocal rank fusion": "rrf",
    "mmr: relevant and diverse": "mmr",
}
MAX_HITS = 100
MAX_LETTERS = 400  # of a passage that is shown
WHOLE = 'style="white-space:nowrap"'
COLUMNS = ("hit", "kind", "source", "valid", "score")
EMPTY = 'The query is empty; expected a few words or a question: widgets.finder(ws, "…").'
NO_HITS = "<p>no hits; try fewer or other words</p>"


def finder(ws: Workspace, query: str = "", *, graph: str | None = None) -> "FinderView | Html":
    """Return a search of a graph; where no one can type, the hits of a query.

    Args:
        query: The first query: a few words, or a question.
        graph: The graph's name; None is the workspace's own.

    Raises:
        NotFound: There is no such graph.
    """
    if is_interactive():
        return FinderView(ws, query, graph)
    if not query:
        return Html(f'<p role="status">{html.escape(EMPTY)}</p>', EMPTY)
    hits = graphs.search(ws, query, graph=graph)
    summary = f"{query}: {len(hits)} hits"
    return Html(f"<p>{html.escape(summary)}</p>{hits_table(hits)}", summary)


def hits_table(hits: Sequence[Hit]) -> str:
    """Return hits as an HTML table, each with its sources and its scores as computed."""
    return table(COLUMNS, [_cells(hit) for hit in hits]) if hits else NO_HITS


def _cells(hit: Hit) -> list[str]:
    """Return the cells of a hit as HTML, in the order of the columns."""
    places = "<br/>".join(f"<span {WHOLE}>{html.escape(str(place))}</span>" for place in hit.places)
    dates = [date_range(hit.valid_at, None), date_range(None, hit.invalid_at)]
    valid = "<br/>".join(f"<span {WHOLE}>{date}</span>" for date in dates if date)
    n_more = len(hit.text) - MAX_LETTERS
    text = hit.text if n_more <= 0 else f"{hit.text[:MAX_LETTERS]} … {n_more:,} letters more"
    return [
        f'<div style="max-width:480px;overflow-wrap:anywhere">{html.escape(text)}</div>',
        html.escape(hit.kind),
        places or show(None),
        valid or show(None),
        f"{show(hit.score)}<br/><small>{html.escape(show(hit.scores))}</small>",
    ]


class FinderView(ipywidgets.VBox):  # type: ignore[misc]
    """A field for the query, the search's options, and the hits."""

    def __init__(self, ws: Workspace, query: str = "", graph: str | None = None) -> None:
        """Show the fields, and the hits of the first query if there is one."""
        self._ws, self._graph = ws, graph
        self.query = ipywidgets.Text(
            query,
            placeholder="a few words, or a question",
            description="search for",
            continuous_update=False,
            layout={"width": "420px"},
        )
        self.limit = ipywidgets.BoundedIntText(
            10, min=1, max=MAX_HITS, description="at most", layout={"width": "160px"}
        )
        self.recipe = ipywidgets.Dropdown(options=RECIPES, description="ranked by")
        self.ended = ipywidgets.Checkbox(description="include ended facts", indent=False)
        self._table, self._status = ipywidgets.HTML(), ipywidgets.HTML()
        self.search = button("Search", "Search the graph", self._search, self._status)
        fields = [self.query, self.limit, self.recipe, self.ended]
        options = ipywidgets.HBox(fields[1:], layout={"flex_flow": "row wrap"})
        search = ipywidgets.HBox([self.query, self.search])
        super().__init__([search, options, self._status, self._table])
        for field in fields:
            field.observe(lambda _: self.search.click(), "value")
        if query:
            self.search.click()

    def _search(self) -> str:
        query = self.query.value.strip()
        if not query:
            raise InputError("The query is empty; expected a few words. Enter them first.")
        began = time.perf_counter()
        hits = graphs.search(
            self._ws,
            query,
            limit=self.limit.value,
            graph=self._graph,
            recipe=self.recipe.value,
            ended=self.ended.value,
        )
        took_ms = 1000 * (time.perf_counter() - began)
        self._table.value = hits_table(hits)
        work_around_ipykernel_7_4(self.query, self.limit, self.recipe, self.ended, self._table)
        return f"{len(hits)} hits in {took_ms:.0f} ms"

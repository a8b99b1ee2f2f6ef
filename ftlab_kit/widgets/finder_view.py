"""A search of a graph: what it found, where that stands, and by which of its methods."""

import html
import time
from collections.abc import Sequence

import ipywidgets

from ftlab_kit import graphs
from ftlab_kit.errors import InputError
from ftlab_kit.pictures.links import span
from ftlab_kit.records import CELL, Hit, show
from ftlab_kit.widgets.display import Html, button, is_interactive, work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

RECIPES = {
    "rrf: reciprocal ranks": "rrf",
    "mmr: relevant, but not all the same": "mmr",
}
MOST = 100  # hits
LONG = 400  # letters of a passage that are shown
WHOLE = 'style="white-space:nowrap"'
COLUMNS = ("found", "kind", "where", "holds", "score")
ASK = 'There is nothing to find yet; expected some words. Give them: widgets.finder(ws, "…").'


def finder(ws: Workspace, query: str = "", *, graph: str | None = None) -> "FinderView | Html":
    """Return a search of a graph; where no one can type, what it finds for some words.

    Args:
        query: What is looked for at first; words, or a question.
        graph: Another one than the workspace's own.
    """
    if is_interactive():
        return FinderView(ws, query, graph)
    if not query:
        return Html(f'<p role="status">{html.escape(ASK)}</p>', ASK)
    found = graphs.search(ws, query, graph=graph)
    words = f"{query}: {len(found)} found"
    return Html(f"<p>{html.escape(words)}</p>{table(found)}", words)


def table(found: Sequence[Hit]) -> str:
    """Return what was found as a table, each with where it stands and its scores as computed."""
    if not found:
        return "<p>nothing was found; try fewer or other words</p>"
    head = "".join(f"<th {CELL}>{name}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td {CELL}>{cell}</td>' for cell in _cells(item))}</tr>" for item in found
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(hit: Hit) -> list[str]:
    """Return the cells of a hit as HTML, in the order of the columns."""
    places = "<br/>".join(f"<span {WHOLE}>{html.escape(str(place))}</span>" for place in hit.places)
    held = [words for words in (span(hit.valid_at, None), span(None, hit.invalid_at)) if words]
    more = len(hit.text) - LONG
    text = hit.text if more <= 0 else f"{hit.text[:LONG]} … {more:,} letters more"
    return [
        f'<div style="max-width:480px;overflow-wrap:anywhere">{html.escape(text)}</div>',
        html.escape(hit.kind),
        places or show(None),
        "<br/>".join(f"<span {WHOLE}>{words}</span>" for words in held) if held else show(None),
        f"{show(hit.score)}<br/><small>{html.escape(show(hit.scores))}</small>",
    ]


class FinderView(ipywidgets.VBox):  # type: ignore[misc]
    """A field to ask by, how many answers are wanted, and the answers."""

    def __init__(self, ws: Workspace, query: str = "", graph: str | None = None) -> None:
        """Show the field, and what is found for the first words, if there are any."""
        self._ws, self._graph = ws, graph
        self.query = ipywidgets.Text(
            query,
            placeholder="words, or a question",
            description="find",
            continuous_update=False,
            layout={"width": "420px"},
        )
        self.limit = ipywidgets.BoundedIntText(
            10, min=1, max=MOST, description="at most", layout={"width": "160px"}
        )
        self.recipe = ipywidgets.Dropdown(options=RECIPES, description="ranked by")
        self.ended = ipywidgets.Checkbox(description="also what has ended", indent=False)
        self._table, self._said = ipywidgets.HTML(), ipywidgets.HTML()
        self.search = button("Search", "Look for it in the graph", self._search, self._said)
        fields = [self.query, self.limit, self.recipe, self.ended]
        how = ipywidgets.HBox(fields[1:], layout={"flex_flow": "row wrap"})
        super().__init__([ipywidgets.HBox([self.query, self.search]), how, self._said, self._table])
        for field in fields:
            field.observe(lambda _: self.search.click(), "value")
        if query:
            self.search.click()

    def _search(self) -> str:
        query = self.query.value.strip()
        if not query:
            raise InputError("There is nothing to find; expected some words. Write them first.")
        began = time.perf_counter()
        found = graphs.search(
            self._ws,
            query,
            limit=self.limit.value,
            graph=self._graph,
            recipe=self.recipe.value,
            ended=self.ended.value,
        )
        took_ms = 1000 * (time.perf_counter() - began)
        self._table.value = table(found)
        work_around_ipykernel_7_4(self.query, self.limit, self.recipe, self.ended, self._table)
        return f"{len(found)} found in {took_ms:.0f} ms"

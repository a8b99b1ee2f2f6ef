"""The documents of a graph: their state and what was found in them; to load more, and to delete."""

import html
import threading
from collections import Counter
from collections.abc import Sequence

import ipywidgets

from ftlab_kit import graphs
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.links import many
from ftlab_kit.records import CELL, Document, show
from ftlab_kit.widgets.display import Html, button, is_interactive, say, work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

POLL_S = 1.0
WIDE = {"width": "420px"}
WHOLE = 'style="white-space:nowrap"'
COLUMNS = (
    "document", "state", "chunks", "entities", "facts", "version", "dated", "notes", "error",
)  # fmt: skip
UNDER_WAY = ("pending", "processing")
# of a state: the sign before its name, and the sign's colour
SIGNS = {
    "pending": ("○", "currentColor"),
    "processing": ("◔", "currentColor"),
    "completed": ("●", charts.COLOURS[2]),
    "partial_failure": ("◑", charts.COLOURS[4]),
    "failed": ("✕", charts.COLOURS[1]),
}


def documents(ws: Workspace, *, graph: str | None = None) -> "DocumentsView | Html":
    """Return the documents of a graph in a table; with a field to load one, for who can click.

    Args:
        graph: Another one than the workspace's own.
    """
    if is_interactive():
        return DocumentsView(ws, graph)
    found = graphs.documents(ws, graph=graph)
    return Html(table(found), words_of(found))


def words_of(found: Sequence[Document]) -> str:
    """Return how many documents are in which state."""
    counted = Counter(item.state for item in found)
    states = ", ".join(f"{number} {state}" for state, number in counted.items())
    total = many(len(found), "document", "documents")
    return f"{total}: {states}" if found else "no documents yet"


def table(found: Sequence[Document]) -> str:
    """Return documents as a table."""
    if not found:
        return "<p>no documents yet; load one with graphs.load(ws, path)</p>"
    head = "".join(f"<th {CELL}>{name}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td {CELL}>{cell}</td>' for cell in _cells(item))}</tr>" for item in found
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(item: Document) -> list[str]:
    """Return the cells of a document as HTML, in the order of the columns."""
    sign, colour = SIGNS[item.state]
    counts = [item.n_chunks, item.n_entities, item.n_facts, item.version]
    day = show(item.dated_at and f"{item.dated_at:%Y-%m-%d}")
    return [
        html.escape(item.name),
        f'<span {WHOLE}><span style="color:{colour}" aria-hidden="true">{sign}</span> '
        f"{item.state}</span>",
        *(f"{number:,}" for number in counts),
        f"<span {WHOLE}>{day}</span>",
        html.escape(show(item.notes)),
        html.escape(show(item.error)),
    ]


class DocumentsView(ipywidgets.VBox):  # type: ignore[misc]
    """A table of documents, a field to load one, and a way to delete one, asked twice."""

    def __init__(self, ws: Workspace, graph: str | None = None) -> None:
        """Show the documents, again and again while any of them is under way."""
        self._ws, self._graph = ws, graph
        self._is_loading, self._closed = False, threading.Event()
        self._watching, self._asked = threading.Lock(), ""
        self.path = ipywidgets.Text(
            placeholder="a file, or a folder of them", description="path", layout=WIDE
        )
        self.document = ipywidgets.Dropdown(options=[], description="document", layout=WIDE)
        self._table, self._state, self._said = (ipywidgets.HTML() for _ in range(3))
        said = self._said
        self.load = button("Load", "Read it and put it into the graph", self._load, said)
        self.again = button("Refresh", "Read the list again", self._refresh, said)
        self.delete = button("Delete", "Take it out of the graph", self._ask, said)
        self.confirm = button("Delete it", "Take it out of the graph for good", self._delete, said)
        self.keep = button("Keep it", "Delete nothing", self._keep, said)
        self.confirm.button_style = "danger"
        self._choices = ipywidgets.HBox([self.document, self.delete])
        super().__init__(
            [
                ipywidgets.HBox([self.path, self.load, self.again]),
                self._state,
                self._table,
                self._choices,
                self._said,
            ]
        )
        if self.refresh():
            self._watch()

    def refresh(self) -> bool:
        """Read the list again; return whether any document is under way."""
        found = graphs.documents(self._ws, graph=self._graph)
        names = tuple(item.name for item in found)
        if names != self.document.options:
            chosen, self.document.options = self.document.value, names
            self.document.value = chosen if chosen in names else next(iter(names), None)
        if self._table.value != table(found):
            self._table.value = table(found)
            say(self._state, "status", words_of(found))
        self.delete.disabled = not names
        work_around_ipykernel_7_4(
            self.path, self.document, self.load, self.again, self.delete, self._table
        )
        return any(item.state in UNDER_WAY for item in found)

    def close(self) -> None:
        """Stop to look, and remove the view."""
        self._closed.set()
        super().close()

    def _watch(self) -> None:
        """Read the list again and again, in a thread of its own, while anything is under way."""

        def follow() -> None:
            with self._watching:
                try:
                    while not self._closed.wait(POLL_S) and (self.refresh() or self._is_loading):
                        pass
                except KitError as error:
                    say(self._said, "alert", str(error))

        if not self._watching.locked():
            threading.Thread(target=follow, daemon=True, name="ftlab-documents").start()

    def _refresh(self) -> None:
        if self.refresh():
            self._watch()

    def _load(self) -> str:
        path = self.path.value.strip()
        if not path:
            raise InputError("There is no path; expected a file or a folder. Write one first.")
        say(self._said, "status", f"loading {path} …")
        self._is_loading = True
        self._watch()
        try:
            found = graphs.load(self._ws, path, graph=self._graph)
        finally:
            self._is_loading = False
            self.refresh()
        return (
            f"{words_of(found.documents)}; {many(found.n_new_facts, 'new fact', 'new facts')}, "
            f"{found.n_ended_facts} ended, {found.n_removed_facts} removed, {found.seconds:.2f} s"
        )

    def _ask(self) -> str:
        self._asked = self.document.value
        self._choices.children = (self.confirm, self.keep)
        return f"Delete {self._asked} with all that only it says?"

    def _keep(self) -> str:
        self._choices.children = (self.document, self.delete)
        return "nothing was deleted"

    def _delete(self) -> str:
        self._keep()
        graphs.delete(self._ws, self._asked, graph=self._graph)
        self.refresh()
        return f"{self._asked} is deleted"

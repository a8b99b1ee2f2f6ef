"""The documents of a graph: their state and what was found in them; load more, or delete one."""

import html
import threading
from collections import Counter
from collections.abc import Sequence

import ipywidgets

from ftlab_kit import graphs
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.pictures import charts
from ftlab_kit.pictures.links import plural
from ftlab_kit.records import Document, show
from ftlab_kit.widgets.display import (
    Html,
    button,
    is_interactive,
    show_alert,
    show_status,
    table,
    work_around_ipykernel_7_4,
)
from ftlab_kit.workspace import Workspace

POLL_S = 1.0
WIDE = {"width": "420px"}
WHOLE = 'style="white-space:nowrap"'
COLUMNS = (
    "document", "state", "chunks", "entities", "facts", "version", "dated", "notes", "error",
)  # fmt: skip
UNDER_WAY = ("pending", "processing")
# by state: the sign before its name, and the sign's colour
SIGNS = {
    "pending": ("○", "currentColor"),
    "processing": ("◔", "currentColor"),
    "completed": ("●", charts.COLOURS[2]),
    "partial_failure": ("◑", charts.COLOURS[4]),
    "failed": ("✕", charts.COLOURS[1]),
}


def documents(ws: Workspace, *, graph: str | None = None) -> "DocumentsView | Html":
    """Return the documents of a graph in a table; in front of a person, load and delete them.

    Args:
        graph: The graph's name; None is the workspace's own.
    """
    if is_interactive():
        return DocumentsView(ws, graph)
    rows = graphs.documents(ws, graph=graph)
    return Html(documents_table(rows), summary(rows))


def summary(rows: Sequence[Document]) -> str:
    """Return how many documents are in which state."""
    counts = Counter(item.state for item in rows)
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    total = plural(len(rows), "document", "documents")
    return f"{total}: {states}" if rows else "no documents yet"


def documents_table(rows: Sequence[Document]) -> str:
    """Return documents as an HTML table."""
    if not rows:
        return "<p>no documents yet; load one with graphs.load(ws, path)</p>"
    return table(COLUMNS, [_cells(item) for item in rows])


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
    """A table of documents, a field to load one, and a button to delete one, which asks first."""

    def __init__(self, ws: Workspace, graph: str | None = None) -> None:
        """Show the documents, and refresh them while any is being loaded."""
        self._ws, self._graph = ws, graph
        self._is_loading, self._closed = False, threading.Event()
        self._watching, self._to_delete = threading.Lock(), ""
        self.path = ipywidgets.Text(
            placeholder="a file, or a folder of files", description="path", layout=WIDE
        )
        self.document = ipywidgets.Dropdown(options=[], description="document", layout=WIDE)
        self._table, self._counts, self._status = (ipywidgets.HTML() for _ in range(3))
        self._make_buttons()
        self._choices = ipywidgets.HBox([self.document, self.delete])
        super().__init__(
            [
                ipywidgets.HBox([self.path, self.load, self.again]),
                self._counts,
                self._table,
                self._choices,
                self._status,
            ]
        )
        if self.refresh():
            self._watch()

    def _make_buttons(self) -> None:
        line = self._status
        self.load = button("Load", "Read this file or folder into the graph", self._load, line)
        self.again = button("Refresh", "Read the list again", self._refresh, line)
        self.delete = button("Delete", "Remove this document from the graph", self._ask, line)
        confirming = "Remove the document for good, with every fact that only it states"
        self.confirm = button("Delete it", confirming, self._delete, line)
        self.keep = button("Keep it", "Delete nothing", self._keep, line)
        self.confirm.button_style = "danger"

    def refresh(self) -> bool:
        """Read the list again; return whether any document is still being loaded."""
        rows = graphs.documents(self._ws, graph=self._graph)
        names = tuple(item.name for item in rows)
        if names != self.document.options:
            chosen, self.document.options = self.document.value, names
            self.document.value = chosen if chosen in names else next(iter(names), None)
        markup = documents_table(rows)
        if self._table.value != markup:
            self._table.value = markup
            show_status(self._counts, summary(rows))
        self.delete.disabled = not names
        work_around_ipykernel_7_4(
            self.path, self.document, self.load, self.again, self.delete, self._table
        )
        return any(item.state in UNDER_WAY for item in rows)

    def close(self) -> None:
        """Stop refreshing, and remove the view."""
        self._closed.set()
        super().close()

    def _watch(self) -> None:
        """Refresh the list in a thread of its own, while any document is being loaded."""

        def follow() -> None:
            with self._watching:
                try:
                    while not self._closed.wait(POLL_S) and (self.refresh() or self._is_loading):
                        pass
                except KitError as error:
                    show_alert(self._status, str(error))

        if not self._watching.locked():
            threading.Thread(target=follow, daemon=True, name="ftlab-documents").start()

    def _refresh(self) -> None:
        if self.refresh():
            self._watch()

    def _load(self) -> str:
        path = self.path.value.strip()
        if not path:
            raise InputError("The path is empty; expected a file or a folder. Enter one first.")
        show_status(self._status, f"loading {path} …")
        self._is_loading = True
        self._watch()
        try:
            loading = graphs.load(self._ws, path, graph=self._graph)
        finally:
            self._is_loading = False
            self.refresh()
        new_facts = plural(loading.n_new_facts, "new fact", "new facts")
        return (
            f"{summary(loading.documents)}; {new_facts}, {loading.n_ended_facts} ended, "
            f"{loading.n_removed_facts} removed, {loading.seconds:.2f} s"
        )

    def _ask(self) -> str:
        self._to_delete = self.document.value
        self._choices.children = (self.confirm, self.keep)
        return f"Delete {self._to_delete}, with every fact that only it states?"

    def _keep(self) -> str:
        self._choices.children = (self.document, self.delete)
        return "nothing was deleted"

    def _delete(self) -> str:
        self._keep()
        graphs.delete(self._ws, self._to_delete, graph=self._graph)
        self.refresh()
        return f"{self._to_delete} is deleted"

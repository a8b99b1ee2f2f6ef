"""Loading and deleting: files become documents of a graph, one by one, each whole or not at all.

The workspace lists each owner's documents of each graph in the table `documents`.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab_kit.errors import Conflict, InputError, KitError, NotFound, nearest
from ftlab_kit.graphs import event_loop, loaders
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.graphs.owner_groups import UNCLAIMED
from ftlab_kit.records import Contradiction, Document, Loading, OnProgress, Progress, Rows
from ftlab_kit.workspace import Workspace, now

if TYPE_CHECKING:
    from graphiti_core.nodes import EpisodicNode

    from ftlab_kit.graphs.document_state import Draft
    from ftlab_kit.graphs.updates import ChangeSummary

HIDDEN = ("created_at", "enriched", "owner")
MAX_FILES = 10_000
STOPPED = "Loading was stopped before this document. Load it again; nothing of it is half loaded."


@dataclass(frozen=True)
class Source:
    """A file to load under a name. One whose name was given may replace another file's document."""

    path: Path
    name: str
    is_named: bool = False

    @property
    def format(self) -> str:
        """The file's suffix."""
        return self.path.suffix.lower().lstrip(".")


@dataclass(frozen=True)
class Loaded:
    """A document after loading; `changes` is None if nothing changed, or if it failed."""

    document: Document
    changes: "ChangeSummary | None" = None
    contradictions: Sequence[Contradiction] = ()


def sources(source: str | Path, name: str | None) -> list[Source]:
    """Return the files of a path: itself, or every readable document of a folder.

    Raises:
        NotFound: There is nothing at the path.
        InputError: A folder without documents, with too many, or together with a name.
    """
    path = Path(source).expanduser().absolute()
    if not path.exists() and not path.is_symlink():
        raise NotFound(f"{path} does not exist; expected a document or a folder. Check the path.")
    if not path.is_dir():
        return [Source(path, name or path.name, name is not None)]
    if name:
        raise InputError(f"{path} is a folder: its documents are named by their files. Drop name=.")
    suffixes = tuple(f".{format}" for format in loaders.suffixes())
    files = sorted(
        item
        for item in path.rglob("*")
        if item.suffix.lower() in suffixes and item.is_file() and not _is_hidden(item, path)
    )
    if not files or len(files) > MAX_FILES:
        raise InputError(
            f"{path} holds {len(files)} documents; from 1 to {MAX_FILES:,} can be loaded at once. "
            f"Formats that can be read: {', '.join(suffixes)}."
        )
    return [Source(file, file.relative_to(path).as_posix()) for file in files]


def _is_hidden(item: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in item.relative_to(root).parts)


def load(
    graph: Graph,
    files: Sequence[Source],
    at: datetime | None,
    progress: OnProgress | None = None,
) -> Loading:
    """Load files, each as a document. If one of several fails, its document says so.

    Raises:
        KitError: The only file can't be loaded.
    """
    began = time.perf_counter()
    _refuse_clashes(graph, files)
    for source in files:
        list_document(graph, source.name, path=str(source.path), format=source.format)
    loaded: list[Loaded] = []
    try:
        for source in files:
            try:
                loaded.append(_load_one(graph, source, at))
            except KitError as error:
                set_columns(graph, source.name, state="failed", error=str(error))
                if len(files) == 1:
                    raise
                loaded.append(Loaded(get(graph, source.name)))
            if progress:
                progress(Progress("documents loaded", len(loaded), len(files), source.name))
    finally:
        unfinished = _key(graph, [source.name for source in files])
        unfinished["state"] = ["pending", "processing"]
        graph.ws.store.update("documents", unfinished, state="failed", error=STOPPED)
    changes = [item.changes for item in loaded if item.changes]
    return Loading(
        documents=Rows(item.document for item in loaded),
        n_new_facts=sum(change.n_new_facts for change in changes),
        n_ended_facts=sum(change.n_ended_facts for change in changes),
        n_removed_facts=sum(change.n_removed_facts for change in changes),
        contradictions=Rows(dict.fromkeys(pair for item in loaded for pair in item.contradictions)),
        seconds=time.perf_counter() - began,
    )


def _refuse_clashes(graph: Graph, files: Iterable[Source]) -> None:
    """Refuse a file whose name is that of another file's document, unless the name was given.

    Raises:
        Conflict: A document of this name came from another file.
    """
    for source in files:
        row = graph.ws.store.get("documents", **_key(graph, source.name))
        is_other = row and row["version"] and row["path"] != str(source.path)
        if row and is_other and not source.is_named and Path(row["path"]).exists():
            raise Conflict(
                f"The document {source.name} was loaded from {row['path']}. To load {source.path} "
                f"as its new content, give name={source.name!r}; as another one, another name."
            )


def _load_one(graph: Graph, source: Source, at: datetime | None) -> Loaded:
    from ftlab_kit.graphs import document_state, extraction, retrieval_eval, updates

    set_columns(graph, source.name, state="processing", error=None)
    text = loaders.read(source.path)
    sha256 = hashlib.sha256(source.path.read_bytes()).hexdigest()
    before = event_loop.run(document_state.chunks_of(graph, source.name))
    if document_state.is_same(before, sha256):
        # a graph that another workspace has filled knows more of the document than this one
        is_listed = bool(get(graph, source.name).version)
        columns = {} if is_listed else _columns_from(graph, before)
        columns |= {"state": _state(text.notes), "notes": list(text.notes)}
        set_columns(graph, source.name, **columns)
        return Loaded(get(graph, source.name))
    loaded_at = now()
    extract = extraction.read(text)
    draft = document_state.Draft(
        name=source.name,
        path=str(source.path),
        format=source.format,
        sha256=sha256,
        extract=extract,
        dated_at=at or extract.dated_at or loaded_at,
        loaded_at=loaded_at,
    )
    changes = event_loop.run(updates.put(graph, draft, vectors(graph, draft)))
    finish(graph, draft, changes, notes=text.notes)
    contradictions = retrieval_eval.contradictions(graph, changes.touched)
    return Loaded(get(graph, source.name), changes, contradictions)


def vectors(graph: Graph, draft: "Draft") -> Mapping[str, list[float]]:
    """Return the vectors of a document's texts that the graph does not have yet.

    They are computed before the graph is held: a model takes seconds, and others wait for a graph.
    """
    from ftlab_kit.graphs import updates

    texts = event_loop.run(updates.new_texts(graph, draft))
    return dict(zip(texts, graph.vectors(texts), strict=True)) if texts else {}


def finish(graph: Graph, draft: "Draft", changes: "ChangeSummary", *, notes: Sequence[str]) -> None:
    """List a document as loaded, with what changed."""
    set_columns(
        graph,
        draft.name,
        state=_state(notes),
        content_sha256=draft.sha256,
        version=changes.version,
        n_chunks=changes.n_chunks,
        n_entities=changes.n_entities,
        n_facts=changes.n_facts,
        notes=list(notes),
        dated_at=draft.dated_at,
        loaded_at=draft.loaded_at,
    )


def _state(notes: Sequence[str]) -> str:
    return "partial_failure" if notes else "completed"


def delete(graph: Graph, document: Document | str) -> Document:
    """Remove a document from its graph and return its last record.

    Raises:
        NotFound: There is no such document.
    """
    from ftlab_kit.graphs import updates

    document = get(graph, document)
    event_loop.run(updates.drop(graph, document.name))
    graph.ws.store.delete("documents", id=document.id)
    return document


def name_of(document: Document | str) -> str:
    """Return a document's name."""
    return document.name if isinstance(document, Document) else document


# the list of documents


def _key(graph: Graph, name: str | list[str]) -> dict[str, Any]:
    return {"graph": graph.address, "owner": graph.ws.owner, "name": name}


def list_document(graph: Graph, name: str, *, path: str, format: str) -> None:
    """List a document that waits to be loaded."""
    key = _key(graph, name)
    values = {"path": path, "format": format, "state": "pending", "error": None}
    if not graph.ws.store.update("documents", key, **values):
        graph.ws.store.insert_new("documents", **key, **values, notes=[], created_at=now())


def set_columns(graph: Graph, name: str, **values: Any) -> None:
    """Change what is listed of a document."""
    graph.ws.store.update("documents", _key(graph, name), **values)


def documents(ws: Workspace, address: str) -> Rows[Document]:
    """Return the owner's documents of a graph, the oldest first.

    Those that an older kit has listed are everyone's until the graph is opened.
    """
    owners = [ws.owner, UNCLAIMED]
    return Rows(map(_record, ws.store.rows("documents", graph=address, owner=owners)))


def row_of(graph: Graph, document: Document | str) -> dict[str, Any]:
    """Return the row of a document.

    Raises:
        NotFound: There is no such document.
    """
    name = name_of(document)
    owners = [graph.ws.owner, UNCLAIMED]
    rows = graph.ws.store.rows("documents", **{**_key(graph, name), "owner": owners})
    if not rows:
        names = [document.name for document in documents(graph.ws, graph.address)]
        raise NotFound(
            f"There is no document {name!r}.{nearest(name, names)} graphs.documents(ws) lists them."
        )
    return max(rows, key=lambda row: row["owner"] == graph.ws.owner)


def get(graph: Graph, document: Document | str) -> Document:
    """Return a document by its name.

    Raises:
        NotFound: There is no such document.
    """
    return _record(row_of(graph, document))


def adopt(graph: Graph) -> None:
    """List the documents that a graph holds and this workspace does not list."""
    from graphiti_core.nodes import SagaNode

    from ftlab_kit.graphs import document_state, metadata

    listed = {document.name for document in documents(graph.ws, graph.address)}
    sagas = event_loop.run(SagaNode.get_by_group_ids(graph.driver, [graph.group]))
    for saga in sorted(sagas, key=lambda saga: (saga.created_at, saga.name)):
        if saga.name in listed:
            continue
        chunks = event_loop.run(document_state.chunks_of(graph, saga.name))
        about = next(map(metadata.of_chunk, chunks.values()), {})
        graph.ws.store.insert_new(
            "documents",
            **_key(graph, saga.name),
            path=about.get("path", ""),
            format=about.get("format", "episode"),
            state="completed",
            notes=[],
            **_columns_from(graph, chunks),
            created_at=now(),
        )


def _columns_from(graph: Graph, chunks: "Mapping[str, EpisodicNode]") -> dict[str, Any]:
    """Return the columns of a document that its chunks in the graph give."""
    from graphiti_core.search.search_utils import get_mentioned_nodes

    from ftlab_kit.graphs import metadata

    every = [metadata.of_chunk(chunk) for chunk in chunks.values()]
    newest: dict[str, Any] = max(every, key=lambda about: about.get("version", 0), default={})
    live = [chunk for chunk in chunks.values() if metadata.is_live(chunk)]
    mentioned = event_loop.run(get_mentioned_nodes(graph.driver, live)) if live else []
    return {
        "version": newest.get("version", 1),
        "content_sha256": newest.get("sha256"),
        "n_chunks": len(live),
        "n_entities": len(mentioned),
        "n_facts": len({key for chunk in live for key in chunk.entity_edges}),
        "dated_at": max((chunk.valid_at for chunk in live), default=None),
        "loaded_at": max((chunk.created_at for chunk in live), default=None),
    }


def _record(row: dict[str, Any]) -> Document:
    columns = {key: value for key, value in row.items() if key not in HIDDEN}
    return Document(**{**columns, "notes": tuple(row["notes"])})

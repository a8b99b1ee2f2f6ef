"""Loading and deleting: files become documents of a graph, one by one, each whole or not at all."""

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
from ftlab_kit.records import Contradiction, Document, Loading, OnProgress, Progress, Rows
from ftlab_kit.workspace import Workspace, now

if TYPE_CHECKING:
    from graphiti_core.nodes import EpisodicNode

    from ftlab_kit.graphs.updates import ChangeSummary, Draft

HIDDEN = ("created_at", "enriched")
MOST_FILES = 10_000
STOPPED = "It was stopped before it was loaded. Load it again: nothing of it is half there."


@dataclass(frozen=True)
class Source:
    """A file that is to be loaded, under a name."""

    path: Path
    name: str
    is_named: bool = False  # by who loads it: then it is meant to take another file's place


def sources(source: str | Path, name: str | None) -> list[Source]:
    """Return the files of a path: itself, or all of a folder that can be read.

    Raises:
        NotFound: There is nothing at the path.
        InputError: A folder without documents, with too many, or with a name of its own.
    """
    path = Path(source).expanduser().absolute()
    if not path.exists() and not path.is_symlink():
        raise NotFound(f"{path} does not exist; expected a document or a folder. Check the path.")
    if not path.is_dir():
        return [Source(path, name or path.name, name is not None)]
    if name:
        raise InputError(f"{path} is a folder: its documents are named by their files. Drop name=.")
    known = tuple(f".{format}" for format in loaders.suffixes())
    found = sorted(
        item
        for item in path.rglob("*")
        if item.suffix.lower() in known and item.is_file() and not _is_hidden(item, path)
    )
    if not found or len(found) > MOST_FILES:
        raise InputError(
            f"{path} holds {len(found)} documents; from 1 to {MOST_FILES:,} can be loaded at once. "
            f"What can be read: {', '.join(known)}."
        )
    return [Source(item, item.relative_to(path).as_posix()) for item in found]


def _is_hidden(item: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in item.relative_to(root).parts)


def load(
    graph: Graph,
    found: Sequence[Source],
    at: datetime | None,
    progress: OnProgress | None = None,
) -> Loading:
    """Load files, each as a document; if one fails, its document says so and the others load.

    Raises:
        KitError: What ailed the only file.
    """
    began = time.perf_counter()
    _refuse_clashes(graph, found)
    for source in found:
        format = source.path.suffix.lower().lstrip(".")
        write_down(graph, source.name, path=str(source.path), format=format)
    done: list[tuple[Document, ChangeSummary | None, list[Contradiction]]] = []
    try:
        for source in found:
            try:
                done.append(_load_one(graph, source, at))
            except KitError as error:
                _set(graph, source.name, state="failed", error=str(error))
                if len(found) == 1:
                    raise
                done.append((get(graph.ws, source.name, graph.address), None, []))
            if progress:
                progress(Progress("documents loaded", len(done), len(found), source.name))
    finally:
        unfinished = {"graph": graph.address, "state": ["pending", "processing"]}
        unfinished["name"] = [source.name for source in found]
        graph.ws.store.update("documents", unfinished, state="failed", error=STOPPED)
    counts = [kept for _, kept, _ in done if kept]
    return Loading(
        documents=Rows(document for document, _, _ in done),
        n_new_facts=sum(kept.n_new_facts for kept in counts),
        n_ended_facts=sum(kept.n_ended_facts for kept in counts),
        n_removed_facts=sum(kept.n_removed_facts for kept in counts),
        contradictions=Rows(dict.fromkeys(item for _, _, some in done for item in some)),
        seconds=time.perf_counter() - began,
    )


def _refuse_clashes(graph: Graph, found: Iterable[Source]) -> None:
    """Refuse a file whose name is another's document, unless it was named so on purpose.

    Raises:
        Conflict: A document of this name came from another file.
    """
    for source in found:
        row = graph.ws.store.get("documents", graph=graph.address, name=source.name)
        is_other = row and row["version"] and row["path"] != str(source.path)
        if row and is_other and not source.is_named and Path(row["path"]).exists():
            raise Conflict(
                f"The document {source.name} was loaded from {row['path']}. To load {source.path} "
                f"as its new content, say name={source.name!r}; as another one, give another name."
            )


def write_down(graph: Graph, name: str, *, path: str, format: str) -> None:
    """Write down that a document waits to be loaded."""
    key = {"graph": graph.address, "name": name}
    values = {"path": path, "format": format, "state": "pending", "error": None}
    if not graph.ws.store.update("documents", key, **values):
        graph.ws.store.insert_new("documents", **key, **values, notes=[], created_at=now())


def _load_one(
    graph: Graph, source: Source, at: datetime | None
) -> "tuple[Document, ChangeSummary | None, list[Contradiction]]":
    from ftlab_kit.graphs import extraction, retrieval_eval, updates

    _set(graph, source.name, state="processing", error=None)
    text = loaders.read(source.path)
    sha256 = hashlib.sha256(source.path.read_bytes()).hexdigest()
    before = event_loop.run(updates.episodes_of(graph, source.name))
    if updates.is_same(before, sha256):
        row = {} if _is_known(graph, source.name) else _kept(graph, before)
        _set(graph, source.name, **row, state=_state(text.notes), notes=list(text.notes))
        return get(graph.ws, source.name, graph.address), None, []
    loaded_at = now()
    extract = extraction.read(text)
    dated_at = at or extract.dated_at or loaded_at
    format = source.path.suffix.lower().lstrip(".")
    named = (source.name, str(source.path), format, sha256)
    draft = updates.Draft(*named, extract, dated_at, loaded_at)
    kept = event_loop.run(updates.put(graph, draft, vectors(graph, draft)))
    finish(graph, draft, kept, notes=text.notes)
    found = retrieval_eval.contradictions(graph, kept.touched)
    return get(graph.ws, source.name, graph.address), kept, found


def finish(graph: Graph, draft: "Draft", kept: "ChangeSummary", *, notes: Sequence[str]) -> None:
    """Write down that a document was loaded, and what came of it."""
    row = {
        "state": _state(notes),
        "content_sha256": draft.sha256,
        "version": kept.version,
        "n_chunks": kept.n_chunks,
        "n_entities": kept.n_entities,
        "n_facts": kept.n_facts,
        "notes": list(notes),
        "dated_at": draft.dated_at,
        "loaded_at": draft.loaded_at,
    }
    _set(graph, draft.name, **row)


def set_state(graph: Graph, name: str, state: str) -> None:
    """Write down in which state a document is."""
    _set(graph, name, state=state)


def _is_known(graph: Graph, name: str) -> bool:
    """Return whether what a document holds is written down here, and not only in its graph."""
    return bool(get(graph.ws, name, graph.address).version)


def _kept(graph: Graph, episodes: "Mapping[str, EpisodicNode]") -> dict[str, Any]:
    """Return what a graph tells of a document by its chunks."""
    from graphiti_core.search.search_utils import get_mentioned_nodes

    from ftlab_kit.graphs import updates

    every = [updates.about(episode) for episode in episodes.values()]
    newest: dict[str, Any] = max(every, key=lambda kept: kept.get("version", 0), default={})
    live = [item for item in episodes.values() if not updates.about(item).get("ended_at")]
    mentioned = event_loop.run(get_mentioned_nodes(graph.driver, live)) if live else []
    return {
        "version": newest.get("version", 1),
        "content_sha256": newest.get("sha256"),
        "n_chunks": len(live),
        "n_entities": len(mentioned),
        "n_facts": len({key for episode in live for key in episode.entity_edges}),
        "dated_at": max((episode.valid_at for episode in live), default=None),
        "loaded_at": max((episode.created_at for episode in live), default=None),
    }


def _state(notes: Sequence[str]) -> str:
    return "partial_failure" if notes else "completed"


def vectors(graph: Graph, draft: "Draft") -> Mapping[str, list[float]]:
    """Return the vectors of a document's texts that the graph does not have yet.

    They are made before the graph is held: a model takes seconds, and others wait for a graph.
    """
    from graphiti_core.edges import EntityEdge
    from graphiti_core.nodes import EntityNode

    from ftlab_kit.graphs import updates

    facts = {updates.fact_id(graph, claim): claim.sentence for claim in draft.extract.claims}
    things = {end for claim in draft.extract.claims for end in (claim.source, claim.target)}
    things |= {thing for _, thing in draft.extract.mentions}
    names = {updates.thing_id(graph, thing): thing.name for thing in things}

    async def known() -> set[str]:
        nodes = await EntityNode.get_by_uuids(graph.driver, sorted(names)) if names else []
        edges = await EntityEdge.get_by_uuids(graph.driver, sorted(facts)) if facts else []
        return {item.uuid for item in (*nodes, *edges)}

    there = event_loop.run(known())
    new = sorted({text for key, text in (facts | names).items() if key not in there})
    return dict(zip(new, graph.vectors(new), strict=True)) if new else {}


def delete(graph: Graph, document: Document | str) -> Document:
    """Take a document out of its graph and return what it was.

    Raises:
        NotFound: There is no such document.
    """
    from ftlab_kit.graphs import updates

    name = document.name if isinstance(document, Document) else document
    was = get(graph.ws, name, graph.address)
    event_loop.run(updates.drop(graph, name))
    graph.ws.store.delete("documents", graph=graph.address, name=name)
    return was


def documents(ws: Workspace, address: str) -> Rows[Document]:
    """Return the documents of a graph, the oldest first."""
    return Rows(map(_record, ws.store.rows("documents", graph=address)))


def get(ws: Workspace, name: str, address: str) -> Document:
    """Return a document by its name.

    Raises:
        NotFound: There is no such document.
    """
    row = ws.store.get("documents", graph=address, name=name)
    if row is None:
        known = [item.name for item in documents(ws, address)]
        raise NotFound(
            f"There is no document {name!r}.{nearest(name, known)} graphs.documents(ws) lists them."
        )
    return _record(row)


def adopt(graph: Graph) -> None:
    """Write down the documents that a graph holds and this workspace does not know of."""
    from graphiti_core.nodes import SagaNode

    from ftlab_kit.graphs import updates

    known = {row["name"] for row in graph.ws.store.rows("documents", graph=graph.address)}
    sagas = event_loop.run(SagaNode.get_by_group_ids(graph.driver, [graph.group]))
    for saga in sorted(sagas, key=lambda item: (item.created_at, item.name)):
        if saga.name in known:
            continue
        episodes = event_loop.run(updates.episodes_of(graph, saga.name))
        first = next(map(updates.about, episodes.values()), {})
        graph.ws.store.insert_new(
            "documents",
            graph=graph.address,
            name=saga.name,
            path=first.get("path", ""),
            format=first.get("format", "episode"),
            state="completed",
            notes=[],
            **_kept(graph, episodes),
            created_at=now(),
        )


def _set(graph: Graph, name: str, **values: Any) -> None:
    graph.ws.store.update("documents", {"graph": graph.address, "name": name}, **values)


def _record(row: dict[str, Any]) -> Document:
    values = {key: value for key, value in row.items() if key not in HIDDEN}
    return Document(**{**values, "notes": tuple(row["notes"])})

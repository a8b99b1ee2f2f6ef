"""Documents that another room writes sentence by sentence, instead of loading a file.

Each statement becomes a line, a fact and its evidence; each section becomes a chunk. So what a room
writes is searched, cited and ended as any document is. `analytics.record_lineage` uses it.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftlab_kit.graphs.extraction import (
    Chunk,
    Claim,
    Extract,
    Mention,
    as_sentence,
    attribute_name,
)
from ftlab_kit.graphs.loaders import Line
from ftlab_kit.records import Loading, Rows
from ftlab_kit.workspace import Workspace, now

__all__ = ["Mention", "Section", "Statement", "attribute_name", "write"]


@dataclass(frozen=True)
class Statement:
    """A sentence about one entity (source is target) or two.

    `attributes` are the values that it gives to attributes of the source.
    """

    source: Mention
    relation: str
    target: Mention
    sentence: str
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Section:
    """Statements under one title."""

    title: str
    statements: Sequence[Statement]


def write(
    ws: Workspace,
    name: str,
    sections: Sequence[Section],
    *,
    path: str,
    format: str,
    graph: str | None = None,
) -> Loading:
    """Write sections as a document, in place of its last version, and return what changed.

    The same sections again change nothing.

    Args:
        name: The document's name.
        path: Where its content comes from, for the document's record.
        format: Its kind, for the document's record.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        Conflict: The graph has another embedder.
        Unavailable: The server or the embedder can't be reached.
    """
    from ftlab_kit.graphs import open_graph

    began = time.perf_counter()
    opened = open_graph.get(ws, graph)  # before Graphiti is imported
    from ftlab_kit.graphs import document_state, event_loop, loading, updates

    extract = _extract(sections)
    text = "\n".join(chunk.text for chunk in extract.chunks)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    loading.list_document(opened, name, path=path, format=format)
    before = event_loop.run(document_state.chunks_of(opened, name))
    changes = updates.ChangeSummary()
    if extract.chunks and not document_state.is_same(before, sha256):
        loaded_at = now()
        draft = document_state.Draft(name, path, format, sha256, extract, loaded_at, loaded_at)
        changes = event_loop.run(updates.put(opened, draft, loading.vectors(opened, draft)))
        loading.finish(opened, draft, changes, notes=())
    else:
        loading.set_columns(opened, name, state="completed")
    return Loading(
        documents=Rows([loading.get(opened, name)]),
        n_new_facts=changes.n_new_facts,
        n_ended_facts=changes.n_ended_facts,
        n_removed_facts=changes.n_removed_facts,
        contradictions=Rows(),
        seconds=time.perf_counter() - began,
    )


def _extract(sections: Sequence[Section]) -> Extract:
    """Return sections as chunks of sentences; each sentence is a line."""
    extract = Extract()
    number = 0
    for section in sections:
        first = number + 1
        lines = []
        for statement in section.statements:
            number += 1
            line = Line(as_sentence(statement.sentence), number)
            lines.append(line)
            extract.chunk_of_line[line] = len(extract.chunks)
            ends = (statement.source, statement.target)
            extract.mentions |= {(len(extract.chunks), mention) for mention in ends}
            extract.claims.append(
                Claim(
                    statement.source,
                    statement.relation,
                    statement.target,
                    line.text,
                    line,
                    line,
                    statement.attributes,
                )
            )
        text = "\n".join(line.text for line in lines)
        extract.chunks.append(Chunk(text, Line("", first), Line("", number), section.title))
    return extract

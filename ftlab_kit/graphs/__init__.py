"""Graphs: documents become a knowledge graph that cites; no server and no key, or on Neo4j.

A graph is Graphiti's: entities, facts with two times, episodes and sagas, readable by Graphiti
under the owner's group. It is built from what documents' form says, without a language model;
`enrich` adds what one finds. Every verb takes `graph`: None is the workspace's own file, else a
server, as in neo4j://USER@HOST with its password in NEO4J_PASSWORD.

`embedder` is named by the first load and kept with the graph: all-minilm-l6-v2 unless another is.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict, Unpack

from ftlab_kit.errors import InputError
from ftlab_kit.records import (
    Contradiction,
    Document,
    Enrichment,
    Entity,
    Fact,
    Hit,
    Loading,
    Neighbourhood,
    Question,
    Retrieval,
    Rows,
)
from ftlab_kit.workspace import Workspace

SAMPLES = Path(__file__).parent / "samples"


class Wishes(TypedDict, total=False):
    """How one searches."""

    kinds: Annotated[tuple[str, ...], "Of fact, entity and passage, which; else all."]
    recipe: Annotated[str, "rrf, mmr, cross_encoder, node_distance or episode_mentions."]
    types: Annotated[tuple[str, ...], "Entities of these types only."]
    relations: Annotated[tuple[str, ...], "Facts of these relations only."]
    at: Annotated[datetime, "Facts that hold at this time; else now."]
    ended: Annotated[bool, "Also what no longer holds."]
    near: Annotated[str, "The entity that node_distance measures from."]
    reranker: Annotated[str, "Folder of a cross-encoder of sentence-transformers."]


class Allowed(TypedDict, total=False):
    """What enriching may cost, and whom it tells of its progress."""

    budget_usd: Annotated[float, "US dollars at most, by the list price."]
    budget_tokens: Annotated[int, "Tokens at most, of prompts and answers."]
    tell: Annotated[Callable[[int, int, dict[str, Any]], None], "Called after each chunk."]


class Order(TypedDict, total=False):
    """In what order entities come, how many of them, and as of when."""

    order: Annotated[str, "An attribute to order by; -name for the greatest first."]
    limit: Annotated[int, "Entities at most."]
    at: Annotated[datetime, "As of this time; else now."]


def load(
    ws: Workspace,
    source: str | Path,
    *,
    name: str | None = None,
    at: datetime | None = None,
    graph: str | None = None,
    embedder: str | None = None,
) -> Loading:
    """Load a document, or all of a folder, and return what came of it.

    Loading the same content again changes nothing. Changed content under the same name is a new
    version: what it no longer says is ended, not forgotten. No language model is asked.

    Args:
        source: A file (Markdown, text, DOCX, PDF, HTML, a notebook) or a folder of such.
        name: What the document is called; the name of its file if None.
        at: From when on it holds; the date that it bears if None, else now.
        embedder: all-minilm-l6-v2, hash, or openai:MODEL@URL; the graph's own if None.

    Raises:
        InputError: A file that can't be read: encrypted, broken, empty, too large.
        NotFound: There is nothing at the path.
        Conflict: Another file was loaded under this name, or the graph has another embedder.
        Unavailable: The server, or the embedder, can't be had.
    """
    from ftlab_kit.graphs import loading, open_graph

    found = loading.sources(source, name)
    return loading.load(open_graph.get(ws, graph, embedder), found, _utc(at))


def documents(ws: Workspace, *, graph: str | None = None) -> Rows[Document]:
    """Return the documents of a graph with their states, the oldest first."""
    from ftlab_kit.graphs import loading

    if graph is None:
        return loading.documents(ws, str(ws.graph))
    from ftlab_kit.graphs import open_graph

    found = open_graph.get(ws, graph)
    loading.adopt(found)
    return loading.documents(ws, found.address)


def delete(ws: Workspace, document: Document | str, *, graph: str | None = None) -> Document:
    """Take a document out of a graph exactly, and return what it was.

    What other documents say too stays, with their evidence; all that only this one says goes.

    Raises:
        NotFound: There is no such document.
    """
    from ftlab_kit.graphs import loading, open_graph

    return loading.delete(open_graph.get(ws, graph), document)


def search(
    ws: Workspace,
    query: str,
    *,
    limit: int = 10,
    graph: str | None = None,
    **wishes: Unpack[Wishes],
) -> Rows[Hit]:
    """Return what answers a query best, by words and meaning; each hit cites its lines.

    Links count by two recipes: node_distance puts first what is near an entity, cross_encoder also
    follows the facts that lead on from what was found.

    Args:
        query: A question or some words; what looks like a query language is taken as words.
        limit: Hits at most, of all kinds together.

    Raises:
        InputError: A query without a word or with too many, or wishes that can't be.
        NotFound: There is no entity `near`.
    """
    from ftlab_kit.graphs import open_graph, searching

    values: dict[str, Any] = dict(wishes)
    for key in ("kinds", "types", "relations"):
        if isinstance(values.get(key), str):
            raise InputError(
                f"{key} is {values[key]!r}; expected a tuple, as in ({values[key]!r},)."
            )
        elif key in values:
            values[key] = tuple(values[key])
    values["at"] = _utc(values.get("at"))
    return searching.search(
        open_graph.get(ws, graph), query, limit, searching.SearchOptions(**values)
    )


def find(
    ws: Workspace,
    type: str,
    where: Mapping[str, Any] | None = None,
    *,
    graph: str | None = None,
    **order: Unpack[Order],
) -> Rows[Entity]:
    """Return the entities of a type whose attributes pass: an exact answer, not a search.

        graphs.find(ws, "Model", {"vision": True}, order="price_input", limit=1)

    Args:
        where: By attribute a value, or a test such as '<5' or ('<', 5): <, <=, >, >=, !=, in,
            contains.
        order: order (an attribute, '-name' for the greatest first; entities without it are left
            out), limit, and `at` for the answer as of a time.

    Raises:
        InputError: There is no such type or attribute; the message names those that there are.
    """
    from ftlab_kit.graphs import open_graph, searching

    rest = (order.get("limit"), _utc(order.get("at")))
    return searching.find(open_graph.get(ws, graph), type, where or {}, order.get("order"), rest)


def facts(
    ws: Workspace, entity: Entity | str, *, ended: bool = False, graph: str | None = None
) -> Rows[Fact]:
    """Return what is said of an entity, with its places and times.

    Args:
        ended: Also what no longer holds.

    Raises:
        NotFound: There is no such entity.
    """
    from ftlab_kit.graphs import open_graph, searching

    return searching.facts_of(open_graph.get(ws, graph), entity, ended=ended)


def around(
    ws: Workspace,
    entity: Entity | str | None = None,
    *,
    depth: int = 1,
    limit: int = 40,
    graph: str | None = None,
) -> Neighbourhood:
    """Return an entity with what it is linked to; the entities with the most links if None.

    Raises:
        NotFound: There is no such entity.
    """
    from ftlab_kit.graphs import open_graph, searching

    return searching.around(open_graph.get(ws, graph), entity, depth, limit)


def contradictions(ws: Workspace, *, graph: str | None = None) -> Rows[Contradiction]:
    """Return the attributes to which documents give two values at once, with both lines."""
    from ftlab_kit.graphs import open_graph, retrieval_eval

    return Rows(retrieval_eval.contradictions(open_graph.get(ws, graph)))


def questions(ws: Workspace, *, limit: int = 50, graph: str | None = None) -> Rows[Question]:
    """Return questions that one fact of the graph each answers, the same ones every time."""
    from ftlab_kit.graphs import open_graph, retrieval_eval

    return Rows(retrieval_eval.questions(open_graph.get(ws, graph), limit))


def judge(
    ws: Workspace,
    questions: Sequence[Question] | None = None,
    *,
    k: int = 5,
    recipes: tuple[str, ...] = ("rrf", "mmr"),
    graph: str | None = None,
) -> Rows[Retrieval]:
    """Return how well search finds the facts that answer questions: recall at k, MRR, time.

    Args:
        questions: Fifty of the graph's own if None.
        k: Hits that are looked at.

    Raises:
        InputError: There is no question, or no such recipe.
    """
    from ftlab_kit.graphs import open_graph, retrieval_eval

    found = open_graph.get(ws, graph)
    asked = retrieval_eval.questions(found, 50) if questions is None else questions
    if not asked:
        raise InputError("There is no question to judge by. Load a document first: graphs.load.")
    return Rows(retrieval_eval.judge(found, asked, k, recipes))


def export(
    ws: Workspace, path: str | Path, *, limit: int | None = None, graph: str | None = None
) -> Path:
    """Write questions with the facts that answer them as chats, and return the file.

    `datasets.add(ws, graphs.export(ws, "pairs.jsonl"))` makes rows to train on of it.

    Args:
        limit: Pairs at most; all if None.

    Raises:
        InputError: The graph answers no question.
    """
    from ftlab_kit.graphs import open_graph, retrieval_eval

    asked = retrieval_eval.questions(open_graph.get(ws, graph), 10**9 if limit is None else limit)
    if not asked:
        raise InputError("The graph answers no question yet. Load a document first: graphs.load.")
    return retrieval_eval.export(asked, Path(path).expanduser().absolute())


def copy(ws: Workspace, to: str, *, graph: str | None = None) -> Rows[Document]:
    """Copy a graph, whole, into an empty one elsewhere, and return the documents there.

    Args:
        to: neo4j://USER@HOST:PORT or file:///PATH.

    Raises:
        Conflict: The other graph is not empty.
        Unavailable: Its server does not answer.
    """
    from ftlab_kit.graphs import copying, loading, open_graph

    source = open_graph.get(ws, graph)
    other = open_graph.get(ws, to, source.embedder.name)
    copying.copy(source, other)
    loading.adopt(other)
    return loading.documents(ws, other.address)


def lineage(ws: Workspace, *, graph: str | None = None) -> Loading:
    """Write the lab's own history into the graph: versions, configs, jobs, events, checkpoints,
    evaluations and exports as typed entities, as the document 'lab'.

    Called again it writes what has changed since; what no longer is so has ended.
    """
    from ftlab_kit.analytics import lineage
    from ftlab_kit.graphs import open_graph

    return lineage.record(open_graph.get(ws, graph))


def estimate(
    ws: Workspace, document: Document | str, model: str, *, graph: str | None = None
) -> Enrichment:
    """Return what it takes to let a language model read a document: calls, tokens, money.

    Args:
        model: openai:NAME, or openai:NAME@URL for any endpoint that speaks its protocol.

    Raises:
        NotFound: There is no such document.
        InputError: There can be no such model.
    """
    from ftlab_kit.graphs import enriching, open_graph

    return enriching.estimate(open_graph.get(ws, graph), document, model)


def enrich(
    ws: Workspace,
    document: Document | str,
    model: str,
    *,
    graph: str | None = None,
    **allowed: Unpack[Allowed],
) -> Enrichment:
    """Let a language model read a document's chunks, by Graphiti, and add what it finds.

    Chunks that are done are kept whatever happens; called again it goes on with the others.

    Args:
        model: openai:NAME, or openai:NAME@URL for any endpoint that speaks its protocol.
        allowed: budget_usd or budget_tokens, one at least; tell(done, of, spent) after each chunk.

    Raises:
        NotFound: There is no such document.
        InputError: No budget, or one in dollars for a model without a known price.
        BudgetSpent: The budget is spent; what was found is kept.
        Unavailable: The model does not answer as it should; what was found is kept.
    """
    from ftlab_kit.graphs import enriching, open_graph

    budget = (allowed.get("budget_usd"), allowed.get("budget_tokens"))
    tell = allowed.get("tell") or (lambda *_: None)
    return enriching.enrich(open_graph.get(ws, graph), document, model, budget, tell)


def _utc(at: datetime | None) -> datetime | None:
    """Return a time with its zone; one without is taken as UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at

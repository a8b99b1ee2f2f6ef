"""Graphs: documents become a knowledge graph that cites its lines, in a file or on Neo4j.

A graph is Graphiti's: entities, facts with two times, episodes and sagas, which Graphiti itself can
read under the owner's group. It is built from the form of the documents (headings, labels, lists,
tables), without a language model; `enrich` adds what a language model finds. Every verb takes
`graph`: None is the workspace's own file, otherwise an address such as neo4j://USER@HOST, whose
password is read from NEO4J_PASSWORD.

The first load chooses the `embedder` (all-minilm-l6-v2 by default); it is stored with the graph.

`graphs.statements` is for rooms that write a document of their own, sentence by sentence.
`README.md` in this folder has the way of a search, and what a graph holds.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab_kit.errors import InputError
from ftlab_kit.graphs import statements
from ftlab_kit.records import (
    Contradiction,
    Document,
    Enrichment,
    Entity,
    Fact,
    Hit,
    Loading,
    Neighbourhood,
    OnProgress,
    Question,
    Retrieval,
    Rows,
)
from ftlab_kit.workspace import Workspace

if TYPE_CHECKING:
    from ftlab_kit.graphs.open_graph import Graph

__all__ = [
    "SAMPLES",
    "around",
    "contradictions",
    "copy",
    "delete",
    "documents",
    "enrich",
    "estimate",
    "export",
    "facts",
    "find",
    "judge",
    "load",
    "questions",
    "search",
    "statements",
]

SAMPLES = Path(__file__).parent / "samples"


def load(
    ws: Workspace,
    source: str | Path,
    *,
    name: str | None = None,
    at: datetime | None = None,
    embedder: str | None = None,
    progress: OnProgress | None = None,
    graph: str | None = None,
) -> Loading:
    """Load a document, or every document of a folder, and return what changed in the graph.

    Loading the same content again changes nothing. Changed content under the same name becomes a
    new version: facts that it no longer states end, but stay in the graph. No language model is
    called.

    Args:
        source: A file (Markdown, text, DOCX, PDF, HTML, a notebook) or a folder of such files.
        name: The document's name; the name of its file if None.
        at: The time from which its facts hold; if None the date in the document, otherwise now.
        embedder: all-minilm-l6-v2, hash, or openai:MODEL@URL; the graph's own if None.
        progress: Called after each document.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        InputError: A file can't be read: it is encrypted, broken, empty or too large.
        NotFound: There is nothing at the path.
        Conflict: Another file was loaded under this name, or the graph has another embedder.
        Unavailable: The server or the embedder can't be reached.
    """
    from ftlab_kit.graphs import loading

    sources = loading.sources(source, name)
    return loading.load(_open(ws, graph, embedder), sources, _utc(at), progress)


def documents(ws: Workspace, *, graph: str | None = None) -> Rows[Document]:
    """Return the documents of a graph with their states, the oldest first.

    Args:
        graph: Address of the graph; the workspace's own file if None.
    """
    from ftlab_kit.graphs import loading

    if graph is None:
        return loading.documents(ws, str(ws.graph))
    opened = _open(ws, graph)
    loading.adopt(opened)
    return loading.documents(ws, opened.address)


def delete(ws: Workspace, document: Document | str, *, graph: str | None = None) -> Document:
    """Remove a document from a graph exactly, and return its last record.

    Facts that other documents state too stay, with their evidence; facts that only this document
    states are removed.

    Args:
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        NotFound: There is no such document.
    """
    from ftlab_kit.graphs import loading

    return loading.delete(_open(ws, graph), document)


def search(
    ws: Workspace,
    query: str,
    *,
    limit: int = 10,
    kinds: Sequence[str] = ("fact", "entity", "passage"),
    recipe: str = "rrf",
    types: Sequence[str] = (),
    relations: Sequence[str] = (),
    at: datetime | None = None,
    ended: bool = False,
    near: str | None = None,
    reranker: str | None = None,
    graph: str | None = None,
) -> Rows[Hit]:
    """Return what answers a query best, by words and by meaning; each hit cites its lines.

    Two recipes use the links of the graph: node_distance ranks first what is near an entity, and
    cross_encoder also follows the facts that lead on from the first hits.

    Args:
        query: A question or a few words; query syntax is read as plain words.
        limit: Most hits to return, of all kinds together.
        kinds: Kinds of hits: fact, entity, passage.
        recipe: rrf, mmr, cross_encoder, node_distance or episode_mentions.
        types: Only entities of these types; all if empty.
        relations: Only facts of these relations; all if empty.
        at: Only what held at this time; what holds now if None.
        ended: Also return what no longer holds.
        near: Name of the entity that the recipe node_distance measures from.
        reranker: Folder of a sentence-transformers cross-encoder, for the recipe cross_encoder.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        InputError: The query has no word or too many, or an option is not one of its values.
        NotFound: There is no entity called `near`.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import searching

    options = searching.SearchOptions(
        kinds=_names("kinds", kinds),
        recipe=recipe,
        types=_names("types", types),
        relations=_names("relations", relations),
        at=_utc(at),
        ended=ended,
        near=near,
        reranker=reranker,
    )
    return searching.search(opened, query, limit, options)


def find(
    ws: Workspace,
    type: str,
    where: Mapping[str, Any] | None = None,
    *,
    order: str | None = None,
    limit: int | None = None,
    at: datetime | None = None,
    graph: str | None = None,
) -> Rows[Entity]:
    """Return the entities of a type whose attributes match: an exact answer, not a search.

        graphs.find(ws, "Model", {"vision": True}, order="price_input", limit=1)

    Args:
        where: For each attribute a value, or a test such as '<5' or ('<', 5): <, <=, >, >=, !=,
            in, contains.
        order: Attribute to sort by; '-name' puts the greatest first. Entities without it are left
            out.
        limit: Most entities to return; all if None.
        at: Attributes as of this time; as of now if None.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        InputError: There is no such type or attribute; the message lists those that exist.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import lookups

    return lookups.find(opened, type, where or {}, order=order, limit=limit, at=_utc(at))


def facts(
    ws: Workspace, entity: Entity | str, *, ended: bool = False, graph: str | None = None
) -> Rows[Fact]:
    """Return the facts about an entity, with the lines that state them and their times.

    Args:
        ended: Also return facts that no longer hold.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        NotFound: There is no such entity.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import lookups

    return lookups.facts_of(opened, entity, ended=ended)


def around(
    ws: Workspace,
    entity: Entity | str | None = None,
    *,
    depth: int = 1,
    limit: int = 40,
    graph: str | None = None,
) -> Neighbourhood:
    """Return an entity with its neighbours, and the facts that link them.

    Args:
        entity: If None, the entities with the most links are returned.
        depth: Most links between the entity and a neighbour.
        limit: Most entities to return.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        NotFound: There is no such entity.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import lookups

    return lookups.around(opened, entity, depth, limit)


def contradictions(ws: Workspace, *, graph: str | None = None) -> Rows[Contradiction]:
    """Return the attributes that have two values at once, with the lines that state both.

    Args:
        graph: Address of the graph; the workspace's own file if None.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import retrieval_eval

    return Rows(retrieval_eval.contradictions(opened))


def questions(ws: Workspace, *, limit: int = 50, graph: str | None = None) -> Rows[Question]:
    """Return questions that one fact of the graph answers; the same ones every time.

    Args:
        limit: Most questions to return.
        graph: Address of the graph; the workspace's own file if None.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import retrieval_eval

    return Rows(retrieval_eval.questions(opened, limit))


def judge(
    ws: Workspace,
    questions: Sequence[Question] | None = None,
    *,
    k: int = 5,
    recipes: Sequence[str] = ("rrf", "mmr"),
    graph: str | None = None,
) -> Rows[Retrieval]:
    """Return how well search finds the facts that answer questions: recall at k, MRR, time.

    Args:
        questions: If None, fifty questions made from the graph itself.
        k: The fact counts as found when it is among the first k hits.
        recipes: Recipes of search to compare.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        InputError: There is no question, or no such recipe.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import retrieval_eval

    if questions is None:
        questions = retrieval_eval.questions(opened, 50)
    if not questions:
        raise InputError("There is no question to judge by. Load a document first: graphs.load.")
    return Rows(retrieval_eval.judge(opened, questions, k, _names("recipes", recipes)))


def export(
    ws: Workspace, path: str | Path, *, limit: int | None = None, graph: str | None = None
) -> Path:
    """Write questions and the facts that answer them as chats, and return the file.

    `datasets.add(ws, graphs.export(ws, "pairs.jsonl"))` turns them into rows to train on.

    Args:
        limit: Most pairs to write; all if None.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        InputError: The graph answers no question.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import retrieval_eval

    pairs = retrieval_eval.questions(opened, 10**9 if limit is None else limit)
    if not pairs:
        raise InputError("The graph answers no question yet. Load a document first: graphs.load.")
    return retrieval_eval.export(pairs, Path(path).expanduser().absolute())


def copy(ws: Workspace, to: str, *, graph: str | None = None) -> Rows[Document]:
    """Copy a whole graph into an empty one, and return the documents of the copy.

    Args:
        to: neo4j://USER@HOST:PORT or file:///PATH.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        Conflict: The other graph is not empty.
        Unavailable: Its server does not answer.
    """
    source = _open(ws, graph)
    target = _open(ws, to, source.embedder.name)
    from ftlab_kit.graphs import copying, loading

    copying.copy(source, target)
    loading.adopt(target)
    return loading.documents(ws, target.address)


def estimate(
    ws: Workspace, document: Document | str, model: str, *, graph: str | None = None
) -> Enrichment:
    """Return what enriching a document would cost: calls, tokens, money.

    Args:
        model: openai:NAME, or openai:NAME@URL for any endpoint that speaks OpenAI's protocol.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        NotFound: There is no such document.
        InputError: The model is not written as openai:NAME or openai:NAME@URL.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import enriching

    return enriching.estimate(opened, document, model)


def enrich(
    ws: Workspace,
    document: Document | str,
    model: str,
    *,
    budget_usd: float | None = None,
    budget_tokens: int | None = None,
    progress: OnProgress | None = None,
    graph: str | None = None,
) -> Enrichment:
    """Let a language model read a document's chunks through Graphiti, and add what it finds.

    Each finished chunk is kept, whatever happens later; the next call goes on with the others.

    Args:
        model: openai:NAME, or openai:NAME@URL for any endpoint that speaks OpenAI's protocol.
        budget_usd: Most US dollars to spend, by the list price. Give this or budget_tokens.
        budget_tokens: Most tokens to spend, of prompts and answers together.
        progress: Called after each chunk.
        graph: Address of the graph; the workspace's own file if None.

    Raises:
        NotFound: There is no such document.
        InputError: There is no budget, or one in dollars for a model without a known price.
        BudgetSpent: The budget is spent; what was found is kept.
        Unavailable: The model's answers can't be used; what was found is kept.
        Conflict: The document was deleted or loaded again meanwhile.
    """
    opened = _open(ws, graph)
    from ftlab_kit.graphs import budget, enriching

    allowed = budget.Budget(budget_usd, budget_tokens)
    return enriching.enrich(opened, document, model, allowed, progress)


def _open(ws: Workspace, graph: str | None, embedder: str | None = None) -> "Graph":
    """Return an open graph.

    Comes before the import of any file that imports Graphiti: opening switches off its telemetry
    and its reading of `.env`.
    """
    from ftlab_kit.graphs import open_graph

    return open_graph.get(ws, graph, embedder)


def _utc(at: datetime | None) -> datetime | None:
    """Return a time with its zone; one without is taken as UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _names(option: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple, and refuse one bare name: its letters would be read as names."""
    if isinstance(names, str):
        raise InputError(f"{option} is {names!r}; expected a tuple, as in ({names!r},).")
    return tuple(names)

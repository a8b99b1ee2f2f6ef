"""Records of knowledge graphs: documents, entities, facts, and the hits of a search."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ftlab_kit.records.shown import LONG, Record, Rows


@dataclass(frozen=True, slots=True)
class Citation(Record):
    """The lines of a document that state something, counted from 1.

    `part` is the page or the cell that the lines are counted in; empty for the whole document.
    """

    document: str
    first_line: int
    last_line: int
    part: str = ""

    def __str__(self) -> str:
        part = f", {self.part}" if self.part else ""
        last = f"-{self.last_line}" if self.last_line > self.first_line else ""
        return f"{self.document}{part}:{self.first_line}{last}"


@dataclass(frozen=True, slots=True)
class Document(Record):
    """A document of a graph.

    `state` is pending, processing, completed, partial_failure or failed. `version` counts the
    contents that were loaded under its name; from `dated_at` on its facts hold. `notes` list what
    could not be read, `error` says why it failed. Tokens and cost are those of enriching.
    """

    id: int
    name: str
    state: str
    format: str
    version: int
    n_chunks: int
    n_entities: int
    n_facts: int
    n_tokens: int
    cost_usd: float | None
    dated_at: datetime | None
    loaded_at: datetime | None = field(metadata=LONG)
    notes: tuple[str, ...]
    error: str | None
    path: str = field(metadata=LONG)
    content_sha256: str | None = field(metadata=LONG)
    graph: str = field(metadata=LONG)


@dataclass(frozen=True, slots=True)
class Entity(Record):
    """Something that documents mention, with its present attributes. `id` is its uuid."""

    name: str
    type: str
    attributes: Mapping[str, Any] = field(hash=False)
    summary: str
    places: tuple[Citation, ...]
    id: str = field(metadata=LONG)


@dataclass(frozen=True, slots=True)
class Fact(Record):
    """A sentence about one entity or two, with every place that states it.

    It holds from `valid_at` until `invalid_at`, or until now if that is None; `expired_at` is when
    the graph recorded its end. A fact about one entity has an `attribute` and its `value`.
    """

    fact: str
    relation: str
    source: str
    target: str
    places: tuple[Citation, ...]
    valid_at: datetime | None
    invalid_at: datetime | None
    expired_at: datetime | None = field(metadata=LONG)
    attribute: str | None = field(metadata=LONG)
    value: Any = field(metadata=LONG, hash=False)
    id: str = field(metadata=LONG)


@dataclass(frozen=True, slots=True)
class Hit(Record):
    """A result of a search: a fact, an entity or a passage, with its places and scores.

    Hits are ordered by `score`. `scores` has what each method of the search computed for it:
    full_text is BM25, vector the cosine, graph the number of links from hits of the other two (in
    the recipe cross_encoder). A method that did not return the hit is missing.
    """

    text: str
    kind: str
    score: float
    scores: Mapping[str, float] = field(hash=False)
    places: tuple[Citation, ...]
    valid_at: datetime | None
    invalid_at: datetime | None
    id: str = field(metadata=LONG)


@dataclass(frozen=True, slots=True)
class Contradiction(Record):
    """One attribute of an entity with two values at once, and the place that states each."""

    entity: str
    attribute: str
    first: Any = field(hash=False)
    first_place: Citation
    second: Any = field(hash=False)
    second_place: Citation


@dataclass(frozen=True, slots=True)
class Loading(Record):
    """What a load changed. A second load of the same content changes nothing: all counts are 0."""

    documents: Rows[Document]
    n_new_facts: int
    n_ended_facts: int
    n_removed_facts: int
    contradictions: Rows[Contradiction]
    seconds: float
    n_llm_calls: int = 0

    def _repr_html_(self) -> str:
        counts = (
            f"{self.n_new_facts} new facts, {self.n_ended_facts} ended, "
            f"{self.n_removed_facts} removed, {self.n_llm_calls} calls of a language model, "
            f"{self.seconds:.2f} s"
        )
        clashes = ""
        if self.contradictions:
            clashes = f"<h4>contradictions</h4>{self.contradictions._repr_html_()}"
        return f"<p>{counts}</p>{self.documents._repr_html_()}{clashes}"


@dataclass(frozen=True, slots=True)
class Neighbourhood(Record):
    """A part of a graph: entities, and the facts between them. `n_more` entities were left out."""

    entities: Rows[Entity]
    facts: Rows[Fact]
    n_more: int


@dataclass(frozen=True, slots=True)
class Enrichment(Record):
    """What enriching a document will take, or has taken.

    An estimate has no `n_done`. `cost_usd` is None for a model without a known price.
    """

    model: str
    n_chunks: int
    n_done: int | None
    n_calls: int
    n_input_tokens: int
    n_output_tokens: int
    cost_usd: float | None
    seconds: float | None
    message: str


@dataclass(frozen=True, slots=True)
class Question(Record):
    """A question with the fact that answers it, made from the graph itself."""

    question: str
    answer: str
    fact_id: str = field(metadata=LONG)
    places: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class Retrieval(Record):
    """How well one recipe of search finds the facts that answer questions.

    `recall` is the share of questions whose fact is among the first `k` hits, with a 95% interval
    (Wilson); `mrr` is the mean reciprocal rank, 0 for a fact that is not among them.
    """

    recipe: str
    n_questions: int
    k: int
    recall: float
    recall_low: float
    recall_high: float
    mrr: float
    median_ms: float

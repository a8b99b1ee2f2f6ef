"""Records of knowledge graphs: documents, entities, facts, and what a search finds of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ftlab_kit.records.shown import LONG, Record, Rows


@dataclass(frozen=True, slots=True)
class Citation(Record):
    """Where something is said: a document and its lines, counted from 1.

    `part` names what a line is counted in where that is not the whole document: a page, a cell.
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
    """A document of a graph: pending, processing, completed, partial_failure or failed.

    `version` counts the contents that were loaded under its name; `dated_at` is the date that it
    bears, from which its facts hold. `notes` say what could not be read of it; `error` says why it
    failed. Tokens and cost are those that a language model took to enrich it, 0 where none did.
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
    """Something that documents speak of. `id` is its uuid in the graph; attributes hold today."""

    name: str
    type: str
    attributes: Mapping[str, Any] = field(hash=False)
    summary: str
    places: tuple[Citation, ...]
    id: str = field(metadata=LONG)


@dataclass(frozen=True, slots=True)
class Fact(Record):
    """A sentence about one entity or two, with every place that says it.

    It holds from `valid_at` on, until `invalid_at` where it no longer does; `expired_at` is when
    the graph learnt that. `attribute` and `value` are given where it is about one entity.
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
    """What a search found: a fact, an entity or a passage, with where it stands and its scores.

    `score` is the one that hits are ordered by, `scores` are its components as they were computed:
    full_text is BM25, vector the cosine, graph the steps from what the other two found (by the
    recipe cross_encoder). One that a component did not find is missing there.
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
    """One attribute of an entity with two values that can't both be, and where each is said."""

    entity: str
    attribute: str
    first: Any = field(hash=False)
    first_place: Citation
    second: Any = field(hash=False)
    second_place: Citation


@dataclass(frozen=True, slots=True)
class Loading(Record):
    """What a load did. A second load of the same content changes nothing: all counts are 0."""

    documents: Rows[Document]
    n_new_facts: int
    n_ended_facts: int
    n_removed_facts: int
    contradictions: Rows[Contradiction]
    seconds: float
    n_llm_calls: int = 0

    def _repr_html_(self) -> str:
        words = (
            f"{self.n_new_facts} new facts, {self.n_ended_facts} ended, "
            f"{self.n_removed_facts} removed, {self.n_llm_calls} calls of a language model, "
            f"{self.seconds:.2f} s"
        )
        found = ""
        if self.contradictions:
            found = f"<h4>contradictions</h4>{self.contradictions._repr_html_()}"
        return f"<p>{words}</p>{self.documents._repr_html_()}{found}"


@dataclass(frozen=True, slots=True)
class Neighbourhood(Record):
    """A part of a graph: entities, and the facts between them; `n_more` entities were left out."""

    entities: Rows[Entity]
    facts: Rows[Fact]
    n_more: int


@dataclass(frozen=True, slots=True)
class Enrichment(Record):
    """What it takes to enrich documents by a language model, or what it took.

    An estimate has no `n_done`; `cost_usd` is None for a model without a known price.
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

    `recall` is the share of questions whose fact is among the first `k` hits, `mrr` the mean
    reciprocal rank (0 where it is not among them). The interval is Wilson's, at 95%.
    """

    recipe: str
    n_questions: int
    k: int
    recall: float
    recall_low: float
    recall_high: float
    mrr: float
    median_ms: float

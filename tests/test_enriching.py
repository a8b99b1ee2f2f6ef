"""Enriching from outside: a model on loopback reads chunks through Graphiti and adds facts."""

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from graphiti_core.edges import EntityEdge
from graphiti_core.nodes import EntityNode

from ftlab_kit import Workspace, graphs
from ftlab_kit.errors import BudgetSpent, Conflict, InputError, NotFound, Unavailable
from ftlab_kit.graphs import document_state, event_loop, metadata, open_graph
from ftlab_kit.records import Document, Enrichment, Progress
from tests.chat_server import Chat, ChatServer, Turns, serving
from tests.graph_servers import Server
from tests.test_graphs import Lab, snapshot

TEXT = """# Models

**Last Updated:** March 1, 2025

### Red

**Model ID:** red-1
**Price:** $1.00 per 1M tokens

Mara Quill founded Acme.

### Vision Support

**Models with Vision:**

- Red

Red masters Vision.

## History

Ada Stern audits Acme. Ada Stern trusts Mara Quill.
"""
OTHER = """# Notes

**Last Updated:** January 1, 2025

### Red

**Model ID:** red-1
**Batch Size:** 8

Otto Brand left Acme.
"""
N_CHUNKS = 4
FOUND = {
    "Mara Quill founded Acme.": "FOUNDED",
    "Ada Stern audits Acme.": "AUDITS",
    "Ada Stern trusts Mara Quill.": "TRUSTS",
}
NAME = r"[A-Z]\w+(?: [A-Z]\w+)?"
SENTENCE = rf"({NAME}) (founded|audits|trusts|masters|left|distrusts) ({NAME})\."


def between(text: str, first: str, last: str) -> str:
    return text.split(first, 1)[1].split(last, 1)[0]


@dataclass
class Reader:
    """A model that reads plain sentences, and answers Graphiti in the schemas that it asks for.

    By parts of their sentences, `same` has the facts that it takes for another, `ends` those that
    end another, `days` their dates. `says` replaces every answer; a schema that `fails` gets none.
    """

    same: dict[str, str] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    days: dict[str, str] = field(default_factory=dict)
    says: str | None = None
    fails: str | None = None
    slow_s: float = 0.0
    n_tokens: int = 0
    n_answers: int = 0
    server: ChatServer = field(init=False)

    def __call__(self, turns: Turns) -> str:
        time.sleep(self.slow_s)
        schema = self.server.requests[-1]["response_format"]["json_schema"]["name"]
        answer = self.says
        if answer is None:
            response = getattr(self, schema)(turns[-1]["content"])
            answer = "" if schema == self.fails else json.dumps(response)
        self.n_answers += 1
        self.n_tokens += sum(len(turn["content"].split()) for turn in turns)
        self.n_tokens += len(answer.split())
        return answer

    def ExtractedEntities(self, text: str) -> dict[str, Any]:
        matches = re.findall(SENTENCE, between(text, "<TEXT>", "</TEXT>"))
        names = dict.fromkeys(name for source, _, target in matches for name in (source, target))
        return {"extracted_entities": [{"name": name, "entity_type_id": 0} for name in names]}

    def ExtractedEdges(self, text: str) -> dict[str, Any]:
        edges = []
        for match in re.finditer(
            SENTENCE, between(text, "<CURRENT_MESSAGE>", "</CURRENT_MESSAGE>")
        ):
            ends = {"source_entity_name": match[1], "target_entity_name": match[3]}
            day = next((day for part, day in self.days.items() if part in match[0]), None)
            more = {"relation_type": match[2].upper(), "fact": match[0], "valid_at": day}
            edges.append(ends | more)
        return {"edges": edges}

    def NodeResolutions(self, text: str) -> dict[str, Any]:
        new = json.loads(between(text, "<ENTITIES>", "</ENTITIES>"))
        existing = json.loads(between(text, "<EXISTING ENTITIES>", "</EXISTING ENTITIES>"))
        ids = {item["name"].casefold(): item["candidate_id"] for item in reversed(existing)}
        resolutions = [
            {"id": item["id"], "name": item["name"], "duplicate_candidate_id": same}
            for item in new
            for same in [ids.get(item["name"].casefold(), -1)]
        ]
        return {"entity_resolutions": resolutions}

    def EdgeDuplicate(self, text: str) -> dict[str, Any]:
        new = between(text, "<NEW FACT>", "</NEW FACT>")
        pairs = ast.literal_eval(between(text, "<EXISTING FACTS>", "</EXISTING FACTS>").strip())
        tag = "FACT INVALIDATION CANDIDATES"
        others = ast.literal_eval(between(text, f"<{tag}>", f"</{tag}>").strip())
        return {
            "duplicate_facts": self.meant(self.same, new, pairs),
            "contradicted_facts": self.meant(self.ends, new, pairs + others),
        }

    def meant(self, which: dict[str, str], new: str, facts: list[Any]) -> list[int]:
        meant = [other for part, other in which.items() if part in new]
        return [item["idx"] for item in facts if any(part in item["fact"] for part in meant)]

    def EdgeTimestamps(self, _: str) -> dict[str, Any]:
        return {}

    def SummarizedEntities(self, _: str) -> dict[str, Any]:
        return {"summaries": []}


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    # an answer in two packets waits 40 ms for the first to be confirmed
    monkeypatch.setattr(Chat, "disable_nagle_algorithm", True)
    model = Reader()
    with serving(model) as model.server:
        yield model


class Study(Lab):
    """A lab with a model that reads its documents."""

    reader: Reader

    @property
    def model(self) -> str:
        return f"openai:reader@{self.reader.server.url}"

    @property
    def document(self) -> Document:
        return next(item for item in self.documents() if item.name == "models.md")

    def read(self, budget: int = 10**9, **more: Any) -> Enrichment:
        done: Enrichment = self.enrich("models.md", self.model, budget_tokens=budget, **more)
        return done

    def chunks(self, name: str = "models.md") -> dict[str, Any]:
        return event_loop.run(document_state.chunks_of(self.graph, name))

    def everything(self, kind: type[Any]) -> dict[str, Any]:
        items = event_loop.run(kind.get_by_group_ids(self.graph.driver, [self.graph.group]))
        return {item.uuid: item for item in items}

    def edge(self, start: str) -> Any:
        return next(
            item for item in self.everything(EntityEdge).values() if item.fact.startswith(start)
        )


@pytest.fixture
def study(ws: Workspace, reader: Reader) -> Study:
    """A document of four chunks, and a model that has not read it yet."""
    study = Study(ws)
    study.reader = reader
    study.put("models.md", TEXT)
    assert len(study.chunks()) == N_CHUNKS
    return study


# what a model adds, and what stays


def test_what_a_model_finds_is_added_to_the_chunks(study: Study):
    study.read()
    edges = study.everything(EntityEdge).values()
    relations = {edge.fact: edge.name for edge in edges}
    assert relations.items() >= FOUND.items()
    names = {node.name for node in study.everything(EntityNode).values()}
    assert names >= {"Mara Quill", "Acme", "Ada Stern", "Red", "Vision"}


def test_search_finds_it_with_its_lines(study: Study):
    study.read()
    hit = study.search("Who audits Acme?", kinds=("fact",))[0]
    assert hit.text == "Ada Stern audits Acme."
    (place,) = hit.places
    text = TEXT.splitlines()[place.first_line - 1 : place.last_line]
    assert place.document == "models.md" and any("audits" in line for line in text)


def test_an_entity_in_two_chunks_is_one_entity(study: Study):
    study.read()
    facts = {fact.fact for fact in study.facts("Acme")}
    assert facts == {"Mara Quill founded Acme.", "Ada Stern audits Acme."}


def test_what_documents_state_is_unchanged(study: Study):
    facts, nodes, chunks = (
        study.everything(EntityEdge),
        study.everything(EntityNode),
        study.chunks(),
    )
    study.read()
    after = study.everything(EntityEdge)
    assert all(after[key].model_dump() == fact.model_dump() for key, fact in facts.items())
    now = study.everything(EntityNode)
    assert all(now[key].attributes == node.attributes for key, node in nodes.items())
    assert all(now[key].labels == node.labels for key, node in nodes.items())
    for key, chunk in study.chunks().items():
        assert {*chunk.entity_edges} >= {*chunks[key].entity_edges}
        rest = (item.model_dump(exclude={"entity_edges"}) for item in (chunk, chunks[key]))
        assert next(rest) == next(rest)


def test_a_fact_that_the_model_finds_too_keeps_its_evidence_and_value(study: Study):
    study.reader.same = {"Red masters Vision": "supports vision"}
    before = study.edge("Red supports vision")
    study.read()
    after = study.edge("Red supports vision")
    assert after.model_dump() == before.model_dump()
    assert after.attributes[metadata.EVIDENCE] and after.attributes[metadata.VALUES]
    assert study.find("Model", {"vision": True})[0].name == "Red"


def test_a_model_does_not_end_what_a_document_states(study: Study):
    study.reader.ends = {"Red masters Vision": "supports vision"}
    study.reader.days = {"Red masters Vision": "2025-06-01T00:00:00Z"}
    study.read()
    assert study.edge("Red supports vision").invalid_at is None
    assert study.edge("Red masters Vision").valid_at.month == 6


def test_a_model_ends_what_it_found_itself_in_the_document(study: Study):
    study.reader.ends = {"audits": "founded"}
    study.reader.days = {"founded": "2025-03-01T00:00:00Z", "audits": "2025-06-01T00:00:00Z"}
    study.read()
    ended = study.edge("Mara Quill founded")
    assert ended.invalid_at == study.edge("Ada Stern audits").valid_at
    assert "Mara Quill founded Acme." not in {fact.fact for fact in study.facts("Acme")}


def test_the_document_counts_what_was_found(study: Study):
    before = study.document
    study.read()
    after = study.document
    assert after.n_facts == before.n_facts + len(FOUND) + 1
    assert after.n_entities == before.n_entities + 3
    assert after.state == "completed" and after.error is None


def test_notes_of_loading_stay(study: Study):
    store, key = study.ws.store, {"graph": study.graph.address, "name": "models.md"}
    store.update("documents", key, notes=["Page 2 is a picture."], state="partial_failure")
    study.read()
    assert study.document.notes and study.document.state == "partial_failure"


def test_each_chunk_is_read_with_only_the_one_before_it(study: Study):
    study.put("other.md", OTHER)
    study.read()
    prompts = [item["messages"][-1]["content"] for item in study.reader.server.requests]
    (last,) = (text for text in prompts if "<CURRENT_MESSAGE>" in text and "Ada Stern" in text)
    before = json.loads(between(last, "<PREVIOUS_MESSAGES>", "</PREVIOUS_MESSAGES>"))
    assert len(before) == 1 and "Red masters Vision" in before[0]["content"]
    assert not any(str(study.folder) in text for text in prompts)


# what it costs


def test_the_first_estimate_uses_figures_of_other_documents(study: Study):
    estimate = study.estimate("models.md", study.model)
    assert (estimate.n_chunks, estimate.n_done, estimate.seconds) == (N_CHUNKS, None, None)
    assert estimate.n_calls > N_CHUNKS and estimate.n_input_tokens > estimate.n_output_tokens > 0
    assert estimate.cost_usd is None
    assert study.reader.server.requests == []


def test_an_estimate_has_dollars_only_at_the_vendors_address(study: Study):
    cost = study.estimate("models.md", "openai:gpt-4.1-mini").cost_usd
    assert cost and 0 < cost < 1
    assert study.estimate("models.md", f"openai:gpt-4.1-mini@{URL}").cost_usd is None
    assert study.estimate("models.md", "openai:no-such-model").cost_usd is None


URL = "http://127.0.0.1:1/v1"


def test_another_server_does_not_have_the_vendors_price(
    study: Study, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    assert study.estimate("models.md", "openai:gpt-4.1-mini").cost_usd is None


def test_an_estimate_uses_the_chunks_that_are_done(study: Study):
    with suppress(Pause):
        study.read(progress=pause_after(2))
    estimate = study.estimate("models.md", study.model)
    assert estimate.n_chunks == N_CHUNKS - 2
    assert estimate.message == "2 chunks, from the 2 chunks that are done"
    assert estimate.n_calls == study.reader.n_answers
    assert estimate.n_input_tokens + estimate.n_output_tokens == study.reader.n_tokens
    assert estimate.seconds and estimate.seconds > 0


def test_an_estimate_with_nothing_left_is_zero(study: Study):
    study.read()
    estimate = study.estimate("models.md", study.model)
    assert (estimate.n_chunks, estimate.n_calls, estimate.n_input_tokens) == (0, 0, 0)


def test_tokens_and_calls_are_those_that_the_server_counted(study: Study):
    done = study.read()
    reader = study.reader
    assert done.n_calls == reader.n_answers == len(reader.server.requests)
    assert done.n_input_tokens + done.n_output_tokens == reader.n_tokens
    assert (study.document.n_tokens, study.document.cost_usd) == (reader.n_tokens, None)
    assert (done.n_chunks, done.n_done, done.cost_usd) == (N_CHUNKS, N_CHUNKS, None)


def test_a_second_run_counts_its_own_and_the_document_all(study: Study):
    with suppress(Pause):
        study.read(progress=pause_after(1))
    first = study.reader.n_tokens
    done = study.read()
    assert done.n_done == N_CHUNKS - 1
    assert done.n_input_tokens + done.n_output_tokens == study.reader.n_tokens - first
    assert study.document.n_tokens == study.reader.n_tokens


def test_dollars_are_counted_where_there_is_a_price(study: Study, azure: str):
    done = study.enrich("models.md", f"openai:gpt-4.1-mini@{azure}", budget_usd=1.0)
    assert done.cost_usd == pytest.approx(study.document.cost_usd)
    per_token = done.cost_usd / (done.n_input_tokens + done.n_output_tokens)
    assert 0.4e-6 <= per_token <= 1.6e-6


def test_a_budget_in_dollars_stops_too(study: Study, azure: str):
    with pytest.raises(BudgetSpent, match=r"The budget of 0\.001 USD is spent \(0\.00"):
        study.enrich("models.md", f"openai:gpt-4.1-mini@{azure}", budget_usd=0.001)
    assert 0.001 <= (study.document.cost_usd or 0) < 0.003


def test_a_budget_in_dollars_holds_after_a_model_without_a_price(study: Study, azure: str):
    with suppress(Pause):
        study.read(progress=pause_after(1))
    with pytest.raises(BudgetSpent, match="USD is spent"):
        study.enrich("models.md", f"openai:gpt-4.1-mini@{azure}", budget_usd=0.001)
    assert study.document.cost_usd is None


@pytest.fixture
def azure(study: Study, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a vendor with known prices, which resolves to the server on loopback."""
    lookup = socket.getaddrinfo

    def redirected(host: Any, *rest: Any, **more: Any) -> Any:
        named = host.decode() if isinstance(host, bytes) else host
        return lookup("127.0.0.1" if named == "lab.openai.azure.com" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", redirected)
    return study.reader.server.url.replace("127.0.0.1", "lab.openai.azure.com")


# budgets


class Pause(Exception):
    """The caller stops."""


def pause_after(n_chunks: int, error: type[BaseException] = Pause) -> Callable[..., None]:
    def progress(step: Progress) -> None:
        if step.done == n_chunks:
            raise error

    return progress


def test_a_spent_budget_stops_at_once_and_keeps_what_was_found(study: Study):
    with suppress(Pause):
        study.read(progress=pause_after(1))
    with pytest.raises(BudgetSpent, match=r"of 3,000 tokens is spent \(\d,\d{3}\)\. .*is kept"):
        study.read(3_000)
    document = study.document
    assert document.state == "partial_failure"
    assert (document.error or "").startswith("The budget of 3,000 tokens is spent")
    assert document.n_tokens == study.reader.n_tokens
    assert study.edge("Mara Quill founded").episodes


def test_a_budget_is_overdrawn_by_a_call_at_most(study: Study):
    requests = study.reader.server.requests
    with pytest.raises(BudgetSpent):
        study.read(1)
    assert len(requests) == 1


def test_after_a_spent_budget_only_the_rest_is_read(study: Study):
    steps: list[int] = []
    with pytest.raises(BudgetSpent):
        study.read(5_000, progress=lambda step: steps.append(step.done))
    n_done, first = len(steps), len(study.reader.server.requests)
    assert 0 < n_done < N_CHUNKS
    done = study.read()
    assert done.n_done == N_CHUNKS - n_done
    again = [item["messages"][-1]["content"] for item in study.reader.server.requests[first:]]
    texts = [between(text, "<TEXT>", "</TEXT>") for text in again if "<TEXT>" in text]
    assert len(texts) == done.n_done
    assert study.document.state == "completed" and study.document.error is None


def test_finished_chunks_are_not_paid_again(study: Study):
    study.read()
    n_asked = len(study.reader.server.requests)
    done = study.read()
    assert (done.n_chunks, done.n_calls, done.n_input_tokens) == (0, 0, 0)
    assert len(study.reader.server.requests) == n_asked


@pytest.mark.parametrize(
    ("model", "budget", "message"),
    [
        ("openai:m@{}", {}, "Enriching costs money. Set a budget"),
        ("openai:m@{}", {"budget_usd": 1.0}, "has no known price.*Give budget_tokens"),
        ("openai:no-such-model", {"budget_usd": 1.0}, "has no known price"),
        ("anthropic:m", {"budget_tokens": 9}, "can't enrich a graph; give openai:NAME"),
        ("tiny", {"budget_tokens": 9}, "can't enrich a graph; give openai:NAME"),
        ("openai:", {"budget_tokens": 9}, "can't be read; expected provider:name"),
        ("openai:m@127.0.0.1:8000", {"budget_tokens": 9}, "can't be read.*http://"),
    ],
)
def test_an_unusable_model_or_budget_is_refused(
    study: Study, model: str, budget: Any, message: str
):
    with pytest.raises(InputError, match=message):
        study.enrich("models.md", model.format(study.reader.server.url), **budget)
    assert study.document.state == "completed" and study.reader.server.requests == []


def test_an_unknown_document_names_the_nearest(study: Study):
    with pytest.raises(NotFound, match="no document 'model.md'. Did you mean 'models.md'"):
        study.estimate("model.md", study.model)


def test_a_vendor_needs_a_key(study: Study):
    with pytest.raises(Unavailable, match="openai:gpt-4.1-mini needs a key.*OPENAI_API_KEY"):
        study.enrich("models.md", "openai:gpt-4.1-mini", budget_tokens=9)
    assert study.document.state == "completed"


# what fails


FAILURES = {
    "500": [(500, "out of order")] * 9,
    "429": [(429, "too many")] * 9,
    "a page": [(200, "<html>hello</html>")] * 9,
}


@pytest.mark.parametrize("faults", FAILURES.values(), ids=FAILURES)
def test_a_failing_model_is_reported_and_chunks_are_kept(study: Study, faults: Any):
    def break_it(step: Progress) -> None:
        if step.done == 2:
            study.reader.server.faults.extend(faults)

    with pytest.raises(Unavailable, match="does not answer as Graphiti needs it.*is kept"):
        study.read(progress=break_it)
    assert study.document.state == "partial_failure" and "does not" in (study.document.error or "")
    study.reader.server.faults.clear()
    assert study.read().n_done == N_CHUNKS - 2
    assert {edge.fact for edge in study.everything(EntityEdge).values()} >= FOUND.keys()


@pytest.mark.parametrize("answer", ["I am sorry.", "", "{}", "[1, 2]", '{"edges": 7}'])
def test_an_unreadable_answer_is_requested_once_more(study: Study, answer: str):
    study.reader.says = answer
    with pytest.raises(Unavailable, match="does not answer.*Small models often fail the JSON"):
        study.read()
    assert len(study.reader.server.requests) == 2
    assert study.document.n_tokens == study.reader.n_tokens > 0


def test_a_good_answer_after_a_bad_one_is_taken(study: Study):
    study.reader.server.faults.append((200, json.dumps({"choices": []})))
    assert study.read().n_done == N_CHUNKS


def test_json_in_a_fence_is_read(study: Study):
    fenced = Fenced(study.reader)
    with serving(fenced) as study.reader.server:
        assert study.read().n_done == N_CHUNKS


@dataclass
class Fenced:
    """A model whose answers stand in a fence."""

    reader: Reader

    def __call__(self, turns: Turns) -> str:
        return f"```json {self.reader(turns)} ```".replace("```json ", "```json\n")


def test_a_server_that_is_down_is_reported(study: Study):
    with pytest.raises(Unavailable, match="does not answer as Graphiti needs it: Connection error"):
        study.enrich("models.md", f"openai:m@{URL}", budget_tokens=9)


def test_after_a_failure_nothing_more_is_requested(study: Study):
    study.reader.server.faults = [(401, "no such key")]
    with pytest.raises(Unavailable):
        study.read()
    time.sleep(0.1)
    assert len(study.reader.server.requests) == 1


def test_a_chunk_without_its_dates_is_read_again(study: Study):
    study.reader.fails = "EdgeTimestamps"
    with pytest.raises(Unavailable):
        study.read()
    assert "Mara Quill founded Acme." not in {
        edge.fact for edge in study.everything(EntityEdge).values()
    }
    study.reader.fails = None
    assert study.read().n_done == N_CHUNKS - 1


def test_a_document_deleted_while_it_is_read_is_reported(study: Study):
    def drop(step: Progress) -> None:
        study.delete("models.md")

    with pytest.raises(Conflict, match="was deleted while the model read it"):
        study.read(progress=drop)
    assert not study.documents() and snapshot(study) == {}


def test_a_document_changed_while_it_is_read_is_reported(study: Study):
    def change(step: Progress) -> None:
        study.put("models.md", TEXT.replace("Ada Stern audits", "Ada Stern distrusts"))

    with pytest.raises(Conflict, match="loaded anew while the model read it.*graphs.enrich again"):
        study.read(progress=change)
    study.read()
    held = {fact.fact for fact in study.facts("Acme", ended=True)}
    assert held == {"Mara Quill founded Acme.", "Ada Stern distrusts Acme."}


# progress and interruption


def test_progress_is_reported_chunk_by_chunk_in_the_callers_thread(study: Study):
    steps: list[Progress] = []
    threads = set()

    def progress(step: Progress) -> None:
        threads.add(threading.current_thread())
        steps.append(step)
        assert study.document.state == "processing"
        assert study.document.n_tokens == study.reader.n_tokens

    study.read(progress=progress)
    assert [(step.done, step.total) for step in steps] == [
        (n, N_CHUNKS) for n in range(1, N_CHUNKS + 1)
    ]
    assert steps[-1].note == f"{study.reader.n_tokens:,} tokens"
    assert threads == {threading.main_thread()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, Pause])
def test_a_stopped_run_can_go_on_later(study: Study, error: type[BaseException]):
    with pytest.raises(error):
        study.read(progress=pause_after(2, error))
    document = study.document
    assert document.state == "partial_failure"
    assert document.error == (
        "Enriching was stopped. What was found is kept; graphs.enrich goes on with the rest."
    )
    assert study.read().n_done == N_CHUNKS - 2
    assert study.document.state == "completed"


def test_an_interrupt_stops_the_wait_for_a_slow_model(study: Study):
    study.reader.slow_s = 3.0
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        study.read()
    assert time.monotonic() - began < 2.5
    assert study.document.state == "partial_failure"
    study.reader.slow_s = 0.0
    assert study.read().n_done == N_CHUNKS


# deletion and new versions


def test_deleting_a_document_removes_what_the_model_found(study: Study):
    study.read()
    study.delete("models.md")
    assert snapshot(study) == {}


def test_deleting_leaves_other_documents_as_they_were(ws: Workspace, reader: Reader):
    study = Study(ws)
    study.reader = reader
    study.put("other.md", OTHER)
    before = snapshot(study)
    study.put("models.md", TEXT)
    study.read()
    study.delete("models.md")
    assert snapshot(study) == before


def test_enriching_works_the_same_on_neo4j(ws: Workspace, reader: Reader, neo4j_server: Server):
    study = Study(ws, neo4j_server.address)
    study.reader = reader
    reader.same = {"Red masters Vision": "supports vision"}
    study.put("other.md", OTHER)
    before = snapshot(study)
    study.put("models.md", TEXT)
    study.read()
    assert study.edge("Red supports vision").attributes[metadata.EVIDENCE]
    assert study.search("Who audits Acme?", kinds=("fact",))[0].text == "Ada Stern audits Acme."
    study.delete("models.md")
    assert snapshot(study) == before


def test_a_fact_of_another_document_stays_when_one_is_deleted(study: Study):
    study.put("other.md", OTHER.replace("Otto Brand left", "Ada Stern audits"))
    study.read()
    study.enrich("other.md", study.model, budget_tokens=10**9)
    assert {place.document for place in study.search("audits Acme", kinds=("fact",))[0].places} == {
        "models.md",
        "other.md",
    }
    study.delete("models.md")
    (fact,) = study.facts("Acme")
    assert fact.fact == "Ada Stern audits Acme."
    assert {place.document for place in fact.places} == {"other.md"}


def test_a_model_does_not_end_what_it_found_in_another_document(study: Study):
    study.reader.days = {"left": "2025-01-01T00:00:00Z", "audits": "2025-06-01T00:00:00Z"}
    study.reader.ends = {"audits": "left"}
    study.put("other.md", OTHER)
    study.enrich("other.md", study.model, budget_tokens=10**9)
    study.read()
    assert study.edge("Otto Brand left").invalid_at is None
    study.delete("models.md")
    assert study.edge("Otto Brand left").invalid_at is None


def test_chunks_that_stay_keep_what_was_found_in_a_new_version(study: Study):
    study.read()
    study.put("models.md", LATER)
    ends = {fact.fact: fact.invalid_at for fact in study.facts("Acme", ended=True)}
    assert ends["Ada Stern audits Acme."] is None
    assert ends["Mara Quill founded Acme."] is not None
    assert "Mara Quill founded Acme." not in {fact.fact for fact in study.facts("Acme")}


LATER = TEXT.replace("March", "May").replace("Mara Quill founded", "Mara Quill distrusts")


def test_only_the_new_chunks_of_a_new_version_are_read(study: Study):
    study.read()
    study.put("models.md", LATER)
    study.read()
    held = {fact.fact for fact in study.facts("Acme")}
    assert held == {"Mara Quill distrusts Acme.", "Ada Stern audits Acme."}


def test_chunks_that_stay_are_not_paid_again(study: Study):
    study.read()
    study.put("models.md", LATER)
    assert study.read().n_chunks == 2
    assert study.document.n_tokens == study.reader.n_tokens


def test_deleting_a_document_of_two_versions_leaves_nothing(study: Study):
    study.read()
    study.put("models.md", LATER)
    study.read()
    study.delete("models.md")
    assert snapshot(study) == {}


def test_loading_the_same_again_keeps_what_was_found(study: Study):
    study.read()
    before = snapshot(study)
    study.put("models.md", TEXT)
    assert snapshot(study) == before
    assert study.read().n_chunks == 0


# an endpoint's vectors


class Vectors(BaseHTTPRequestHandler):
    """An endpoint of embeddings: counts of letters, in vectors of a given length."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: dict[str, Any]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state["requests"].append((self.path, request))
        size, status = self.state["size"], self.state["status"]
        texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
        data = [
            {"object": "embedding", "index": at, "embedding": self.vector(text.casefold(), size)}
            for at, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        response = {"object": "list", "model": request["model"], "data": data[::-1], "usage": usage}
        body = json.dumps(response if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body)

    def vector(self, text: str, size: int) -> list[float]:
        return [1e-3 + sum(ord(letter) % size == at for letter in text) for at in range(size)]

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def embedding(size: int = 24) -> Iterator[dict[str, Any]]:
    state: dict[str, Any] = {"size": size, "status": 200, "requests": []}
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Endpoint", (Vectors,), {"state": state}))
    state["name"] = f"openai:letters@http://127.0.0.1:{http.server_address[1]}/v1"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture
def endpoint(reader: Reader) -> Iterator[dict[str, Any]]:
    with embedding() as state:
        yield state


def test_an_endpoints_vectors_are_stored_and_searched(ws: Workspace, endpoint: Any):
    lab = Lab(ws)
    graphs.load(ws, lab.write("models.md", TEXT), embedder=endpoint["name"])
    assert lab.graph.embedder.dimension == 24
    rows = [json.loads(row) for row in snapshot(lab).values()]
    assert {len(row["vector"]) for row in rows if row["vector"]} == {24}
    assert all(row["vector"] for row in rows if row["kind"] in ("EntityNode", "EntityEdge"))
    assert lab.search("Red supports vision", kinds=("fact",))[0].text.startswith("Red supports")
    assert {path for path, _ in endpoint["requests"]} == {"/v1/embeddings"}


def test_a_graph_uses_the_endpoint_that_made_it(ws: Workspace, endpoint: Any):
    lab = Lab(ws)
    graphs.load(ws, lab.write("models.md", TEXT), embedder=endpoint["name"])
    endpoint["requests"].clear()
    again = Workspace(ws.root)
    assert graphs.search(again, "vision") and endpoint["requests"]
    assert open_graph.get(again).embedder.name == endpoint["name"]
    again.close()


def test_an_endpoint_whose_vectors_have_changed_is_refused(ws: Workspace, endpoint: Any):
    graphs.load(ws, Lab(ws).write("models.md", TEXT), embedder=endpoint["name"])
    endpoint["size"] = 12
    again = Workspace(ws.root)
    with pytest.raises(
        InputError, match="holds vectors of 24 numbers, and openai:letters@.* returns 12"
    ):
        graphs.search(again, "vision")
    again.close()


def test_vectors_that_change_their_length_midway_are_refused(ws: Workspace, endpoint: Any):
    lab = Lab(ws)
    graphs.load(ws, lab.write("models.md", TEXT), embedder=endpoint["name"])
    before = snapshot(lab)
    endpoint["size"] = 12
    with pytest.raises(InputError, match="returned vectors of 12 numbers.*24"):
        lab.search("Who supports vision?")
    with pytest.raises(InputError, match="returned vectors of 12 numbers.*24"):
        graphs.load(ws, lab.write("other.md", OTHER))
    assert snapshot(lab) == before


@pytest.mark.parametrize("status", [500, 401])
def test_a_failing_endpoint_is_reported(ws: Workspace, endpoint: Any, status: int):
    endpoint["status"] = status
    with pytest.raises(Unavailable, match="embedder openai:letters@.*does not answer"):
        graphs.load(ws, Lab(ws).write("models.md", TEXT), embedder=endpoint["name"])


def test_an_endpoint_that_is_down_is_reported(ws: Workspace):
    with pytest.raises(Unavailable, match="does not answer.*Check its address and key"):
        graphs.load(ws, Lab(ws).write("models.md", TEXT), embedder=f"openai:m@{URL}")


def test_an_endpoint_that_fails_while_a_model_reads_is_reported(
    ws: Workspace, reader: Reader, endpoint: Any
):
    study = Study(ws)
    study.reader = reader
    graphs.load(ws, study.write("models.md", TEXT), embedder=endpoint["name"])
    endpoint["status"] = 500
    with pytest.raises(Unavailable, match="embedder openai:letters@"):
        study.read()
    endpoint["status"] = 200
    assert study.document.state == "partial_failure"
    assert study.read().n_done == N_CHUNKS - 1
    assert study.edge("Ada Stern audits").name == "AUDITS"


# no traffic leaves the machine


def test_nothing_leaves_loopback(study: Study, tmp_path: Path):
    code = """
import os, socket, sys
there = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] != "127.0.0.1":
        print("LEFT", address)
        raise OSError("no way out")
    return there(self, address)
socket.socket.connect = connect
lookup = socket.getaddrinfo
def looked(host, *rest, **more):
    if host not in ("127.0.0.1", b"127.0.0.1"):
        print("LEFT", host)
        raise OSError("no way out")
    return lookup(host, *rest, **more)
socket.getaddrinfo = looked
from ftlab_kit import Workspace, graphs
ws = Workspace(sys.argv[1])
graphs.load(ws, sys.argv[2], embedder="hash")
done = graphs.enrich(ws, "models.md", sys.argv[3], budget_tokens=10**9)
from graphiti_core.telemetry import telemetry
assert "pytest" not in sys.modules and not telemetry.is_telemetry_enabled()
assert os.environ["GRAPHITI_TELEMETRY_ENABLED"] == "false"
print("DONE", done.n_done)
ws.close()
"""
    path = study.folder / "models.md"
    home = {**os.environ, "HOME": str(tmp_path)}
    finished = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lab"), str(path), study.model],
        capture_output=True,
        text=True,
        env=home,
        check=False,
    )
    assert finished.stdout.split("\n")[-2:-1] == [f"DONE {N_CHUNKS}"], finished.stderr
    assert "LEFT" not in finished.stdout
    assert not (tmp_path / ".cache" / "graphiti").exists()

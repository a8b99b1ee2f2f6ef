"""Graphs from outside: documents go in and out, and every answer cites its lines."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from graphiti_core.edges import (
    CommunityEdge,
    EntityEdge,
    EpisodicEdge,
    HasEpisodeEdge,
    NextEpisodeEdge,
)
from graphiti_core.errors import GroupsEdgesNotFoundError
from graphiti_core.nodes import CommunityNode, EntityNode, EpisodicNode, SagaNode
from graphiti_core.search.search_utils import get_embeddings_for_edges, get_embeddings_for_nodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftlab_kit import Workspace, graphs
from ftlab_kit.errors import Conflict, InputError, NotFound, Unavailable
from ftlab_kit.graphs import document_state, event_loop, extraction, loaders, open_graph, updates
from ftlab_kit.records import Entity, Loading, Progress
from tests import graph_servers
from tests.test_extraction import documents

SEED = Path(__file__).parent.parent.parent / "shared" / "knowledge-base.md"
MARCH, APRIL, MAY = (datetime(2025, month, 1, tzinfo=UTC) for month in (3, 4, 5))

MODELS = """# Models

**Last Updated:** March 1, 2025

## All Models

### Red

**Model ID:** red-1
**Provider:** Acme
**Price:** $1.00 per 1M tokens

**Key Strengths:**

- Fast answers

### Blue

**Model ID:** blue-1
**Provider:** Bolt
**Price:** $3.00 per 1M tokens

### Vision Support

**Models with Vision:**

- Red

**Models without Vision:**

- Blue
"""
LATER = MODELS.replace("$1.00", "$2.00").replace("March", "May")
GUIDE = """# Guide

## Which Models

### Red

**Model ID:** red-1
**Price:** $9.00 per 1M tokens
**Batch Size:** 8

### Zebras

A zebra is a striped horse that Red has never seen.
"""


class Lab:
    """A workspace with a graph: files beside it, verbs on it."""

    def __init__(self, ws: Workspace, address: str | None = None) -> None:
        self.ws, self.address = ws, address
        self.folder = ws.root.parent / "documents"
        self.folder.mkdir(exist_ok=True)

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        """Any verb of graphs, on this graph."""

        def call(*values: Any, **options: Any) -> Any:
            return getattr(graphs, verb)(self.ws, *values, graph=self.address, **options)

        return call

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def put(self, name: str, text: str | bytes, **options: Any) -> Loading:
        path = self.write(name, text)
        return graphs.load(self.ws, path, graph=self.address, embedder="hash", **options)

    def entity(self, name: str, type: str = "Model", **options: Any) -> Entity:
        return next(item for item in self.find(type, **options) if item.name == name)

    @property
    def graph(self) -> Any:
        return open_graph.get(self.ws, self.address)


@pytest.fixture
def lab(ws: Workspace) -> Lab:
    """A workspace with its own graph."""
    return Lab(ws)


def of_sqlite(request: pytest.FixtureRequest) -> None:
    return None


def of_neo4j(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("neo4j_server").address)


@pytest.fixture(params=(of_sqlite, of_neo4j), ids=("sqlite", "neo4j"))
def kb(request: pytest.FixtureRequest, ws: Workspace) -> Lab:
    """A workspace with a graph of each kind."""
    return Lab(ws, request.param(request))


# everything that a graph holds


async def everything(driver: Any, group: str) -> list[dict[str, Any]]:
    """Every node and edge of a graph, with its vector."""
    rows = []
    for kind in (EntityNode, EpisodicNode, CommunityNode, SagaNode):
        nodes = await kind.get_by_group_ids(driver, [group])
        vectors = await get_embeddings_for_nodes(driver, nodes) if kind is EntityNode else {}
        rows += [as_row(item, vectors) for item in nodes]
    for kind in (EntityEdge, EpisodicEdge, CommunityEdge, HasEpisodeEdge, NextEpisodeEdge):
        with suppress(GroupsEdgesNotFoundError):
            edges = await kind.get_by_group_ids(driver, [group])
            vectors = await get_embeddings_for_edges(driver, edges) if kind is EntityEdge else {}
            rows += [as_row(item, vectors) for item in edges]
    return rows


def as_row(item: Any, vectors: Mapping[str, list[float]]) -> dict[str, Any]:
    values = item.model_dump(exclude={"name_embedding", "fact_embedding", "labels"})
    own = {"kind": type(item).__name__, "labels": sorted(getattr(item, "labels", []))}
    return values | own | {"vector": vectors.get(item.uuid)}


def as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def snapshot(lab: Lab, times: Mapping[str, str] | None = None) -> dict[str, str]:
    """All that a graph holds, as text by uuid; times of loading by the names given to them."""
    held = {}
    for row in event_loop.run(everything(lab.graph.driver, lab.graph.group)):
        text = json.dumps(row, sort_keys=True, default=as_text, ensure_ascii=False)
        for time, name in (times or {}).items():
            text = text.replace(time, name)
        assert row["uuid"] not in held
        held[row["uuid"]] = text
    assert len(held) == stored(lab)
    return held


def stored(lab: Lab) -> int:
    """The number of stored nodes and edges of all owners; full-text indices match them."""
    driver = lab.graph.driver
    if not hasattr(driver, "db"):
        nodes = "MATCH (n) WHERE NOT n:FtlabGraph RETURN count(n) AS n"
        queries = (nodes, "MATCH ()-[n]->() RETURN count(n) AS n")
        answers = [event_loop.run(driver.execute_query(query)) for query in queries]
        return sum(int(answer.records[0]["n"]) for answer in answers)
    for table, kind, index, body in (
        ("nodes", "Entity", "entity_words", "summary"),
        ("nodes", "Episodic", "passage_words", "content"),
        ("edges", "RELATES_TO", "fact_words", "fact"),
    ):
        rows = driver.db.execute(f"SELECT id, name, {body} FROM {table} WHERE kind = '{kind}'")
        indexed = driver.db.execute(f"SELECT rowid, name, body FROM {index}")
        assert sorted(map(tuple, rows)) == sorted(map(tuple, indexed))
    counts = "SELECT (SELECT count(*) FROM nodes) + (SELECT count(*) FROM edges)"
    return int(driver.db.execute(counts).fetchone()[0])


def raw(lab: Lab) -> str:
    """Every text that the graph's store holds, in whatever table, label or property."""
    driver = lab.graph.driver
    if hasattr(driver, "db"):
        tables = [row[0] for row in driver.db.execute("SELECT name FROM sqlite_master")]
        tables = [name for name in tables if not re.search(r"_words_|^sqlite_|edges_|nodes_", name)]
        rows = [tuple(row) for name in tables for row in driver.db.execute(f"SELECT * FROM {name}")]
        return repr(rows)
    nodes = event_loop.run(driver.execute_query("MATCH (n) RETURN labels(n), properties(n)"))
    edges = event_loop.run(driver.execute_query("MATCH ()-[e]->() RETURN type(e), properties(e)"))
    return repr([record.values() for record in (*nodes.records, *edges.records)])


# loading


def test_a_file_is_loaded(kb: Lab) -> None:
    done = kb.put("models.md", MODELS)
    (document,) = done.documents
    assert (document.name, document.state, document.version) == ("models.md", "completed", 1)
    assert document.dated_at == MARCH
    assert (document.n_chunks, document.n_facts) == (5, done.n_new_facts)
    assert list(kb.documents()) == [document]
    assert kb.entity("Red").attributes == {
        "model_id": "red-1",
        "price": 1.0,
        "provider": "Acme",
        "vision": True,
    }


def test_a_folder_is_loaded_by_its_files_names(lab: Lab) -> None:
    for name in ("a.md", "more/b.md", ".hidden/c.md", "d.zip"):
        lab.write(name, GUIDE)
    done = lab.load(lab.folder, embedder="hash")
    assert [item.name for item in done.documents] == ["a.md", "more/b.md"]
    assert [item.state for item in lab.documents()] == ["completed", "completed"]


def test_loading_reports_its_progress(lab: Lab) -> None:
    for name in ("a.md", "b.md"):
        lab.write(name, GUIDE)
    steps: list[Progress] = []
    lab.load(lab.folder, embedder="hash", progress=steps.append)
    assert [(step.done, step.total, step.note) for step in steps] == [
        (1, 2, "a.md"),
        (2, 2, "b.md"),
    ]


def test_one_bad_file_of_a_folder_does_not_keep_the_others_out(lab: Lab) -> None:
    lab.write("a.md", GUIDE)
    lab.write("b.md", b"\xff\xfe\xfa")
    done = lab.load(lab.folder, embedder="hash")
    assert [item.state for item in done.documents] == ["completed", "failed"]
    assert "UTF-16" in (done.documents[1].error or "")
    assert done.n_new_facts > 0


def test_loading_the_same_again_changes_nothing(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    before, documents = snapshot(kb), kb.documents()
    done = kb.put("models.md", MODELS)
    assert (done.n_new_facts, done.n_ended_facts, done.n_removed_facts) == (0, 0, 0)
    assert snapshot(kb) == before
    assert kb.documents() == documents


def test_a_second_workspace_lists_what_a_graph_already_holds(lab: Lab, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/shared.db"
    with_counts = Lab(lab.ws, address).put("models.md", MODELS).documents[0]
    other = Workspace(tmp_path / "other")
    (again,) = Lab(other, address).put("models.md", MODELS).documents
    other.close()
    for name in ("version", "n_chunks", "n_entities", "n_facts", "content_sha256", "dated_at"):
        assert getattr(again, name) == getattr(with_counts, name), name


def test_a_second_workspace_adopts_the_documents_of_a_graph(lab: Lab, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/shared.db"
    first = Lab(lab.ws, address).put("models.md", MODELS).documents[0]
    other = Workspace(tmp_path / "other")
    (adopted,) = Lab(other, address).documents()
    other.close()
    assert adopted.name == "models.md"
    assert (adopted.path, adopted.n_facts) == (first.path, first.n_facts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.md", "", "contains no text"),
        ("blank.md", " \n\n", "contains no text"),
        ("broken.docx", "no zip", "broken.docx"),
        ("broken.pdf", "%PDF-1.7 and no more", "broken.pdf"),
        ("broken.ipynb", "{", "broken.ipynb"),
        ("bytes.md", b"caf\xe9 au lait", "is not UTF-8: byte 4"),
        ("odd.xyz", "text", "The format of .* is unknown"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_only_its_error(
    name: str, content: str | bytes, message: str, lab: Lab
) -> None:
    with pytest.raises(InputError, match=message):
        lab.put(name, content)
    (document,) = lab.documents()
    assert document.state == "failed" and re.search(message, document.error or "")
    assert snapshot(lab) == {}


def test_a_document_that_became_unreadable_keeps_what_was_loaded(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    before = snapshot(lab)
    with pytest.raises(InputError, match="contains no text"):
        lab.put("models.md", "")
    assert lab.documents()[0].state == "failed"
    assert snapshot(lab) == before
    lab.put("models.md", MODELS)
    assert lab.documents()[0].state == "completed"


def test_a_path_without_a_file_leaves_no_document(lab: Lab) -> None:
    with pytest.raises(NotFound, match=r"nothing\.md does not exist"):
        lab.load(lab.folder / "nothing.md", embedder="hash")
    assert not lab.documents()


def test_two_files_of_one_name_clash_until_a_name_is_given(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    with pytest.raises(Conflict, match=r"models\.md was loaded from .*give name='models\.md'; as"):
        lab.put("other/models.md", GUIDE)
    lab.load(lab.folder / "other" / "models.md", name="other.md")
    assert [item.name for item in lab.documents()] == ["models.md", "other.md"]
    lab.load(lab.folder / "other" / "models.md", name="models.md")
    assert [item.version for item in lab.documents()] == [2, 1]


def test_a_file_that_moved_is_the_same_document(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    (lab.folder / "models.md").unlink()
    lab.put("moved/models.md", LATER)
    assert [item.version for item in lab.documents()] == [2]


def test_an_attribute_named_like_a_field_of_graphiti_is_stored_apart(kb: Lab) -> None:
    labels = ("Name", "Summary", "UUID", "Labels", "Group ID", "Created at", "Ended at", "Unit")
    text = "# All Models\n\n## Red\n\n**Model ID:** red-1\n"
    kb.put("odd.md", text + "".join(f"**{label}:** {label} it is\n" for label in labels))
    red = kb.entity("Red")
    assert red.name == "Red" and red.attributes["unit"] == "Unit it is"
    assert red.attributes["stated_name"] == "Name it is"
    assert red.attributes["stated_uuid"] == "UUID it is"


def test_types_that_graphiti_cannot_take_as_labels_get_one(kb: Lab) -> None:
    text = "# Doc\n\n## {0}\n\n- **Forum:** Where people talk of it.\n- **Chat:** Also talk.\n"
    for number, title in enumerate(("Communities", "Größen", "Sagas", "Entities")):
        kb.put(f"{number}.md", text.format(title) + "\n## X\n\n**模型 ID:** 5\n")
    types = {item.type for item in kb.around(None, limit=100).entities}
    assert not types & {"Community", "Saga", "Entity"}
    assert event_loop.run(CommunityNode.get_by_group_ids(kb.graph.driver, [kb.graph.group])) == []


# changes and times


def test_a_changed_document_is_a_new_version_and_ends_what_it_no_longer_states(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    done = kb.put("models.md", LATER)
    assert (done.n_new_facts, done.n_removed_facts) == (2, 0)  # the price, and the date
    assert done.n_ended_facts == 2
    assert done.documents[0].version == 2
    old = next(item for item in kb.facts("Red", ended=True) if "$1.00" in item.fact)
    assert (old.valid_at, old.invalid_at) == (MARCH, MAY)
    assert old.expired_at == done.documents[0].loaded_at


def test_a_fact_in_both_versions_holds_from_the_first_on(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.put("models.md", LATER)
    same = next(item for item in lab.facts("Red") if "model id" in item.fact)
    assert (same.valid_at, same.invalid_at) == (MARCH, None)


def test_a_fact_that_was_withdrawn_and_stated_again_holds_from_then_on(lab: Lab) -> None:
    for at, text in ((MARCH, MODELS), (APRIL, LATER), (MAY, MODELS)):
        lab.put("models.md", text, at=at)
    prices = {item.value: item for item in lab.facts("Red", ended=True) if item.relation == "PRICE"}
    assert (prices[1.0].valid_at, prices[1.0].invalid_at) == (MAY, None)
    assert (prices[2.0].valid_at, prices[2.0].invalid_at) == (APRIL, MAY)


def test_search_returns_what_holds_now_unless_told_otherwise(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    kb.put("models.md", LATER)
    now = [hit.text for hit in kb.search("What does Red cost?", limit=50)]
    every = [hit.text for hit in kb.search("What does Red cost?", limit=50, ended=True)]
    old = [hit.text for hit in kb.search("What does Red cost?", limit=50, at=APRIL)]
    facts = [text for text in old if text.startswith("Red costs")]
    assert any("$2.00" in text for text in now) and not any("$1.00" in text for text in now)
    assert any("$2.00" in text for text in every) and any("$1.00" in text for text in every)
    assert facts == ["Red costs $1.00 per 1M tokens: its price."]


def test_an_entity_that_no_document_mentions_any_more_is_not_found(lab: Lab) -> None:
    lab.put("guide.md", GUIDE.replace("### Zebras", "### Okapi"), at=MARCH)
    lab.put("guide.md", GUIDE, at=MAY)
    assert not [hit for hit in lab.search("Okapi", kinds=("entity",)) if "Okapi" in hit.text]
    ended = lab.search("Okapi", kinds=("entity",), ended=True)
    assert ended[0].text.startswith("Okapi")


def test_find_returns_the_attributes_as_of_a_time(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.put("models.md", LATER)
    assert lab.entity("Red").attributes["price"] == 2.0
    assert lab.entity("Red", at=APRIL).attributes["price"] == 1.0
    assert lab.entity("Red", at=APRIL).attributes["model_id"] == "red-1"
    assert not lab.find("Model", at=datetime(2024, 1, 1))


def test_contradictions_cite_both_places(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    (clash,) = lab.put("guide.md", GUIDE).contradictions
    assert (clash.entity, clash.attribute) == ("Red", "price")
    assert (clash.first, str(clash.first_place)) == (9.0, "guide.md:8")
    assert (clash.second, str(clash.second_place)) == (1.0, "models.md:11")
    assert list(lab.contradictions()) == [clash]


def test_a_contradiction_ends_with_one_of_its_facts(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.put("guide.md", GUIDE)
    lab.put("guide.md", GUIDE.replace("$9.00", "$1.00"))
    assert not lab.contradictions()


def test_what_was_deleted_while_vectors_were_computed_still_gets_its_vector(
    lab: Lab,
) -> None:
    text = loaders.read(lab.write("models.md", MODELS))
    named = ("models.md", str(lab.folder / "models.md"), "md", "0")
    draft = document_state.Draft(*named, extraction.read(text), MARCH, MAY)
    lab.put("guide.md", GUIDE)
    lab.delete("guide.md")
    event_loop.run(updates.put(lab.graph, draft, {}))  # none was needed while the guide was there
    assert uuids(lab)


# deleting


def test_a_shared_fact_stays_with_the_evidence_of_the_other(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.put("guide.md", GUIDE)
    shared = next(item for item in lab.facts("Red") if "model id" in item.fact)
    assert [str(item) for item in shared.places] == ["guide.md:7", "models.md:9"]
    was = lab.delete("models.md")
    assert was.name == "models.md" and [item.name for item in lab.documents()] == ["guide.md"]
    left = next(item for item in lab.facts("Red") if "model id" in item.fact)
    assert [str(item) for item in left.places] == ["guide.md:7"]


def test_a_deleted_document_leaves_no_trace(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    kb.put("guide.md", GUIDE.replace("zebra", "quagga").replace("Zebras", "Quaggas"))
    kb.put("guide.md", GUIDE)
    assert "zebra" in raw(kb) and "quagga" in raw(kb)
    kb.delete(kb.documents()[1])
    held = re.sub(r"\d\d:\d\d:\d\d[.\d]*", "", raw(kb).lower())  # a time may read 9.0
    for word in ("zebra", "quagga", "striped", "batch", "9.0", "guide"):
        assert word not in held, word


def test_a_graph_without_documents_is_empty(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.put("models.md", LATER)
    lab.put("guide.md", GUIDE)
    lab.delete("models.md")
    lab.delete("guide.md")
    assert snapshot(lab) == {}
    assert not lab.documents()
    assert not lab.search("Red")


def test_a_deleted_document_that_is_loaded_again_is_version_one(lab: Lab) -> None:
    first = lab.put("models.md", MODELS, at=MARCH).documents[0]
    times = {as_text(first.loaded_at): "then"}
    before = snapshot(lab, times)
    lab.put("models.md", LATER)
    lab.delete("models.md")
    again = lab.put("models.md", MODELS, at=MARCH).documents[0]
    assert again.version == 1
    assert snapshot(lab, {as_text(again.loaded_at): "then"}) == before


def test_a_wrong_name_names_the_nearest(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    with pytest.raises(NotFound, match=r"no document 'model\.md'\. Did you mean 'models\.md'"):
        lab.delete("model.md")


# searching


def test_search_returns_as_many_hits_as_the_limit(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    for limit in (1, 3, 7):
        assert len(lab.search("Red Blue vision price", limit=limit)) == limit


def test_every_hit_has_a_score_that_was_computed_and_the_best_comes_first(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    hits = kb.search("Which model supports vision?", limit=20)
    assert "vision" in hits[0].text.lower()
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        assert hit.scores and set(hit.scores) <= {"full_text", "vector", "graph"}
        assert -1 <= hit.scores.get("vector", 0) <= 1.001
        assert hit.scores.get("full_text", 0) >= 0


def test_every_hit_cites_the_lines_that_state_it(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.put("guide.md", GUIDE)
    for hit in lab.search("Red Blue price vision zebra answers", limit=40):
        assert hit.places
        for place in hit.places:
            lines = (lab.folder / place.document).read_text().split("\n")
            cited = "\n".join(lines[place.first_line - 1 : place.last_line]).lower()
            terms = set(re.findall(r"[\w$.-]{4,}", hit.text.lower().rstrip(".")))
            assert any(term in cited for term in terms | {"red", "blue"}), (hit, cited)
            if hit.kind == "passage":
                assert hit.text.lower() in cited


@pytest.mark.parametrize("recipe", ["rrf", "mmr", "episode_mentions", "node_distance"])
def test_every_recipe_scores_each_hit(recipe: str, lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.put("guide.md", GUIDE)
    hits = lab.search("Red vision price", recipe=recipe, near="Red", limit=30)
    facts = [hit for hit in hits if hit.kind == "fact"]
    assert len(facts) >= 5 and any("Red costs" in hit.text for hit in facts)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    if recipe == "episode_mentions":
        assert all(hit.score == len({place.document for place in hit.places}) for hit in facts)


def test_search_filters_by_relation_and_type(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    hits = kb.search("Red", kinds=("fact",), relations=("HAS_CAPABILITY", "LACKS_CAPABILITY"))
    assert {hit.text.split(":")[0] for hit in hits} <= {
        "Red supports vision",
        "Blue does not support vision",
    }
    hits = kb.search("Red vision", kinds=("entity",), types=("Capability",))
    assert [hit.text.split(" ")[0] for hit in hits] == ["Vision"]


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        ("a " * 10_000, {}, "10,000 words; expected from 1 to 512"),
        ("?!", {}, "has 0 words"),
        ("Red", {"limit": 0}, "limit is 0; expected from 1"),
        ("Red", {"kinds": ("facts",)}, "Unknown kind of hit.*Did you mean 'fact'"),
        ("Red", {"kinds": "fact"}, r"expected a tuple, as in \('fact',\)"),
        ("Red", {"recipe": "rff"}, "Unknown recipe.*Did you mean 'rrf'"),
        ("Red", {"recipe": "node_distance"}, "needs an entity to be near to"),
        ("Red", {"recipe": "cross_encoder"}, "give the folder of a sentence-transformers"),
        ("Red", {"recipe": "cross_encoder", "reranker": "/no"}, "no cross-encoder at /no"),
    ],
)
def test_a_search_that_is_not_possible_says_why(
    query: str, options: dict[str, Any], message: str, lab: Lab
) -> None:
    lab.put("models.md", MODELS)
    with pytest.raises(InputError, match=message):
        lab.search(query, **options)


def test_an_unknown_entity_to_be_near_to_names_the_nearest(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    with pytest.raises(NotFound, match="no entity 'Rde'. Did you mean 'Red'"):
        lab.search("price", recipe="node_distance", near="Rde")


@pytest.mark.parametrize(
    ("type", "options", "message"),
    [
        ("Modle", {}, "no entity of type 'Modle'.*Did you mean 'Model'"),
        ("Model", {"where": {"prise": 1}}, "attribute 'prise'.*Did you mean 'price'"),
        ("Model", {"order": "-prise"}, "attribute 'prise'.*Did you mean 'price'"),
        ("Model", {"where": {"price": ("~", 1)}}, "expected a value, or a pair such as"),
    ],
)
def test_find_names_the_nearest_type_or_attribute(
    type: str, options: dict[str, Any], message: str, lab: Lab
) -> None:
    lab.put("models.md", MODELS)
    with pytest.raises(InputError, match=message):
        lab.find(type, **options)


def test_find_answers_exactly(lab: Lab) -> None:
    lab.put("models.md", MODELS)
    cheap = lab.find("Model", where={"price": ("<", 2)})
    assert [item.name for item in cheap] == ["Red"]
    assert [item.name for item in lab.find("Model", order="-price")] == ["Blue", "Red"]
    assert [item.name for item in lab.find("Model", order="price", limit=1)] == ["Red"]
    assert [item.name for item in lab.find("Model", where={"provider": ("in", ["Bolt"])})] == [
        "Blue"
    ]


def test_around_returns_the_linked_entities(kb: Lab) -> None:
    kb.put("models.md", MODELS)
    near = kb.around("Vision")
    assert {item.name for item in near.entities} >= {"Vision", "Red", "Blue"}
    assert {item.relation for item in near.facts} >= {"HAS_CAPABILITY", "LACKS_CAPABILITY"}
    few = kb.around(None, limit=1)
    assert (len(few.entities), few.n_more > 0) == (1, True)


# embedders, addresses, servers


def test_another_embedder_is_refused(lab: Lab, tmp_path: Path) -> None:
    lab.address = f"file://{tmp_path}/g.db"
    lab.put("models.md", MODELS)
    for ws in (lab.ws, other := Workspace(tmp_path / "other")):
        with pytest.raises(Conflict, match="with hash, so searching it with all-minilm"):
            Lab(ws, lab.address).load(lab.folder / "models.md", embedder="all-minilm-l6-v2")
    other.close()


def test_an_empty_graph_that_was_opened_takes_the_embedder_of_the_first_load(kb: Lab) -> None:
    assert not kb.around(None).entities
    kb.put("models.md", MODELS)
    assert kb.search("Red")


def test_vectors_are_not_written_beside_those_of_another_process(lab: Lab, tmp_path: Path) -> None:
    lab.address = f"file://{tmp_path}/g.db"
    assert not lab.around(None).entities  # open, with the default in mind
    other = Workspace(tmp_path / "other")
    Lab(other, lab.address).put("guide.md", GUIDE)
    other.close()
    with pytest.raises(Conflict, match="now embedded with hash, not with all-minilm"):
        event_loop.run(updates.drop(lab.graph, "guide.md"))


def test_an_unknown_embedder_is_refused(lab: Lab) -> None:
    with pytest.raises(InputError, match="Unknown embedder 'hsah'.*Did you mean 'hash'"):
        lab.load(lab.write("models.md", MODELS), embedder="hsah")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://x", "is not the address of a graph"),
        ("neo4j://", "is not the address of a graph"),
        ("bolt://me:secret@x", "holds a password.*NEO4J_PASSWORD"),
    ],
)
def test_an_address_that_is_not_a_graphs_is_refused(
    address: str, message: str, ws: Workspace
) -> None:
    with pytest.raises(InputError, match=message):
        graphs.documents(ws, graph=address)


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_a_server_that_is_down_is_reported_plainly(scheme: str, ws: Workspace) -> None:
    port = graph_servers.free_port()
    with pytest.raises(Unavailable, match="(?s)The Neo4j at .* failed: .*Check that it is running"):
        graphs.search(ws, "Red", graph=f"{scheme}://127.0.0.1:{port}")


def test_vectors_of_another_size_are_refused_by_a_file(lab: Lab, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/g.db"
    Lab(lab.ws, address).put("models.md", MODELS)
    Lab(lab.ws, address).graph.driver.db.execute("UPDATE about SET value = '1' WHERE value = '384'")
    other = Workspace(tmp_path / "other")
    with pytest.raises(InputError, match="holds vectors of 1 numbers, and hash now returns 384"):
        graphs.search(other, "Red", graph=address)
    other.close()


def test_vectors_of_another_size_are_refused_by_a_server(
    lab: Lab, neo4j_server: graph_servers.Server
) -> None:
    options = "{indexConfig: {`vector.dimensions`: 3, `vector.similarity_function`: 'cosine'}}"
    neo4j_server.drop_indices()
    neo4j_server.ask(
        "CREATE VECTOR INDEX ftlab_names FOR (n:Entity) ON (n.name_embedding) OPTIONS " + options
    )
    with pytest.raises(InputError, match="holds vectors of 3 numbers, but the embedder makes 384"):
        Lab(lab.ws, neo4j_server.address).put("models.md", MODELS)
    neo4j_server.drop_indices()


def test_a_wrong_password_is_reported_plainly_and_the_right_one_works(
    lab: Lab, neo4j_server: graph_servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not neo4j_server.password:
        pytest.skip("the server that NEO4J_URI names asks for no password")
    monkeypatch.setenv("NEO4J_PASSWORD", "wrong")
    with pytest.raises(Unavailable, match="refuses user or password.*NEO4J_PASSWORD"):
        graphs.documents(lab.ws, graph=neo4j_server.address)
    monkeypatch.setenv("NEO4J_PASSWORD", neo4j_server.password)
    assert Lab(lab.ws, neo4j_server.address).put("models.md", MODELS).n_new_facts > 0


def python(code: str, *values: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *values],
        capture_output=True,
        text=True,
        timeout=120,
        env={key: value for key, value in os.environ.items() if "GRAPHITI" not in key} | more,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import sys, ftlab_kit.graphs; print([n for n in sys.argv[1:] if n in sys.modules])"
    heavy = ("graphiti_core", "torch", "openai", "neo4j", "numpy", "docx", "pypdf")
    assert python(code, *heavy) == "[]\n"


TELLS = """
import os, sys, warnings
warnings.simplefilter("ignore")
from ftlab_kit import Workspace, graphs
import socket
def no(*_): raise AssertionError("asked the network")
socket.socket.connect = socket.getaddrinfo = no
ws = Workspace(sys.argv[1])
graphs.load(ws, sys.argv[2], embedder="hash")
from graphiti_core.telemetry.telemetry import is_telemetry_enabled
print(os.environ["GRAPHITI_TELEMETRY_ENABLED"], is_telemetry_enabled(), "posthog" in sys.modules)
ws.close()
"""


def test_graphiti_sends_no_telemetry(lab: Lab) -> None:
    path = lab.write("models.md", MODELS)
    out = python(TELLS, str(lab.folder / "lab"), str(path), GRAPHITI_TELEMETRY_ENABLED="true")
    assert out == "false False False\n"
    assert not (Path.home() / ".cache" / "graphiti" / "telemetry_anon_id").exists()


DOTENV = """
import os, sys, warnings
warnings.simplefilter("ignore")
from ftlab_kit import Workspace, graphs
os.chdir(sys.argv[1])
ws = Workspace(sys.argv[2])
"""
ENDING = "\nprint(os.environ.get('FTLAB_FROM_DOTENV'))"


@pytest.mark.parametrize("verb", ["search(ws, 'Red')", "around(ws)", "questions(ws)"])
def test_no_dotenv_file_is_read_whichever_verb_comes_first(verb: str, lab: Lab) -> None:
    lab.put("models.md", MODELS)
    lab.ws.close()
    (lab.folder / ".env").write_text("FTLAB_FROM_DOTENV=1")
    out = python(DOTENV + f"graphs.{verb}" + ENDING, str(lab.folder), str(lab.ws.root))
    assert out == "None\n"


LOADS = """
import sys, warnings
warnings.simplefilter("ignore")
from ftlab_kit import Workspace, graphs
ws = Workspace(sys.argv[1])
sys.stdin.readline()
graphs.load(ws, sys.argv[2], embedder="hash", graph=sys.argv[3] or None)
ws.close()
"""


def test_two_processes_that_load_at_once_load_both_whole(kb: Lab, tmp_path: Path) -> None:
    kb.address = kb.address or f"file://{tmp_path}/both.db"
    texts = {"models.md": MODELS * 3, "guide.md": GUIDE * 3}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", LOADS, str(tmp_path / name), str(path), kb.address],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        for name, path in [(name, kb.write(name, text)) for name, text in texts.items()]
    ]
    for child in children:
        child.communicate(b"go\n", timeout=120)
        assert child.returncode == 0
    at_once = uuids(kb)
    in_turn = Lab(kb.ws, f"file://{tmp_path}/in_turn.db")
    for name, text in texts.items():
        in_turn.put(name, text)
    assert at_once == uuids(in_turn)


def uuids(lab: Lab) -> set[str]:
    rows = event_loop.run(everything(lab.graph.driver, lab.graph.group))
    assert all(row["vector"] for row in rows if row["kind"] in ("EntityNode", "EntityEdge"))
    return {row["uuid"] for row in rows}


# the knowledge base of the Fine-Tune Lab documents


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A graph of the whole knowledge base."""
    if not SEED.exists():
        pytest.skip(f"there is no {SEED}")
    ws = Workspace(tmp_path_factory.mktemp("seed") / "lab")
    lab = Lab(ws)
    lab.load(SEED, embedder="hash")
    yield lab
    ws.close()


def test_the_knowledge_base_holds_its_models_and_providers(seeded: Lab) -> None:
    assert len(seeded.find("Model")) == 10
    providers = [
        item.attributes["provider"]
        for item in seeded.find("Model")
        if item.attributes.get("provider")
    ]
    assert len(seeded.find("Provider")) == 2 or set(providers) == {"OpenAI", "Anthropic"}


def members(seeded: Lab, relation: str, target: str) -> list[str]:
    facts = seeded.facts(target)
    return sorted({item.source for item in facts if item.relation == relation})


def test_the_knowledge_base_holds_its_tiers(seeded: Lab) -> None:
    tiers = sorted(item.name for item in seeded.find("Tier"))
    counts = {name: len(members(seeded, "IN_TIER", name)) for name in tiers}
    assert sorted(counts.values()) == [3, 3, 4], counts


def test_the_knowledge_base_holds_what_models_can(seeded: Lab) -> None:
    assert len(seeded.find("Capability")) == 4
    assert len(members(seeded, "HAS_CAPABILITY", "Vision")) == 8
    assert members(seeded, "LACKS_CAPABILITY", "Vision") == ["Claude 3 Haiku", "GPT-5 Mini"]


def test_the_knowledge_base_holds_its_endpoints_by_method_and_path(seeded: Lab) -> None:
    endpoints = seeded.find("Endpoint")
    assert len(endpoints) == 38
    for item in endpoints:
        assert item.name == f"{item.attributes['method']} {item.attributes['path']}"


def test_the_knowledge_base_has_prices_as_numbers(seeded: Lab) -> None:
    models = seeded.find("Model")
    assert all(type(item.attributes["price_input"]) is float for item in models)
    assert all(type(item.attributes["price_output"]) is float for item in models)
    (cheapest,) = seeded.find("Model", where={"vision": True}, order="price_input", limit=1)
    assert cheapest.name == "GPT-4.1 Mini"


def test_the_knowledge_base_does_not_contradict_itself(seeded: Lab) -> None:
    assert list(seeded.contradictions()) == []


def test_the_knowledge_base_is_the_same_when_loaded_again(seeded: Lab) -> None:
    before = snapshot(seeded)
    done = seeded.load(SEED)
    assert (done.n_new_facts, done.n_ended_facts, done.n_removed_facts) == (0, 0, 0)
    assert snapshot(seeded) == before


def test_the_knowledge_base_is_cited_by_line(seeded: Lab) -> None:
    lines = SEED.read_text().split("\n")
    for item in seeded.find("Model"):
        for fact in seeded.facts(item):
            if fact.relation == "PRICE_INPUT":
                place = fact.places[0]
                text = "\n".join(lines[place.first_line - 1 : place.last_line])
                assert re.search(rf"\${fact.value:.2f}\b", text), (fact, text)


# what a graph holds depends only on its documents

DAYS = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=10 * number) for number in range(3)]
some = st.sampled_from
LABELS = {
    "Model ID": ("red-1", "red-2"),
    "Provider": ("Acme", "Bolt"),
    "Context Window": ("128K tokens", "256K tokens", "256K Tokens"),
    "Vision": ("Yes", "No", "true"),
    "Price": ("$1.00 per 1M tokens", "$2.50 per 1M tokens", "$2.5 per 1M tokens"),
    "Description": ("A model with vision.", "A model of Acme."),
}
records = st.builds(
    lambda name, labels, end: f"### {name}\n\n" + "".join(labels) + end,
    some(["Red", "Blue"]),
    st.tuples(
        *(
            st.one_of(st.just(""), some([f"**{key}:** {value}\n" for value in values]))
            for key, values in LABELS.items()
        )
    ),
    some(["", "\n**Key Strengths:**\n\n- Fast answers\n- Long context\n", "\n- Input: $3.00\n"]),
)
blocks = some(
    [
        "### Tiers\n\n- **Economy Tier:** Red, Blue\n- **Premium Tier:** Red\n",
        "### Tiers\n\n- **Economy Tier:** Blue\n",
        "### Vision Support\n\n**Models with Vision:**\n\n- Red\n- Blue\n",
        "### Vision Support\n\n**Models without Vision:**\n\n- Red\n",
        "### Capabilities\n\n- **Vision:** Most models except Blue\n",
        "### API\n\n- **Create:** `POST /jobs`\n  Requires `name`\n- `GET/POST /runs`\n",
        "### API\n\n- **Create a job:** `POST /jobs`\n",
        "### Speed\n\nRed is faster than Blue in most tests. Blue is cheap.\n",
        "### Table\n\n| Model | Speed | Tier |\n|---|---|---|\n| Red | 5 | Economy Tier |\n",
        "### Speed-Optimized Models\n\n- Red\n- Blue\n",
        "### Problems\n\n- **Job is slow:** Take larger batches.\n- **Job hangs:** Restart Red.\n",
        "Some words that say nothing.\n",
    ]
)
texts = st.builds(
    lambda head, date, parts: head + date + "\n" + "\n".join(parts),
    some(["# Models\n\n## All Models\n\n", "# Guide\n\n## All Models\n\n"]),
    some(["", "**Last Updated:** 2025-03-01\n"]),
    st.lists(st.one_of(records, blocks), min_size=1, max_size=4),
)
# a name with the text that is loaded under it and its date, or with None: it is deleted
Step = tuple[str, int | None, datetime | None]
loads = st.tuples(some("ABC"), st.integers(0, 3), st.one_of(st.none(), some(DAYS)))
steps = st.lists(
    st.one_of(loads, loads, loads, st.tuples(some("ABC"), st.none(), st.none())),
    min_size=2,
    max_size=8,
)
pools = st.lists(texts, min_size=2, max_size=4)


def played(lab: Lab, pool: Sequence[str], plan: Sequence[Step], *, by_name: bool) -> dict[str, str]:
    """What a graph holds after some steps; times of loading as 'document version', or as one."""
    times: dict[str, str] = {}
    for name, which, at in plan:
        file = f"{name}.md"
        if which is not None:
            done = lab.put(file, pool[which % len(pool)], at=at).documents[0]
            times[as_text(done.loaded_at)] = f"{name} {done.version}" if by_name else "loaded"
        elif file in [item.name for item in lab.documents()]:
            lab.delete(file)
    return snapshot(lab, times)


def survivors(plan: Sequence[Step]) -> list[Step]:
    """The loads of the documents that remain."""
    gone = {name: number for number, (name, which, _) in enumerate(plan) if which is None}
    return [step for number, step in enumerate(plan) if number > gone.get(step[0], -1)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Lab]]:
    """A function that returns a new empty graph."""
    root = tmp_path_factory.mktemp("many")
    ws, numbers = Workspace(root / "lab"), itertools.count()
    yield lambda: Lab(ws, f"file://{root}/{next(numbers)}.db")
    ws.close()


OFTEN = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@OFTEN
@given(pools, steps)
def test_after_a_deletion_the_graph_is_as_if_the_document_had_never_been_loaded(
    many: Callable[[], Lab], pool: list[str], plan: list[Step]
) -> None:
    after = played(many(), pool, plan, by_name=True)
    assert after == played(many(), pool, survivors(plan), by_name=True)


@OFTEN
@given(pools, steps)
def test_the_order_of_documents_makes_no_difference(
    many: Callable[[], Lab], pool: list[str], plan: list[Step]
) -> None:
    dated = [(name, which, which is not None and (at or DAYS[0])) for name, which, at in plan]
    after = played(many(), pool, dated, by_name=False)
    in_turn = sorted(survivors(dated), key=lambda step: step[0])
    assert after == played(many(), pool, in_turn, by_name=False)


@OFTEN
@given(documents)
def test_any_text_is_loaded_or_refused_and_can_be_deleted(
    many: Callable[[], Lab], lines: list[str]
) -> None:
    lab = many()
    lab.put("guide.md", GUIDE)
    before = snapshot(lab)
    with suppress(InputError):
        lab.put("any.md", "\n".join(lines).encode(errors="replace"))
    assert lab.documents()[1].state in ("completed", "partial_failure", "failed")
    lab.delete("any.md")
    assert snapshot(lab) == before


PLANS: list[list[Step]] = [
    [("A", 0, MARCH), ("B", 1, MAY), ("B", None, None)],
    [("B", 1, None), ("A", 0, None), ("B", None, None)],
    [("A", 0, MARCH), ("B", 1, APRIL), ("A", 2, MAY), ("B", None, None)],
    [("A", 0, MARCH), ("A", 2, MAY), ("A", 0, MAY), ("B", 1, None), ("B", 2, None)],
    [("A", 1, None), ("B", 2, None), ("A", None, None), ("A", 0, MARCH), ("B", 1, MAY)],
]


@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_after_a_deletion_a_server_is_as_if_the_document_had_never_been_loaded(
    plan: list[Step], lab: Lab, neo4j_server: graph_servers.Server
) -> None:
    on_server = Lab(lab.ws, neo4j_server.address)
    pool = [MODELS, GUIDE, LATER]
    after = played(on_server, pool, plan, by_name=True)
    for document in on_server.documents():
        on_server.delete(document)
    assert after == played(on_server, pool, survivors(plan), by_name=True)


def test_a_damaged_file_is_reported_plainly(tmp_path: Path):
    ws = Workspace(tmp_path / "lab")
    (tmp_path / "models.md").write_text(MODELS)
    graphs.load(ws, tmp_path / "models.md", embedder="hash")
    ws.close()
    whole = ws.graph.read_bytes()
    ws.graph.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    again = Workspace(tmp_path / "lab")
    with pytest.raises(InputError, match="is damaged"):
        graphs.search(again, "which model is fast?")
    again.close()

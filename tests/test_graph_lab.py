"""The graph in the lab: its search measured, its facts as rows, the lab's history, copies."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ftlab_kit import Workspace, analytics, datasets, evaluators, graphs, trainers
from ftlab_kit.cli import app
from ftlab_kit.errors import Conflict, InputError
from ftlab_kit.graphs import copying, event_loop, open_graph
from ftlab_kit.records import DatasetVersion, Job
from tests.graph_servers import Server

MODELS = graphs.SAMPLES / "models.md"
SMOL = "SmolLM2 135M Instruct"


@pytest.fixture
def filled(ws: Workspace) -> Workspace:
    """A workspace whose graph holds the shipped models."""
    graphs.load(ws, MODELS, embedder="hash")
    return ws


def content(ws: Workspace, address: str | None = None) -> dict[str, str]:
    """All that a graph holds, vectors too, by uuid; labels in an order of their own."""
    stored = event_loop.run(copying.read(open_graph.get(ws, address)))
    items: list[Any] = [*stored.nodes, *stored.edges]
    return {item.uuid: json.dumps(plain(item), sort_keys=True, default=str) for item in items}


def plain(item: Any) -> dict[str, Any]:
    values = item.model_dump()
    return {**values, "labels": sorted(values.get("labels", []))}


def test_a_question_is_answered_by_one_fact_with_its_lines(filled: Workspace):
    questions = graphs.questions(filled, limit=30)
    lines = MODELS.read_text().splitlines()
    assert len(questions) == 30 == len({item.question for item in questions})
    for item in questions:
        last_word = item.answer.rstrip(".").split()[-1]
        place = item.places[0]
        assert any(last_word in line for line in lines[place.first_line - 1 : place.last_line])


def test_questions_are_the_same_every_time(filled: Workspace):
    assert graphs.questions(filled, limit=9) == graphs.questions(filled)[:9]


def test_judge_returns_recall_rank_and_interval(filled: Workspace):
    questions = graphs.questions(filled, limit=20)
    best, few = graphs.judge(filled, questions, k=10)[0], graphs.judge(filled, questions, k=1)[0]
    assert (best.recipe, best.n_questions, best.k) == ("rrf", 20, 10)
    assert 0.5 < best.recall <= 1 and best.recall_low < best.recall <= best.recall_high
    assert few.mrr == few.recall and best.mrr <= best.recall


def test_a_fact_that_search_does_not_find_counts_as_missed(filled: Workspace):
    from dataclasses import replace

    questions = [replace(item, fact_id="none") for item in graphs.questions(filled, limit=4)]
    (result,) = graphs.judge(filled, questions, recipes=("rrf",))
    assert (result.recall, result.mrr) == (0, 0)


def test_judging_needs_a_question(ws: Workspace):
    with pytest.raises(InputError, match="no question to judge by. Load a document"):
        graphs.judge(ws, [])


def test_facts_become_rows_to_train_on(filled: Workspace, tmp_path: Path):
    path = graphs.export(filled, tmp_path / "out" / "pairs.jsonl")
    version = datasets.add(filled, path)
    assert version.n_refused == 0 and version.n_rows == len(graphs.questions(filled, limit=10**6))
    row = json.loads(path.read_text().splitlines()[0])
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]


def test_an_empty_graph_has_nothing_to_train_on(ws: Workspace, tmp_path: Path):
    with pytest.raises(InputError, match="answers no question yet"):
        graphs.export(ws, tmp_path / "pairs.jsonl")


def test_a_copy_into_another_file_loses_nothing(filled: Workspace, tmp_path: Path):
    address = f"file://{tmp_path / 'other.db'}"
    (there,) = graphs.copy(filled, address)
    (here,) = graphs.documents(filled)
    assert content(filled, address) == content(filled)
    assert (there.n_chunks, there.content_sha256) == (here.n_chunks, here.content_sha256)


def test_a_copy_to_neo4j_and_back_loses_nothing(
    filled: Workspace, tmp_path: Path, neo4j_server: Server
):
    back = f"file://{tmp_path / 'back.db'}"
    graphs.copy(filled, neo4j_server.address)
    graphs.copy(filled, back, graph=neo4j_server.address)
    assert content(filled, back) == content(filled)
    assert graphs.search(filled, SMOL, limit=1, graph=neo4j_server.address)


def test_a_copy_goes_into_an_empty_graph_only(filled: Workspace, tmp_path: Path):
    address = f"file://{tmp_path / 'other.db'}"
    graphs.copy(filled, address)
    with pytest.raises(Conflict, match="into an empty one only"):
        graphs.copy(filled, address)
    with pytest.raises(Conflict, match="onto itself"):
        graphs.copy(filled, address, graph=address)


@pytest.fixture
def history(lab: Workspace, job: Job) -> Workspace:
    """The shared lab, whose history is written into its graph."""
    version = datasets.get(lab, job.held_out_version_id or 0)
    for target in ("tiny", job):
        evaluators.run(lab, target, version)
    open_graph.get(lab, None, "hash")
    analytics.record_lineage(lab)
    return lab


def test_the_history_says_which_jobs_saw_a_file(history: Workspace, job: Job):
    saw = [fact for fact in graphs.facts(history, f"job {job.id}") if fact.relation == "SAW_FILE"]
    (fact,) = saw
    assert fact.target.endswith("hues.jsonl") and fact.places[0].document == "lab"
    hits = graphs.search(history, "which jobs saw the file hues.jsonl?", kinds=("fact",))
    assert any(hit.text.startswith("Job ") and "saw the file" in hit.text for hit in hits)


def test_the_history_says_what_beat_what(history: Workspace, job: Job):
    version = datasets.get(history, job.held_out_version_id or 0)
    evaluations = {f"job {job.id}": evaluators.run(history, job, version)}
    evaluations["tiny"] = evaluators.run(history, "tiny", version)
    analytics.record_lineage(history)
    best, least = sorted(
        evaluations, key=lambda name: evaluations[name].scores["perplexity"] or 0.0
    )
    ids = f"(evaluations {evaluations[best].id} and {evaluations[least].id})"
    sentences = [fact.fact for fact in graphs.facts(history, least) if fact.relation == "BEAT"]
    assert any(
        text.startswith(f"{best} beat {least} on perplexity: ") and ids in text
        for text in sentences
    )


def test_everything_in_the_history_has_a_type(history: Workspace, changing_job: Job):
    analytics.record_lineage(history)
    (entity,) = graphs.find(history, "Job", {"state": "cancelled", "model": "tiny"}, limit=1)
    assert entity.attributes["step"] >= 1
    for kind in ("DatasetVersion", "Config", "Event", "Checkpoint", "Evaluation"):
        assert graphs.find(history, kind), kind
    scored = graphs.find(history, "Evaluation", order="perplexity")
    assert scored[0].attributes["perplexity"] <= scored[-1].attributes["perplexity"]


def test_writing_the_history_again_changes_nothing(history: Workspace):
    again = analytics.record_lineage(history)
    assert (again.n_new_facts, again.n_ended_facts, again.n_removed_facts) == (0, 0, 0)


def test_a_former_state_of_a_job_has_ended(history: Workspace, changing_job: Job):
    before = analytics.record_lineage(history)
    history.store.update("jobs", {"id": changing_job.id}, note="seen", step=changing_job.step + 1)
    after = analytics.record_lineage(history)
    assert after.n_ended_facts >= 1 and after.documents[0].version > before.documents[0].version


@pytest.fixture
def changing_job(lab: Workspace, job: Job) -> Job:
    """A job that no other test uses, so that a test may change it."""
    from tests.conftest import TINY

    version: DatasetVersion = datasets.get(lab, job.dataset_version_id)
    config = TINY.but(max_steps=50_000, save_every_steps=50_000)
    started = trainers.wait(lab, trainers.start(lab, config, version), until_step=1, timeout_s=120)
    trainers.cancel(lab, started)
    return trainers.wait(lab, started, timeout_s=120)


@pytest.fixture
def judge_folder(tmp_path: Path) -> Path:
    """A cross-encoder of two layers with random weights, and a tokenizer of letters."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in letters]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(vocabulary), intermediate_size=16, num_labels=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_cross_encoder_ranks_the_hits(filled: Workspace, judge_folder: Path):
    options = {"recipe": "cross_encoder", "reranker": str(judge_folder)}
    hits = graphs.search(filled, "context window of SmolLM2", limit=5, **options)
    assert len(hits) == 5 and all(0 <= hit.score <= 1 for hit in hits)
    with pytest.raises(InputError, match="no cross-encoder at /nowhere"):
        graphs.search(filled, "context", recipe="cross_encoder", reranker="/nowhere")
    with pytest.raises(InputError, match="needs a reranker"):
        graphs.search(filled, "context", recipe="cross_encoder")


def ftlab(ws: Workspace, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["-w", str(ws.root), "graph", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_line_has_the_same_verbs(filled: Workspace):
    hits = json.loads(ftlab(filled, "search", "which model is the default?", "--json"))
    assert hits and hits[0]["places"][0]["document"] == "models.md"
    tests = ("-p", "chat=true", "-p", "context_window=>8000", "--order", "parameters")
    models = json.loads(ftlab(filled, "find", "Model", *tests, "--limit", "2", "--json"))
    assert len(models) == 2 and all(item["attributes"]["chat"] for item in models)
    assert "models.md" in ftlab(filled, "documents")
    assert "models.md" in ftlab(filled, "delete", "models.md")
    assert "none" in ftlab(filled, "documents")

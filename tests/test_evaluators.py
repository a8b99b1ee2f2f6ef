import math

import pytest
import torch

from ftlab_kit import Workspace, checkpoints, datasets, evaluators, models
from ftlab_kit.errors import ConfigError, Conflict, InputError, NotFound
from ftlab_kit.evaluators import bleu
from ftlab_kit.models import generation, tokens, weights
from ftlab_kit.records import Evaluation, Job
from ftlab_kit.widgets import comparison


@pytest.fixture(scope="module")
def base(lab: Workspace) -> Evaluation:
    return evaluators.run(lab, "tiny", "hues", max_new_tokens=8)


@pytest.fixture(scope="module")
def tuned(lab: Workspace, job: Job) -> Evaluation:
    return evaluators.run(lab, job, "hues", max_new_tokens=8)


def test_perplexity_is_that_of_transformers_own_loss(lab: Workspace, base: Evaluation):
    path = models.get(lab, "tiny").path
    assert path is not None
    model, tokenizer = weights.load(path), weights.tokenizer(path)
    total = count = 0.0
    for row in datasets.rows(lab, "hues"):
        encoded = tokens.encode(tokenizer, row["messages"])
        ids, labels = torch.tensor([encoded.input_ids]), torch.tensor([encoded.labels])
        with torch.no_grad():
            mean = model(input_ids=ids, labels=labels).loss.item()
        total, count = total + mean * encoded.n_trained, count + encoded.n_trained
    assert base.scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert base.details["perplexity"]["n_tokens"] == count


def test_a_job_is_scored_by_the_same_call(base: Evaluation, tuned: Evaluation, job: Job):
    assert tuned.job_id == job.id
    assert tuned.target == f"job {job.id}, step 4"
    before, after = base.scores["perplexity"], tuned.scores["perplexity"]
    assert before is not None and after is not None
    assert after < before


def test_bleu_is_sacrebleus_with_its_signature():
    rows = [{"messages": [{"role": "assistant", "content": "the cat sat on the mat today"}]}]
    value, details = bleu.score(None, None, rows, ["the cat sat on the mat today"], None)
    assert value == pytest.approx(100)
    assert details["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_every_answer_is_kept(lab: Workspace, base: Evaluation):
    rows = [*datasets.rows(lab, "hues")]
    assert len(base.samples) == len(rows) == base.n_rows
    assert base.samples[0].prompt == rows[0]["messages"][0]["content"]
    assert base.samples[0].reference == rows[0]["messages"][1]["content"]


def test_an_evaluation_says_how_it_was_made(base: Evaluation):
    assert base.details["generation"] == {"max_new_tokens": 8, "do_sample": False}
    assert set(base.details["libraries"]) == {"torch", "transformers", "sacrebleu"}
    assert base.seconds > 0


def test_evaluations_are_kept(lab: Workspace, base: Evaluation, tuned: Evaluation):
    assert base in evaluators.list(lab)
    assert evaluators.get(lab, tuned.id) == tuned
    assert evaluators.scores(lab, tuned.id) == dict(tuned.scores)


def test_progress_is_told(lab: Workspace):
    told: list[tuple[str, int, int]] = []
    evaluators.run(
        lab, "tiny", "hues", metrics=["perplexity"], progress=lambda *news: told.append(news)
    )
    assert told[-1] == ("perplexity", 20, 20)


def test_an_unknown_metric_is_named_with_the_nearest(lab: Workspace):
    with pytest.raises(ConfigError, match="Did you mean 'bleu'"):
        evaluators.run(lab, "tiny", "hues", metrics=["blue"])


def test_an_unknown_target_is_not_found_and_leaves_nothing(lab: Workspace):
    before = len(evaluators.list(lab))
    with pytest.raises(NotFound, match="There is no model 'none'"):
        evaluators.run(lab, "none", "hues")
    with pytest.raises(NotFound, match="There is no job 10000"):
        evaluators.run(lab, 10_000, "hues")
    assert len(evaluators.list(lab)) == before


def test_a_damaged_checkpoint_is_not_scored(lab: Workspace, job: Job):
    path = checkpoints.get(lab, job.id).path / "adapter_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(Conflict, match="can't be trusted: .* has other bytes"):
            evaluators.run(lab, job, "hues")
    finally:
        path.write_bytes(content)


def test_answers_do_not_depend_on_their_batch(lab: Workspace):
    path = models.get(lab, "tiny").path
    assert path is not None
    model, tokenizer = weights.load(path), weights.tokenizer(path)
    prompts = [
        tokens.prompt(tokenizer, [{"role": "user", "content": "word " * n}]) for n in (1, 9, 3)
    ]
    together = generation.answers(model, tokenizer, prompts, max_new_tokens=6)
    alone = [generation.answers(model, tokenizer, [p], max_new_tokens=6)[0] for p in prompts]
    assert together == alone


def test_a_comparison_shows_scores_and_answers(base: Evaluation, tuned: Evaluation):
    shown = comparison(base, tuned, n_samples=2)
    assert shown._repr_html_().count("<tr>") == 2 + 2 + 2
    assert "perplexity (less is better)" in repr(shown)


def test_evaluations_of_other_rows_are_not_compared(lab: Workspace, base: Evaluation):
    train, _ = datasets.split(lab, "hues", held_out=0.3)
    other = evaluators.run(lab, "tiny", train, metrics=["perplexity"])
    with pytest.raises(InputError, match="expected the same rows"):
        comparison(base, other)


def test_a_model_that_a_job_needs_is_not_deleted(lab: Workspace, job: Job):
    lab.store.update("jobs", {"id": job.id}, state="queued")
    try:
        with pytest.raises(Conflict, match=r"in use by job \d+"):
            models.delete(lab, "tiny")
    finally:
        lab.store.update("jobs", {"id": job.id}, state="completed")

import json
import math

import pytest
import torch

from ftlab_kit import Workspace, checkpoints, datasets, evaluators, models
from ftlab_kit.errors import ConfigError, Conflict, InputError, NotFound
from ftlab_kit.lm import generation, loading, tokens
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Evaluation, Job


@pytest.fixture(scope="module")
def base(lab: Workspace) -> Evaluation:
    return evaluators.run(lab, "tiny", "hues", max_new_tokens=8)


@pytest.fixture(scope="module")
def tuned(lab: Workspace, job: Job) -> Evaluation:
    return evaluators.run(lab, job, "hues", max_new_tokens=8)


def test_perplexity_is_that_of_transformers_own_loss(lab: Workspace, base: Evaluation):
    path = models.get(lab, "tiny").path
    assert path is not None
    model, tokenizer = loading.load(path), loading.tokenizer(path)
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


def test_every_answer_is_kept(lab: Workspace, base: Evaluation):
    rows = [*datasets.rows(lab, "hues")]
    assert len(base.samples) == len(rows) == base.n_rows
    assert base.samples[0].prompt == rows[0]["messages"][0]["content"]
    assert base.samples[0].reference == rows[0]["messages"][1]["content"]


def test_an_evaluation_says_how_it_was_made(base: Evaluation):
    assert base.details["config"]["max_new_tokens"] == 8
    assert base.details["config"]["seed"] == 0
    assert {"torch", "transformers", "sacrebleu"} <= set(base.details["libraries"])
    assert base.seconds > 0
    assert (base.n_tokens or 0) > base.details["perplexity"]["n_tokens"]


def test_evaluations_are_kept(lab: Workspace, base: Evaluation, tuned: Evaluation):
    assert base in evaluators.list(lab)
    assert evaluators.get(lab, tuned.id) == tuned
    assert {item.measure: item.value for item in evaluators.scores(lab, tuned.id)} == tuned.scores


def test_progress_is_told(lab: Workspace):
    told: list[tuple[str, int, int]] = []
    evaluators.run(
        lab, "tiny", "hues", metrics=["perplexity"], progress=lambda *news: told.append(news)
    )
    assert told[-1] == ("likelihood", 20, 20)


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
    model, tokenizer = loading.load(path), loading.tokenizer(path)
    prompts = [
        tokens.prompt(tokenizer, [{"role": "user", "content": "word " * n}]) for n in (1, 9, 3)
    ]
    manner = GenerationSettings(max_new_tokens=6)
    together = generation.complete(model, tokenizer, prompts, manner)
    alone = [generation.complete(model, tokenizer, [p], manner)[0] for p in prompts]
    assert together == alone


def test_a_model_that_a_job_needs_is_not_deleted(lab: Workspace, job: Job):
    lab.store.update("jobs", {"id": job.id}, state="queued")
    try:
        with pytest.raises(Conflict, match=r"in use by job \d+"):
            models.delete(lab, "tiny")
    finally:
        lab.store.update("jobs", {"id": job.id}, state="completed")


def test_answers_that_are_drawn_hang_on_the_seed_alone(lab: Workspace):
    def drawn(seed: int) -> list[str | None]:
        settings = {"temperature": 1.0, "seed": seed, "max_new_tokens": 6}
        found = evaluators.run(lab, "tiny", "hues", metrics=["bleu"], **settings)
        return [item.answer for item in found.samples]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_checkpoint_of_a_step_or_the_best_is_scored(lab: Workspace, job: Job):
    best = checkpoints.best(lab, job)
    found = evaluators.run(lab, job, "hues", metrics=["perplexity"], checkpoint="best")
    assert found.step == best.step
    first = checkpoints.list(lab, job)[0].step
    found = evaluators.run(lab, job, "hues", metrics=["perplexity"], checkpoint=first)
    assert (found.step, found.target) == (first, f"job {job.id}, step {first}")


def test_checkpoints_are_listed_with_their_scores(lab: Workspace, job: Job):
    found = evaluators.run(lab, job, "hues", metrics=["perplexity"])
    scored = next(item for item in checkpoints.list(lab, job) if item.step == found.step)
    assert scored.scores["perplexity"] == found.scores["perplexity"]
    assert checkpoints.best(lab, job, by="perplexity").scores
    with pytest.raises(InputError, match="has a measure 'taste'"):
        checkpoints.best(lab, job, by="taste")


def test_only_so_many_rows_are_scored(lab: Workspace):
    found = evaluators.run(lab, "tiny", "hues", max_rows=5, max_new_tokens=4)
    assert (found.n_rows, len(found.samples)) == (5, 5)


def test_what_the_time_did_not_suffice_for_is_not_scored(lab: Workspace):
    settings = {"max_seconds": 1e-9, "max_new_tokens": 2}
    found = evaluators.run(lab, "tiny", "hues", metrics=["bleu"], **settings)
    assert found.scores["bleu"] is None
    assert found.details["bleu"]["reason"] == "the time did not suffice for any answer"


def test_the_price_of_an_hour_makes_a_cost(lab: Workspace):
    found = evaluators.run(lab, "tiny", "hues", metrics=["perplexity"], usd_per_hour=3600)
    assert found.cost_usd == pytest.approx(found.seconds)
    assert evaluators.run(lab, "tiny", "hues", metrics=["perplexity"]).cost_usd is None


def test_a_folder_is_scored_as_the_model_it_holds(lab: Workspace, base: Evaluation):
    path = models.get(lab, "tiny").path
    found = evaluators.run(lab, str(path), "hues", metrics=["perplexity"])
    assert found.scores["perplexity"] == base.scores["perplexity"]


@pytest.mark.parametrize(
    ("metric", "words"), [("regex", "regex wants pattern"), ("judge", "judge wants judge")]
)
def test_a_metric_without_its_setting_is_refused(lab: Workspace, metric: str, words: str):
    with pytest.raises(ConfigError, match=words):
        evaluators.run(lab, "tiny", "hues", metrics=[metric])


def test_an_unknown_setting_names_the_nearest(lab: Workspace):
    with pytest.raises(ConfigError, match="Did you mean 'max_new_tokens'"):
        evaluators.run(lab, "tiny", "hues", max_tokens=3)


def test_one_metric_in_place_of_a_list_is_refused(lab: Workspace):
    with pytest.raises(ConfigError, match="expected names in a list"):
        evaluators.run(lab, "tiny", "hues", metrics="bleu")


def test_a_schema_may_be_a_long_text():
    from ftlab_kit.evaluators import structured

    fields = {f"field_{number}": {"type": "integer"} for number in range(40)}
    judge = structured.validator(json.dumps({"type": "object", "properties": fields}))
    assert judge.is_valid({"field_7": 1}) and not judge.is_valid({"field_7": "one"})

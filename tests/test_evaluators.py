import json
import math

import pytest
import torch

from ftlab_kit import Workspace, checkpoints, datasets, evaluators, models
from ftlab_kit.errors import ConfigError, Conflict, InputError, NotFound
from ftlab_kit.lm import generation, loading, tokens
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Evaluation, Job, Progress


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


def test_evaluations_are_stored(lab: Workspace, base: Evaluation, tuned: Evaluation):
    assert base in evaluators.list(lab)
    assert evaluators.get(lab, tuned.id) == tuned
    assert {item.measure: item.value for item in evaluators.scores(lab, tuned.id)} == tuned.scores


def test_progress_is_reported(lab: Workspace):
    reports: list[Progress] = []
    evaluators.run(lab, "tiny", "hues", metrics=["perplexity"], progress=reports.append)
    assert reports[-1] == Progress("likelihood", 20, 20)


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
        with pytest.raises(Conflict, match="is damaged: .* has other bytes"):
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
    settings = GenerationSettings(max_new_tokens=6)
    together = generation.complete(model, tokenizer, prompts, settings)
    alone = [generation.complete(model, tokenizer, [p], settings)[0] for p in prompts]
    assert together == alone


def test_a_model_that_a_job_needs_is_not_deleted(lab: Workspace, job: Job):
    lab.store.update("jobs", {"id": job.id}, state="queued")
    try:
        with pytest.raises(Conflict, match=r"in use by job \d+"):
            models.delete(lab, "tiny")
    finally:
        lab.store.update("jobs", {"id": job.id}, state="completed")


def test_sampled_answers_depend_only_on_the_seed(lab: Workspace):
    def drawn(seed: int) -> list[str | None]:
        settings = {"temperature": 1.0, "seed": seed, "max_new_tokens": 6}
        evaluation = evaluators.run(lab, "tiny", "hues", metrics=["bleu"], **settings)
        return [sample.answer for sample in evaluation.samples]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_checkpoint_of_a_step_or_the_best_is_scored(lab: Workspace, job: Job):
    best = checkpoints.best(lab, job)
    evaluation = evaluators.run(lab, job, "hues", metrics=["perplexity"], checkpoint="best")
    assert evaluation.step == best.step
    first = checkpoints.list(lab, job)[0].step
    evaluation = evaluators.run(lab, job, "hues", metrics=["perplexity"], checkpoint=first)
    assert (evaluation.step, evaluation.target) == (first, f"job {job.id}, step {first}")


def test_checkpoints_are_listed_with_their_scores(lab: Workspace, job: Job):
    evaluation = evaluators.run(lab, job, "hues", metrics=["perplexity"])
    scored = next(item for item in checkpoints.list(lab, job) if item.step == evaluation.step)
    assert scored.scores["perplexity"] == evaluation.scores["perplexity"]
    assert checkpoints.best(lab, job, by="perplexity").scores
    with pytest.raises(InputError, match="has the measure 'taste'"):
        checkpoints.best(lab, job, by="taste")


def test_max_rows_limits_the_rows(lab: Workspace):
    evaluation = evaluators.run(lab, "tiny", "hues", max_rows=5, max_new_tokens=4)
    assert (evaluation.n_rows, len(evaluation.samples)) == (5, 5)


def test_without_time_for_an_answer_there_is_no_score(lab: Workspace):
    settings = {"max_seconds": 1e-9, "max_new_tokens": 2}
    evaluation = evaluators.run(lab, "tiny", "hues", metrics=["bleu"], **settings)
    assert evaluation.scores["bleu"] is None
    assert evaluation.details["bleu"]["reason"] == "max_seconds passed before the first answer"


def test_the_price_of_an_hour_gives_a_cost(lab: Workspace):
    evaluation = evaluators.run(lab, "tiny", "hues", metrics=["perplexity"], usd_per_hour=3600)
    assert evaluation.cost_usd == pytest.approx(evaluation.seconds)
    assert evaluators.run(lab, "tiny", "hues", metrics=["perplexity"]).cost_usd is None


def test_a_folder_is_scored_as_the_model_it_holds(lab: Workspace, base: Evaluation):
    path = models.get(lab, "tiny").path
    evaluation = evaluators.run(lab, str(path), "hues", metrics=["perplexity"])
    assert evaluation.scores["perplexity"] == base.scores["perplexity"]


@pytest.mark.parametrize(
    ("metric", "message"),
    [("regex", "regex requires pattern"), ("judge", "judge requires judge")],
)
def test_a_metric_without_its_setting_is_refused(lab: Workspace, metric: str, message: str):
    with pytest.raises(ConfigError, match=message):
        evaluators.run(lab, "tiny", "hues", metrics=[metric])


def test_an_unknown_setting_names_the_nearest(lab: Workspace):
    with pytest.raises(ConfigError, match="Did you mean 'max_new_tokens'"):
        evaluators.run(lab, "tiny", "hues", max_tokens=3)


def test_one_metric_in_place_of_a_list_is_refused(lab: Workspace):
    with pytest.raises(ConfigError, match="expected a list of names"):
        evaluators.run(lab, "tiny", "hues", metrics="bleu")


def test_a_schema_may_be_a_long_text():
    from ftlab_kit.evaluators import structured

    fields = {f"field_{number}": {"type": "integer"} for number in range(40)}
    checker = structured.validator(json.dumps({"type": "object", "properties": fields}))
    assert checker.is_valid({"field_7": 1}) and not checker.is_valid({"field_7": "one"})

"""Sample answers and the held-out loss while a job trains: bounded, and never the job's end.

The workers are forked from this process, as in the tests of steering.
"""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from ipywidgets import HTML
from transformers import TrainerCallback

from ftlab_kit import Workspace, datasets, models, trainers, widgets
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import InputError, NotFound
from ftlab_kit.jobs import processes, states
from ftlab_kit.lm import likelihood, loading
from ftlab_kit.records import DatasetVersion, Job, Metric
from ftlab_kit.trainers import generations
from ftlab_kit.trainers.run import evaluation, sample_answers
from ftlab_kit.widgets.live_view import TrainerView
from ftlab_kit.widgets.sample_answers import samples as samples_view
from tests.chaos.killing import Seen, differences, run
from tests.conftest import TINY, add_pairs

STEPS = TINY.but(max_steps=8, adapter_dropout=0.1, save_every_steps=3, micro_batch=2)
SAMPLED = STEPS.but(sample_every_steps=3, sample_rows=2, sample_tokens=6)


def queue(ws: Workspace, config: Config, held_out: bool = True) -> Job:
    train, side = datasets.split(ws, "hues", held_out=0.3)
    return trainers._enqueue(ws, config, train, held_out=side if held_out else None)


@pytest.fixture(scope="module")
def sampled_run(lab: Workspace) -> Seen:
    """A job of eight steps that answered after the first, third, sixth and last."""
    return run(lab, queue(lab, SAMPLED))


def by_step(ws: Workspace, job: Job) -> dict[int, Metric]:
    return {row.step: row for row in trainers.metrics(ws, job)}


def answered(ws: Workspace, job: Job) -> list[int | None]:
    """The steps of the answers, as often as each was written."""
    return [event.step for event in states.events(ws, job.id, command="sample", state="applied")]


# answers


def test_the_first_held_out_rows_are_answered_first_at_intervals_and_at_the_end(
    lab: Workspace, sampled_run: Seen
):
    held_out = [*datasets.rows(lab, sampled_run.job.held_out_version_id or 0)]
    samples = trainers.samples(lab, sampled_run.job)
    assert [(item.step, item.row) for item in samples] == [
        (step, row) for step in (1, 3, 6, 8) for row in (0, 1)
    ]
    for item in samples:
        question, answer = held_out[item.row or 0]["messages"]
        assert (item.prompt, item.reference) == (question["content"], answer["content"])
        assert item.answer


def test_mean_scores_are_metrics_of_their_steps(lab: Workspace, sampled_run: Seen):
    measured = {step: row.more for step, row in by_step(lab, sampled_run.job).items() if row.more}
    assert [*measured] == [1, 3, 6, 8]
    for step, more in measured.items():
        samples = trainers.samples(lab, sampled_run.job, step=step)
        chrf = [
            sacrebleu.sentence_chrf(item.answer or "", [item.reference]).score for item in samples
        ]
        assert [item.scores["chrf"] for item in samples] == chrf
        assert more["sample_chrf"] == pytest.approx(sum(chrf) / 2)
        assert more["sample_ended"] == sum(bool(item.is_complete) for item in samples) / 2
        assert 0 < more["sample_tokens"] <= 6


def test_answers_come_from_the_weights_of_their_step(lab: Workspace):
    # fp32 is what chats answer in on a processor
    job = run(lab, queue(lab, SAMPLED.but(max_steps=2, precision="fp32"))).job
    last = trainers.samples(lab, job, step=2)
    prompts = [item.prompt for item in last]
    again = trainers.sample(lab, job, prompts, max_new_tokens=6)
    assert [item.answer for item in again] == [item.answer for item in last]


def test_no_bit_of_a_run_depends_on_its_answers(lab: Workspace, sampled_run: Seen):
    quiet = run(lab, queue(lab, STEPS))
    assert quiet.hashes == sampled_run.hashes
    silent, sampled = (by_step(lab, seen.job) for seen in (quiet, sampled_run))
    assert [row.loss for row in silent.values()] == [row.loss for row in sampled.values()]
    assert [row.eval_loss for row in silent.values()] == [row.eval_loss for row in sampled.values()]
    assert all(row.more is None for row in silent.values())
    assert trainers.samples(lab, quiet.job) == ()


def test_a_paused_and_a_killed_job_keep_each_answer_once(lab: Workspace, sampled_run: Seen):
    job = queue(lab, SAMPLED)
    states.write(lab, job.id, "pause", state="pending", at_step=6)
    assert run(lab, job).job.step == 6
    processes.requeue(lab, job.id)
    paused = run(lab, job)
    killed = run(lab, queue(lab, SAMPLED), kills=2, after_s=(0.3, 0.8), seed=2)
    for seen in (paused, killed):
        assert differences(sampled_run, seen) == (0, 0)
        assert answered(lab, seen.job) == [1, 3, 6, 8]
        assert trainers.samples(lab, seen.job) == trainers.samples(lab, sampled_run.job)


def undone(ws: Workspace) -> Job:
    """A job of four steps that has lost its last checkpoint and must do the fourth again."""
    job = queue(ws, SAMPLED.but(max_steps=4))
    run(ws, job)
    shutil.rmtree(trainers.checkpoints(ws, job)[-1].path)
    ws.store.update("jobs", {"id": job.id}, state="failed")
    return job


def test_a_step_that_is_done_again_replaces_its_answers(lab: Workspace):
    job = undone(lab)
    before = trainers.samples(lab, job)
    processes.requeue(lab, job.id)
    run(lab, job)
    assert trainers.samples(lab, job) == before
    assert [event.step for event in states.events(lab, job.id, command="sample")] == [1, 3, 4]


def test_answers_after_the_checkpoint_of_a_resume_are_undone(lab: Workspace):
    job = undone(lab)
    trainers.adjust(lab, job, sample_every_steps=None)
    processes.requeue(lab, job.id)
    assert run(lab, job).job.state == "completed"
    assert answered(lab, job) == [1, 3]


def test_a_cadence_can_be_set_while_a_job_runs(lab: Workspace):
    job = queue(lab, STEPS, held_out=False)
    changes = {"sample_every_steps": 2, "sample_rows": 1, "sample_tokens": 3}
    trainers.adjust(lab, job, at_step=4, **changes)
    run(lab, job)
    samples = trainers.samples(lab, job)
    assert [item.step for item in samples] == [4, 6, 8]
    first = next(datasets.rows(lab, job.dataset_version_id))["messages"][0]["content"]
    assert {item.prompt for item in samples} == {first}  # nothing is held out: the first row


def test_answers_come_also_between_logged_steps(lab: Workspace):
    job = queue(lab, SAMPLED.but(log_every_steps=4, eval_every_steps=8))
    rows = by_step(lab, run(lab, job).job)
    assert [step for step, row in rows.items() if row.more] == [1, 3, 6, 8]
    assert [step for step, row in rows.items() if row.loss is not None] == [1, 4, 8]


def test_a_job_that_stops_early_answers_at_its_end(lab: Workspace):
    config = SAMPLED.but(learning_rate=1e-9, eval_every_steps=1, early_stopping=1, max_steps=50)
    job = run(lab, queue(lab, config.but(sample_every_steps=40))).job
    assert job.step < 40
    assert answered(lab, job) == [1, job.step]


def test_a_preference_gives_its_prompt_and_its_chosen_answer(lab: Workspace):
    pairs = add_pairs(lab)
    config = SAMPLED.but(method="dpo", max_steps=2, adapter_dropout=0.0)
    job = run(lab, trainers._enqueue(lab, config, pairs, held_out=pairs)).job
    row = next(datasets.rows(lab, pairs))
    sample = trainers.samples(lab, job, step=2)[0]
    assert sample.prompt == row["prompt"][0]["content"]
    assert sample.reference == row["chosen"][0]["content"]
    assert {"margin", "sample_chrf"} <= {*(by_step(lab, job)[2].more or {})}


def test_grpo_answers_beside_its_reward(lab: Workspace):
    config = SAMPLED.but(method="grpo", max_steps=2, max_new_tokens=6, adapter_dropout=0.0)
    job = run(lab, queue(lab, config, held_out=False)).job
    assert answered(lab, job) == [1, 2]
    assert {"reward", "sample_chrf"} <= {*(by_step(lab, job)[2].more or {})}


def test_of_two_processes_the_first_answers(lab: Workspace):
    seen = run(lab, queue(lab, SAMPLED.but(processes=2, max_steps=3)))
    assert seen.job.state == "completed"
    assert answered(lab, seen.job) == [1, 3]
    assert (by_step(lab, seen.job)[3].eval_loss or 0) > 0


def test_texts_have_no_prompts(ws: Workspace):
    path = ws.root / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"Once, {n} geese flew."}) for n in range(8)))
    texts = datasets.add(ws, path)
    with pytest.raises(
        InputError, match="holds texts without prompts.*leave sample_every_steps empty"
    ):
        trainers.start(ws, SAMPLED, texts)
    job = trainers._enqueue(ws, STEPS.but(max_steps=2), texts)
    trainers.adjust(ws, job, sample_every_steps=1)
    assert run(ws, job).job.state == "completed"
    event = states.events(ws, job.id, command="sample")[-1]
    assert event.state == "refused" and "these rows are texts without prompts" in (event.note or "")


def test_a_step_without_answers_is_not_found(lab: Workspace, sampled_run: Seen, job: Job):
    with pytest.raises(NotFound, match=r"there are answers of steps 1, 3, 6"):
        trainers.samples(lab, sampled_run.job, step=7)
    with pytest.raises(NotFound, match=r"it has none at all.*set sample_every_steps"):
        trainers.samples(lab, job, step=1)


# what fails


@pytest.fixture
def picky(ws: Workspace, lab: Workspace, tmp_path: Path) -> DatasetVersion:
    """A model whose template refuses system turns, and held-out rows, one with a system turn."""
    folder = shutil.copytree(models.get(lab, "tiny").path or Path(), tmp_path / "picky")
    template = folder / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    models.add(ws, "picky", folder)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    rows = [turns, [{"role": "system", "content": "Be kind."}, *turns]]
    path = tmp_path / "held.jsonl"
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    return datasets.add(ws, path)


def test_a_row_that_the_template_refuses_is_noted_and_the_job_goes_on(
    ws: Workspace, lab: Workspace, picky: DatasetVersion
):
    train = datasets.add(ws, lab.root / "hues.jsonl")
    config = SAMPLED.but(model="picky", streaming=True, max_steps=3)
    job = run(ws, trainers._enqueue(ws, config, train, held_out=picky)).job
    assert job.state == "completed"
    assert [item.answer is None for item in trainers.samples(ws, job)] == [False, True] * 2
    note = by_step(ws, job)[3].note or ""
    assert "sample answers: row 1 has no usable prompt (The model's chat template refuses" in note
    assert "the held-out loss could not be measured (The model's chat template refuses" in note
    refused = states.events(ws, job.id, command="evaluate")
    assert {(event.state, event.author) for event in refused} == {("refused", "cadence")}
    assert [event.step for event in refused] == [3]
    assert trainers.checkpoints(ws, job)[-1].eval_loss is None


class Failing(TrainerCallback):
    """Makes the backbone fail outside training on batches of more rows than these."""

    def __init__(self, rows: int, message: str) -> None:
        self.rows, self.message = rows, message

    def on_train_begin(self, args: Any, state: Any, flow: Any, model: Any, **_: Any) -> None:
        def before(module: Any, given: Any, named: Any) -> None:
            if not module.training and len(named["input_ids"]) > self.rows:
                raise torch.OutOfMemoryError(self.message)

        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner.model.register_forward_pre_hook(before, with_kwargs=True)


FULL = "CUDA out of memory. Tried to allocate 2 GiB (injected)"


def test_without_memory_for_answers_a_job_ends_with_the_same_bits(
    lab: Workspace, sampled_run: Seen
):
    job = queue(lab, SAMPLED)
    evaluation_event = states.write(lab, job.id, "evaluate", state="pending", at_step=2)
    seen = run(lab, job, watchers=[Failing(0, FULL)])
    assert (seen.job.state, seen.hashes) == ("completed", sampled_run.hashes)
    assert trainers.samples(lab, job) == ()
    rows = by_step(lab, job)
    assert all(row.eval_loss is None and row.more is None for row in rows.values())
    assert f"rows 0, 1 could not be answered ({FULL})" in (rows[1].note or "")
    assert f"the held-out loss could not be measured ({FULL})" in (rows[3].note or "")
    assert states.event(lab, evaluation_event.id).state == "refused"


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_where_memory_runs_out_smaller_batches_are_measured(lab: Workspace, method: str):
    config = SAMPLED.but(method=method, max_steps=2, adapter_dropout=0.0, micro_batch=4)
    rows = add_pairs(lab) if method == "dpo" else datasets.get(lab, "hues")
    whole, halved = (
        run(lab, trainers._enqueue(lab, config, rows, held_out=rows), watchers=watchers)
        for watchers in ([], [Failing(3, FULL)])
    )
    losses = [by_step(lab, seen.job)[2].eval_loss for seen in (whole, halved)]
    assert losses[0] and losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert whole.hashes == halved.hashes
    assert answered(lab, halved.job) == [1, 2]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_neither_of_two_processes_hangs_when_one_cannot_measure(lab: Workspace, method: str):
    config = SAMPLED.but(method=method, max_steps=2, processes=2, adapter_dropout=0.0)
    rows = add_pairs(lab) if method == "dpo" else datasets.get(lab, "hues")
    job = trainers._enqueue(lab, config, rows, held_out=rows)
    seen = run(lab, job, watchers=[Failing(0, "broken")])  # the first process alone has watchers
    assert seen.job.state == "completed"
    assert "could not be measured (broken)" in (by_step(lab, job)[2].note or "")


def test_random_state_and_training_mode_are_restored_after_an_error():
    model = torch.nn.Dropout(0.5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"), evaluation.preserve_rng(model):
        torch.rand(3)
        raise RuntimeError("broken")
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


# the held-out loss


def test_the_held_out_loss_is_that_of_the_chosen_rows(lab: Workspace):
    config = STEPS.but(
        max_steps=1, eval_rows=2, learning_rate=1e-12, adapter_dropout=0.0, precision="fp32"
    )
    job = run(lab, queue(lab, config)).job
    folder = models.get(lab, "tiny").path or Path()
    side = datasets.get(lab, job.held_out_version_id or 0)
    rows = tokenized.read(lab, side, folder, config.max_length)
    mine = [rows[number] for number in evaluation.choose_rows(len(rows), 2)]
    assert len(mine) == 2 < len(rows)
    model, pad = loading.load(folder), loading.tokenizer(folder).pad_token_id
    sums = likelihood.nll(model, mine, pad_token_id=pad)
    expected = math.fsum(sums) / sum(row.n_trained for row in mine)
    assert by_step(lab, job)[1].eval_loss == pytest.approx(expected, rel=1e-6)


def test_the_measured_rows_are_always_the_same_and_spread_over_all():
    rows = evaluation.choose_rows(10_000, 512)
    assert rows == evaluation.choose_rows(10_000, 512) == sorted(set(rows))
    assert len(rows) == 512 and rows[0] < 200 and rows[-1] > 9_800
    assert evaluation.choose_rows(3, 512) == evaluation.choose_rows(3, None) == [0, 1, 2]


def test_pairs_are_bounded_too(lab: Workspace):
    pairs = add_pairs(lab)
    config = STEPS.but(method="dpo", max_steps=2, adapter_dropout=0.0)
    some, same = (
        run(lab, trainers._enqueue(lab, config.but(eval_rows=rows), pairs, held_out=pairs)).job
        for rows in (3, 3)
    )
    every = run(lab, trainers._enqueue(lab, config, pairs, held_out=pairs)).job
    losses = [by_step(lab, job)[2].eval_loss for job in (some, same, every)]
    assert losses[0] == losses[1] != losses[2]


# the widget


def test_the_widget_shows_scores_and_changed_words(lab: Workspace, sampled_run: Seen):
    view = samples_view(lab, sampled_run.job)
    page = view._repr_html_()
    assert page.count("<img alt=") == 3 and 'alt="likeness to the references: chrF from' in page
    assert page.count("<p><b>") == 2
    assert "<ins>" in page and "<del>" in page
    for item in trainers.samples(lab, sampled_run.job):
        assert item.prompt in page and item.reference in page
    assert "2 prompts, answered after 4 steps, 1 to 8; likeness" in repr(view)
    assert not re.search(r"<script|http(?!://www\.w3\.org)", page)


def test_of_many_steps_the_first_the_last_and_a_few_between_are_shown(lab: Workspace):
    job = run(lab, queue(lab, SAMPLED.but(sample_every_steps=1, sample_rows=1))).job
    steps = re.findall(r'<tr><td style="[^"]*">(\d)</td><td', samples_view(lab, job).markup)
    assert len(answered(lab, job)) == 8
    assert [int(step) for step in steps[-5:]] == [1, 3, 5, 6, 8]


def test_a_job_without_answers_says_how_to_get_some(lab: Workspace, job: Job):
    assert "Set sample_every_steps to get them" in repr(samples_view(lab, job))


def test_the_report_and_the_live_view_have_a_panel_for_answers(
    monkeypatch: pytest.MonkeyPatch, lab: Workspace, sampled_run: Seen, job: Job
):
    assert "sample answers: chrF from" in widgets.report(lab, sampled_run.job)._repr_html_()
    monkeypatch.setenv("FTLAB_INTERACTIVE", "1")
    for shown, is_there in ((sampled_run.job, True), (job, False)):
        view = widgets.trainer(lab, shown)
        assert isinstance(view, TrainerView)
        panel = view._panels["sample answers"]
        assert isinstance(panel, HTML)
        assert ("sample answers: chrF from" in panel.value) is is_there
        assert (panel.layout.display != "none") is is_there
        view.close()


def test_a_missing_answer_has_no_score():
    prompts = generations.prompts(
        [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}]
    )
    sampled = sample_answers._scored(prompts, {}, ["why"])
    assert (sampled.answers, sampled.scores, sampled.means) == ([None], [{}], {})

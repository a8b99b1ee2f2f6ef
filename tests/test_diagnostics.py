"""Each check against a planted problem and a healthy job; fixes and ten rows for real."""

import json
import math
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from ftlab_kit import Workspace, datasets, device, diagnostics, metrics, trainers
from ftlab_kit.configs import Config
from ftlab_kit.diagnostics import curve_findings, machine_findings, overfit, row_findings
from ftlab_kit.errors import Conflict, InputError, NotFound
from ftlab_kit.lm.tokens import Encoded
from ftlab_kit.records import DatasetVersion, Finding, Job, Progress
from ftlab_kit.workspace import now
from tests.conftest import HUES, chats_file

# every weight is trained: an adapter has nothing to build on in random ones
LEARNS = Config(
    model="tiny", adapter="none", max_steps=12, learning_rate=1e-2, effective_batch=4, max_length=64
)
FALLING = [4.0 * 0.97**step for step in range(40)]
SPEED = {"samples_per_s": 40.0}  # a step of four rows takes a tenth of a second


@pytest.fixture(scope="module")
def healthy(lab: Workspace) -> Job:
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    started = trainers.start(lab, LEARNS.but(eval_every_steps=4), train, held_out=held_out)
    return trainers.wait(lab, started, timeout_s=180)


@pytest.fixture(scope="module")
def flat(lab: Workspace) -> Job:
    started = trainers.start(lab, LEARNS.but(learning_rate=1e-7), "hues")
    return trainers.wait(lab, started, timeout_s=180)


def plant(ws: Workspace, losses: Sequence[float] = FALLING, **settings: Any) -> int:
    """Write a job down that never ran, with the losses that it would have had."""
    (ws.root / "rows").mkdir(exist_ok=True)
    version = datasets.add(ws, chats_file(ws.root / "rows" / "planted.jsonl", copies=8))
    config = Config(**{"model": "tiny", "max_steps": len(losses) or None, **settings})
    job_id = insert(ws, version, config, step=len(losses), total_steps=len(losses) or None)
    for step, loss in enumerate(losses, 1):
        metrics.write(ws, job_id, step, loss=loss, grad_norm=1.0)
    return job_id


def insert(ws: Workspace, version: DatasetVersion, config: Config, **values: Any) -> int:
    values = {"state": "completed", "step": 0, "created_at": now(), **values}
    return ws.store.insert(
        "jobs",
        model=config.model,
        config=config.model_dump(),
        dataset_version_id=version.id,
        **values,
    )


def add_rows(ws: Workspace, name: str, chats: Sequence[Sequence[dict[str, Any]]]) -> DatasetVersion:
    path = ws.root / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return datasets.add(ws, path)


def pair(question: str, answer: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, **more},
    ]


def splits(ws: Workspace) -> tuple[DatasetVersion, DatasetVersion]:
    return datasets.split(ws, datasets.add(ws, datasets.PUDDLE_AND_PINE), held_out=0.1)


def names(ws: Workspace, job: Job | int) -> list[str]:
    return [finding.problem for finding in diagnostics.check(ws, job)]


def only(ws: Workspace, job: Job | int) -> Finding:
    (finding,) = diagnostics.check(ws, job)
    return finding


def test_a_healthy_job_has_no_finding(lab: Workspace, healthy: Job):
    assert diagnostics.check(lab, healthy) == ()


def test_a_job_that_has_not_begun_has_no_finding(ws: Workspace):
    assert diagnostics.check(ws, plant(ws, [])) == ()


def test_an_unknown_job_is_not_found(ws: Workspace):
    with pytest.raises(NotFound, match="There is no job 7"):
        diagnostics.check(ws, 7)


@pytest.mark.parametrize("seed", range(20))
def test_noise_on_a_falling_loss_is_no_finding(ws: Workspace, seed: int):
    chance = random.Random(seed)
    noisy = [loss * chance.gauss(1, 0.1) for loss in FALLING]
    assert names(ws, plant(ws, noisy)) == []


@pytest.mark.parametrize("seed", range(20))
def test_noise_on_a_flat_loss_is_a_plateau(ws: Workspace, seed: int):
    chance = random.Random(seed)
    noisy = [4.0 * chance.gauss(1, 0.05) for _ in FALLING]
    assert names(ws, plant(ws, noisy, learning_rate=1e-6)) == ["plateau"]


def test_a_small_but_sure_fall_is_not_a_plateau(ws: Workspace):
    slow = [2.0 - 0.002 * step + 0.002 * (-1) ** step for step in range(40)]
    assert names(ws, plant(ws, slow)) == []


def test_the_loss_of_grpo_says_nothing(ws: Workspace):
    assert names(ws, plant(ws, [0.01] * 40, method="grpo")) == []


@pytest.mark.parametrize(
    ("losses", "rate", "problem", "changes"),
    [
        ([4.0, 4.1, 9.0, *[12.0] * 20], 0.1, "loss rises", {"learning_rate": 5e-4}),
        ([4.0, 4.1, 9.0, *[12.0] * 20], 9e-4, "loss rises", {"learning_rate": 3e-4}),
        ([4.0, 4.1, 6.0, 7.0, *FALLING], 0.1, "loss rises", {"learning_rate": 5e-4}),
        ([4.0, 4.01] * 10, 1e-6, "plateau", {"learning_rate": 5e-4}),
        ([4.0, 4.01] * 10, 4e-4, "plateau", {"learning_rate": 1.2e-3}),
        ([4.0, 4.01] * 10, 0.5, "plateau", {"learning_rate": 5e-4}),
        ([4.0, 4.01] * 10, 1e-3, "plateau", None),
        ([*FALLING[:20], 9.0, *FALLING[20:]], 5e-4, "spike", {"learning_rate": 1.7e-4}),
    ],
)
def test_a_curve_is_found_with_its_fix(
    ws: Workspace, losses: list[float], rate: float, problem: str, changes: dict[str, float] | None
):
    finding = only(ws, plant(ws, losses, learning_rate=rate))
    assert (finding.problem, finding.changes) == (problem, changes)


@pytest.mark.parametrize(
    ("rate", "cause"),
    [(1e-6, "too low"), (0.5, "too high"), (1e-3, "the rows may contradict")],
)
def test_a_plateau_has_a_cause_by_its_rate(ws: Workspace, rate: float, cause: str):
    finding = only(ws, plant(ws, [4.0, 4.01] * 10, learning_rate=rate))
    assert cause in finding.cause
    assert "began at 4 and averages 4.005 over the second half of 20 steps" in finding.evidence


@pytest.mark.parametrize(
    ("step", "settings", "side", "changes"),
    [
        (30, {"learning_rate": 0.1}, "settings", {"learning_rate": 5e-4}),
        (30, {"precision": "fp16"}, "settings", {"precision": "fp32"}),
        (1, {}, "data", None),
    ],
)
def test_a_guards_note_of_a_non_finite_loss_is_found(
    ws: Workspace, step: int, settings: dict, side: str, changes: dict | None
):
    job_id = plant(ws, **settings)
    note = f"the loss became nan at step {step}, lines 3, 4"
    metrics.write(ws, job_id, 40, loss=math.nan, note=note)
    finding = only(ws, job_id)
    assert (finding.problem, finding.side, finding.changes) == ("non-finite loss", side, changes)
    assert f"became nan at step {step}, lines 3, 4" in finding.evidence


def test_an_infinite_gradient_is_a_non_finite_loss(ws: Workspace):
    job_id = plant(ws)
    metrics.write(ws, job_id, 40, grad_norm=math.inf)
    assert "was inf at step 40" in only(ws, job_id).evidence


def test_a_spike_that_the_guard_skipped_is_found(ws: Workspace):
    job_id = plant(ws, learning_rate=1e-3)
    note = "the loss jumped to 9.1, 3.3 times the usual at step 12, lines 8, 9"
    values = {"state": "applied", "step": 11, "note": note, "created_at": now()}
    ws.store.insert("events", job_id=job_id, command="skip", **values)
    assert "jumped to 9.1, 3.3 times the usual at step 12, lines 8, 9" in only(ws, job_id).evidence


def test_a_non_finite_loss_is_not_also_a_plateau(ws: Workspace):
    job_id = plant(ws, [4.0] * 20, learning_rate=0.1)
    metrics.write(ws, job_id, 20, loss=math.nan, note="the loss became nan at step 20, lines 1")
    assert names(ws, job_id) == ["non-finite loss"]


def test_a_burst_of_the_gradient_at_the_peak_is_a_short_warmup(ws: Workspace):
    job_id = plant(ws, warmup_fraction=0.0)
    metrics.write(ws, job_id, 3, grad_norm=6.0)
    finding = only(ws, job_id)
    assert (finding.problem, finding.changes) == ("short warm-up", {"warmup_fraction": 0.2})
    assert "6 at step 3 and 1 later" in finding.evidence


@pytest.mark.parametrize(("step", "warmup"), [(3, 0.2), (30, 0.0)])
def test_a_burst_after_a_long_warmup_or_much_later_is_not(ws: Workspace, step: int, warmup: float):
    job_id = plant(ws, warmup_fraction=warmup)
    metrics.write(ws, job_id, step, grad_norm=6.0)
    assert names(ws, job_id) == []


@pytest.mark.parametrize(
    ("evaluations", "problems"),
    [
        ({10: 3.0, 20: 2.0, 30: 2.2, 40: 2.4}, ["overfitting"]),
        ({10: 3.0, 20: 2.0, 30: 1.9, 40: 1.91}, []),
        ({20: 2.0, 40: 2.4}, []),
    ],
)
def test_a_held_out_loss_that_rises_is_overfitting(
    ws: Workspace, evaluations: dict, problems: list
):
    job_id = plant(ws)
    for step, loss in evaluations.items():
        metrics.write(ws, job_id, step, eval_loss=loss)
    assert names(ws, job_id) == problems


def test_overfitting_names_the_best_step(ws: Workspace):
    job_id = plant(ws)
    for step, loss in {10: 3.0, 20: 2.0, 30: 2.2, 40: 2.4}.items():
        metrics.write(ws, job_id, step, eval_loss=loss)
    finding = only(ws, job_id)
    assert finding.changes == {"max_steps": 20}
    assert "from 2 at step 20 to 2.4 at step 40" in finding.evidence


def test_a_loss_that_rises_on_both_sides_is_not_overfitting(ws: Workspace):
    job_id = plant(ws, [*FALLING[:20], *reversed(FALLING[:20])])
    for step, loss in {10: 3.0, 20: 2.0, 30: 2.2, 40: 2.4}.items():
        metrics.write(ws, job_id, step, eval_loss=loss)
    assert "overfitting" not in names(ws, job_id)


def test_truncated_answers_are_found_with_the_length_they_need(lab: Workspace):
    chats = [pair("Hi", "Good day. " * 20), *[pair(f"Hi {n}", "Hello.") for n in range(9)]]
    version = add_rows(lab, "cut", chats)
    finding = only(lab, insert(lab, version, Config(model="tiny", max_length=60)))
    assert (finding.problem, finding.side) == ("truncated answers", "settings")
    assert finding.evidence.startswith("1 of 10 rows are cut at 60 tokens (10%): row 0;")
    longer = Config(model="tiny").but(**finding.changes)
    assert names(lab, insert(lab, version, longer)) == []


def test_rows_longer_than_the_model_reads_must_be_split(lab: Workspace):
    version = add_rows(lab, "endless", [pair("Hi", "Good day. " * 3000)])
    finding = only(lab, insert(lab, version, Config(model="tiny", max_length=60)))
    assert (finding.changes, finding.side) == (None, "data")
    assert finding.fix.startswith("Split these rows: the model reads at most ")


def test_a_question_longer_than_the_model_reads_masks_its_row_for_good(lab: Workspace):
    version = add_rows(lab, "masked", [pair("Hi", "Hello."), pair("Why? " * 9000, "So.")])
    masked, _ = diagnostics.check(lab, insert(lab, version, Config(model="tiny")))
    assert (masked.problem, masked.changes) == ("all-masked rows", None)
    assert masked.fix == f"Remove them: datasets.filter(ws, {version.id}, without=[1])."


def test_a_question_that_fills_the_length_masks_its_row(lab: Workspace):
    version = add_rows(lab, "long", [pair("Why? " * 80, "So."), pair("Hi", "Hello.")])
    job_id = insert(lab, version, Config(model="tiny", max_length=60))
    masked, cut = diagnostics.check(lab, job_id)
    assert (masked.problem, cut.problem) == ("all-masked rows", "truncated answers")
    assert masked.changes == cut.changes
    assert "1 of 2 rows have no trained token: row 0" in masked.evidence


@pytest.mark.parametrize(
    ("answer", "is_complete", "problems"),
    [
        ("and so on " * 20, False, ["never-ending answers"]),
        ("and so on " * 20, True, []),
        ("and", False, []),  # max_new_tokens cut it there
        ("and so on " * 20, None, []),
    ],
)
def test_answers_that_never_end_are_found(
    ws: Workspace, answer: str, is_complete: bool | None, problems: list[str]
):
    job_id = plant(ws)
    sample = {
        "prompt": "Why?",
        "reference": "Because.",
        "answer": answer,
        "is_complete": is_complete,
    }
    ws.store.insert(
        "evaluations", target="job", job_id=job_id, n_rows=5, scores={}, details={}, counts={},
        samples=[sample] * 5, seconds=1.0, created_at=now(),
    )  # fmt: skip
    assert names(ws, job_id) == problems
    if problems:
        assert only(ws, job_id).changes == {"max_steps": 80}


def test_the_minimum_loss_is_the_entropy_of_the_answers():
    same = Encoded([1, 2, 3, 4], [-100, -100, 3, 4], 0, True)
    other = Encoded([1, 2, 5, 4], [-100, -100, 5, 4], 0, True)
    assert row_findings.min_loss([same, same]) == 0
    # of two tokens the first is a coin toss, the second certain
    assert row_findings.min_loss([same, other]) == pytest.approx(math.log(2) / 2)


def test_rows_that_contradict_an_earlier_one_are_found(lab: Workspace):
    chats = [pair("Hi", "Yes."), pair("Ho", "No."), pair("Hi", "No."), pair("Ho", "No.")]
    assert row_findings.contradicting(lab, add_rows(lab, "against", chats)) == (2,)


def paced(ws: Workspace, seconds: float, *, every: int = 100, **settings: Any) -> int:
    """Write a job down whose steps follow each other after so many seconds."""
    job_id = plant(ws, effective_batch=4, save_every_steps=every, **settings)
    for step in range(1, 41):
        at = now() + timedelta(seconds=seconds * step)
        ws.store.update("metrics", {"job_id": job_id, "step": step}, at=at, **SPEED)
    return job_id


def test_steps_that_wait_for_rows_are_slow_input(ws: Workspace):
    finding = only(ws, paced(ws, 0.5, streaming=True))
    assert (finding.problem, finding.changes) == ("slow input", {"streaming": False})
    assert "80% is waiting" in finding.evidence


@pytest.mark.parametrize("seconds", [0.1, 0.12])
def test_steps_that_follow_each_other_are_not(ws: Workspace, seconds: float):
    assert names(ws, paced(ws, seconds)) == []


def test_time_that_checkpoints_take_is_theirs(ws: Workspace):
    assert names(ws, paced(ws, 0.5, every=1)) == []


def test_a_gpu_that_is_idle_is_found(ws: Workspace):
    job_id = plant(ws)
    for step in range(1, 41):
        metrics.write(ws, job_id, step, gpu_utilisation=0.2, gpu_memory_gib=3.0)
    finding = only(ws, job_id)
    assert (finding.problem, finding.changes) == ("low utilisation", {"packing": True})
    assert "busy 20% of the time" in finding.evidence


@pytest.mark.skipif(device.threads() < 2, reason="one core can't be left alone")
def test_cores_that_no_thread_uses_are_found(ws: Workspace):
    finding = only(ws, plant(ws, threads=1))
    assert (finding.problem, finding.changes) == ("low utilisation", {"threads": None})


def test_steps_repeated_in_smaller_batches_are_found_with_the_size_that_fitted(ws: Workspace):
    job_id = plant(ws)
    values = {"state": "applied", "step": 3, "note": "memory ran out: no room"}
    values |= {"arguments": {"rows": 4}, "created_at": now()}
    ws.store.insert("events", job_id=job_id, command="micro_batch", **values)
    finding = only(ws, job_id)
    assert (finding.problem, finding.importance) == ("out of memory", 3)
    assert finding.changes == {"micro_batch": 4}


@pytest.mark.parametrize(
    ("micro_batch", "changes"), [(8, {"micro_batch": 4}), (1, {"gradient_checkpointing": True})]
)
def test_a_job_that_ran_out_of_memory_needs_fewer_rows_at_once(
    ws: Workspace, micro_batch: int, changes: dict
):
    job_id = plant(ws, micro_batch=micro_batch)
    error = "The memory does not hold 8 rows at a time (no room). Lower micro_batch."
    ws.store.update("jobs", {"id": job_id}, state="failed", error=error)
    finding = only(ws, job_id)
    assert (finding.importance, finding.changes) == (1, changes)


def test_a_rate_that_is_too_low_is_fixed_by_a_job_that_learns(lab: Workspace, flat: Job):
    finding = only(lab, flat)
    assert (finding.problem, finding.side) == ("plateau", "settings")
    cured = trainers.wait(lab, diagnostics.cure(lab, flat, finding), timeout_s=180)
    assert cured.id != flat.id
    assert cured.config == {**flat.config, **finding.changes}
    last = [trainers.metrics(lab, item)[-1].loss for item in (flat, cured)]
    assert last[1] < last[0]


def test_overfitting_is_fixed_by_fewer_steps(lab: Workspace):
    few, held_out = (datasets.sample(lab, side, 8) for side in splits(lab))
    config = LEARNS.but(max_steps=40, learning_rate=2e-2, effective_batch=8, schedule="constant")
    config = config.but(max_length=256, eval_every_steps=5)
    job = trainers.wait(lab, trainers.start(lab, config, few, held_out=held_out), timeout_s=180)
    finding = only(lab, job)
    assert finding.problem == "overfitting"
    cured = trainers.wait(lab, diagnostics.cure(lab, job, finding), timeout_s=180)
    assert cured.held_out_version_id == held_out.id
    assert names(lab, cured) == []
    last = [trainers.metrics(lab, item)[-1].eval_loss for item in (job, cured)]
    assert last[1] < last[0]


def test_a_running_job_is_adjusted(lab: Workspace):
    job = trainers.start(lab, LEARNS.but(max_steps=2000, learning_rate=1e-7), "hues")
    job = trainers.wait(lab, job, until_step=20, timeout_s=180)
    finding = only(lab, job)
    assert diagnostics.cure(lab, job, finding).id == job.id
    (event,) = trainers.events(lab, job)
    assert (event.command, event.arguments) == ("adjust", finding.changes)
    with pytest.raises(Conflict, match="has learning_rate=0.0005 already"):
        diagnostics.cure(lab, job, finding)
    trainers.cancel(lab, job)


def test_a_fork_is_fixed_from_where_it_was_forked(lab: Workspace, healthy: Job):
    fork = trainers.fork(lab, healthy, learning_rate=1e-7, max_steps=8)
    fork = trainers.wait(lab, fork, timeout_s=180)
    cured = diagnostics.cure(lab, fork, only(lab, fork))
    assert (cured.parent_id, cured.parent_step) == (healthy.id, fork.parent_step)
    assert cured.config == {**fork.config, "learning_rate": 5e-4}
    trainers.cancel(lab, cured)


def test_a_finding_without_changes_says_what_to_do_by_hand(ws: Workspace):
    job_id = plant(ws, [4.0, 4.01] * 10, learning_rate=1e-3)
    with pytest.raises(InputError, match="No setting fixes 'plateau'.*By hand: Give it more steps"):
        diagnostics.cure(ws, job_id, only(ws, job_id))


def test_a_finding_is_explained_with_its_side(ws: Workspace):
    text = diagnostics.explain(only(ws, plant(ws, [4.0, 4.01] * 10, learning_rate=1e-6)))
    assert text.startswith("Plateau. The loss began at 4 ")
    assert "Does the loss fall? No, it is flat from the start: that is the model's side" in text
    assert text.endswith("Set learning_rate=0.0005.")


def test_ten_rows_that_are_memorised_point_to_the_data(lab: Workspace):
    chats = [pair(f"Is {thing} number {n} a hue?", "No.") for thing in HUES for n in range(2)]
    version = add_rows(lab, "learnable", chats)
    diagnosis = diagnostics.overfit_ten(lab, LEARNS.but(learning_rate=3e-2), version, steps=40)
    assert (diagnosis.is_memorised, diagnosis.side, diagnosis.n_rows) == (True, "data", 10)
    assert diagnosis.last_loss is not None and diagnosis.last_loss < diagnosis.loss_margin
    assert "memorised. Model and settings can learn" in diagnosis.message


def test_ten_rows_that_contradict_each_other_are_found(lab: Workspace):
    chats = [pair(f"Is {thing} blue?", answer) for thing in HUES for answer in ("Yes.", "No.")]
    version = add_rows(lab, "coins", chats)
    diagnosis = diagnostics.overfit_ten(lab, LEARNS.but(learning_rate=3e-2), version, steps=40)
    assert (diagnosis.is_memorised, diagnosis.side) == (False, "data")
    assert [item.problem for item in diagnosis.findings] == ["contradictory answers"]
    assert diagnosis.contradicting == (1, 3, 5, 7, 9)
    assert diagnosis.min_loss == pytest.approx(math.log(2) / 3, rel=0.01)  # Yes or No, ., end
    assert "the data's side" in diagnostics.explain(diagnosis)


def test_ten_rows_at_a_rate_too_low_point_to_the_settings(lab: Workspace):
    diagnosis = diagnostics.overfit_ten(lab, LEARNS.but(learning_rate=1e-7), "hues", steps=8)
    assert (diagnosis.is_memorised, diagnosis.side) == (False, "settings")
    assert [item.problem for item in diagnosis.findings] == ["plateau"]
    assert "too low" in diagnosis.findings[0].cause


def test_ten_rows_that_teach_nothing_are_not_trained_on(lab: Workspace):
    version = add_rows(lab, "mute", [pair("Why? " * 80, f"So {n}.") for n in range(10)])
    diagnosis = diagnostics.overfit_ten(lab, LEARNS, version)
    assert (diagnosis.is_memorised, diagnosis.job_id, diagnosis.side) == (None, None, "data")
    assert "10 of 10 rows have no trained token" in diagnosis.message


@pytest.mark.parametrize(
    ("config", "sizes", "message"),
    [
        (LEARNS.but(method="dpo"), {}, "Method 'dpo' does not train on answers"),
        (LEARNS, {"steps": 2}, "2 steps on 10 rows; expected at least 8 steps"),
        (LEARNS, {"n_rows": 0}, "60 steps on 0 rows"),
    ],
)
def test_settings_that_ten_rows_can_not_test_are_refused(
    lab: Workspace, config: Config, sizes: dict[str, int], message: str
):
    with pytest.raises(InputError, match=message):
        diagnostics.overfit_ten(lab, config, "hues", **sizes)


def test_progress_counts_the_steps_of_the_job(lab: Workspace):
    reports: list[Progress] = []
    diagnostics.overfit_ten(lab, LEARNS, "hues", steps=8, progress=reports.append)
    assert (reports[-1].done, reports[-1].total) == (8, 8)
    assert "completed" in reports[-1].what


def test_a_record_shows_itself(lab: Workspace):
    version = add_rows(lab, "silent", [pair("Why? " * 80, f"So {n}.") for n in range(3)])
    page = diagnostics.overfit_ten(lab, LEARNS, version)._repr_html_()
    assert "preflight refused them" in page and "<h3>findings</h3>" in page


def test_the_thresholds_are_these():
    curves = curve_findings
    assert (curves.FIRST, curves.MIN_LOSSES, curves.MIN_EVALUATIONS, curves.WINDOW) == (3, 8, 3, 20)
    assert (curves.FALL, curves.SURE_FALL, curves.CHANCE) == (0.10, 0.005, 0.01)
    assert (curves.ROSE, curves.ROSE_FAR, curves.RISE, curves.HELD_OUT_FALL) == (
        1.15, 1.25, 1.02, 0.01,
    )  # fmt: skip
    assert (curves.NOISE, curves.JUMP_NATS, curves.BURST, curves.SOON, curves.WARM) == (
        4, 1.0, 3, 10, 0.10,
    )  # fmt: skip
    machine = machine_findings
    assert (machine.WAITING, machine.WAITING_S, machine.MIN_INTERVALS) == (0.3, 0.05, 5)
    assert machine.BUSY == 0.5
    assert (row_findings.MOST, row_findings.MIN_ANSWERS, row_findings.LONGER) == (0.5, 4, 1.5)
    assert (overfit.MARGIN, overfit.LAST, overfit.FALLING, diagnostics.STEPS) == (0.2, 3, 0.9, 60)


def test_every_problem_of_model_or_data_has_its_question():
    machine = {*machine_findings.MACHINE_CHECKS}
    named = {*curve_findings.CURVE_CHECKS, *row_findings.ROW_CHECKS, overfit.CONTRADICTORY}
    assert {*diagnostics.FLOWCHART} == named | {"overfitting", "never-ending answers"}
    assert not machine & {*diagnostics.FLOWCHART}


def test_the_checks_of_rows_are_preflights(lab: Workspace):
    preflight = {check.name for check in trainers.preflight(lab, LEARNS, "hues")}
    assert preflight >= overfit.CHECKS_OF_ROWS

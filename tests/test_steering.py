"""Steering: commands between two steps, and that none is lost.

The worker runs here as in its own process, forked from this one; commands wait for it in the
mailbox, so that no test depends on how fast a step is.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from ftlab_kit import Workspace, datasets, device, trainers
from ftlab_kit.checkpoints import integrity
from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError, Conflict, InputError, NotFound
from ftlab_kit.jobs import processes, states
from ftlab_kit.records import Event, Job
from tests.chaos.killing import Seen, differences, run
from tests.conftest import TINY, add_pairs

STEPS = TINY.but(max_steps=12, adapter_dropout=0.1, save_every_steps=3, micro_batch=2)


class At(TrainerCallback):
    """Does something before one step, with the trainer's model at hand."""

    def __init__(self, step: int, do: Callable[..., Any]) -> None:
        self.step, self.do = step, do

    def on_step_begin(self, args: Any, state: Any, flow: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            self.do(**kwargs)


def queue(ws: Workspace, config: Config = STEPS, held_out: bool = False) -> Job:
    train, side = datasets.split(ws, "hues", held_out=0.3)
    return trainers._enqueue(ws, config, train, held_out=side if held_out else None)


def rates(ws: Workspace, job: Job) -> list[float]:
    return [row.learning_rate or 0.0 for row in trainers.metrics(ws, job)]


def send(ws: Workspace, job: Job, command: str, **arguments: Any) -> Event:
    """Put a command into the mailbox of a job that does not run yet."""
    return states.write(ws, job.id, command, state="pending", arguments=arguments or None)


# adjust


def test_a_lower_rate_stays_and_the_schedule_follows(lab: Workspace):
    job = queue(lab)
    plain = rates(lab, run(lab, queue(lab)).job)
    trainers.adjust(lab, job, at_step=4, learning_rate=1e-3)
    steered = rates(lab, run(lab, job).job)
    assert steered[:4] == plain[:4]
    assert steered[4:] == pytest.approx([rate / 10 for rate in plain[4:]])


def test_an_adjustment_is_an_event_with_step_author_and_both_values(lab: Workspace):
    job = queue(lab)
    trainers.adjust(lab, job, at_step=4, learning_rate="1e-3", weight_decay=0.1)
    run(lab, job)
    (event,) = trainers.events(lab, job)
    assert (event.state, event.step, event.author) == ("applied", 4, lab.owner)
    assert event.result == {"learning_rate": [0.01, 0.001], "weight_decay": [0.0, 0.1]}


def test_another_schedule_takes_over_at_its_step(lab: Workspace):
    job = queue(lab)
    trainers.adjust(lab, job, at_step=6, schedule="constant")
    curve = rates(lab, run(lab, job).job)
    assert curve[6:] == [0.01] * 6
    assert curve[5] < 0.01


@pytest.mark.parametrize(("steps", "last"), [(20, 20), (8, 8), (3, 5)])
def test_more_or_fewer_steps_move_the_end_of_the_schedule(lab: Workspace, steps: int, last: int):
    job = queue(lab)
    trainers.adjust(lab, job, at_step=5, max_steps=steps)
    done = run(lab, job).job
    assert (done.state, done.step, done.total_steps) == ("completed", last, steps)
    if steps > 5:  # the cosine ends where the job does
        curve = rates(lab, done)
        last_rate = 0.005 * (1 + math.cos(math.pi * (steps - 1 - 1) / (steps - 1)))
        assert curve[-1] == pytest.approx(last_rate)
        assert len(curve) == steps


def test_epochs_can_be_adjusted_too(lab: Workspace):
    job = queue(lab, STEPS.but(max_steps=None, epochs=2.0))
    trainers.adjust(lab, job, at_step=2, epochs=4.0)
    done = run(lab, job).job
    n_rows = datasets.get(lab, done.dataset_version_id).n_rows
    assert done.step == done.total_steps == math.ceil(4 * n_rows / 4)


def test_decay_and_clipping_reach_the_optimizer(lab: Workspace):
    class Look(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, flow: Any, optimizer: Any, **_: Any) -> None:
            with (lab.root / "decay.txt").open("a") as file:
                decay = optimizer.param_groups[0]["weight_decay"]
                file.write(f"{decay} {args.max_grad_norm}\n")

    job = queue(lab, STEPS.but(max_steps=4))
    trainers.adjust(lab, job, at_step=2, weight_decay=0.25, max_grad_norm=0.125)
    run(lab, job, watchers=[Look()])
    lines = (lab.root / "decay.txt").read_text().splitlines()
    seen = [tuple(map(float, line.split())) for line in lines]
    assert seen == [(0.0, 1.0)] * 2 + [(0.25, 0.125)] * 2


def test_intervals_can_be_adjusted(lab: Workspace):
    job = queue(lab, STEPS.but(keep_checkpoints=20, log_every_steps=1), held_out=True)
    trainers.adjust(lab, job, at_step=6, log_every_steps=3, save_every_steps=2, eval_every_steps=4)
    run(lab, job)
    rows = trainers.metrics(lab, job)
    assert [row.step for row in rows if row.loss is not None] == [1, 2, 3, 4, 5, 6, 9, 12]
    assert [row.step for row in rows if row.eval_loss is not None] == [3, 8, 12]
    assert [item.step for item in trainers.checkpoints(lab, job)] == [3, 6, 8, 10, 12]


def test_a_job_stops_early_when_its_held_out_loss_gets_no_better(lab: Workspace):
    config = STEPS.but(learning_rate=1e-9, eval_every_steps=1, early_stopping=2, max_steps=50)
    seen = run(lab, queue(lab, config, held_out=True))
    (event,) = trainers.events(lab, seen.job)
    assert (seen.job.state, event.command) == ("completed", "stop")
    assert seen.job.step == event.step < 50
    assert "2 held-out losses in a row were no better than" in (event.note or "")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"adapter_rank": 8},
            Conflict,
            r"adapter_rank can't change while a job runs.*trainers\.fork",
        ),
        ({"effective_batch": 8}, Conflict, "learning_rate, schedule, .* can"),
        ({"learning_rat": 1.0}, ConfigError, "Did you mean 'learning_rate'"),
        ({"learning_rate": -1}, ConfigError, "learning_rate is -1; expected"),
        ({}, InputError, "was given nothing to change"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_with_the_way_out(
    lab: Workspace, changes: dict[str, Any], kind: type[Exception], message: str
):
    job = queue(lab)
    with pytest.raises(kind, match=message):
        trainers.adjust(lab, job, **changes)
    assert trainers.events(lab, job) == ()
    trainers.cancel(lab, job)


def test_an_adjustment_at_a_past_step_is_refused(lab: Workspace):
    job = queue(lab)
    send(lab, job, "pause")
    run(lab, job)
    trainers.adjust(lab, job, at_step=0, learning_rate=1e-3)
    processes.requeue(lab, job.id)
    run(lab, job)
    adjust = states.events(lab, job.id, command="adjust")[0]
    assert (adjust.state, adjust.note) == ("refused", "its step is past")


# pause, checkpoint, evaluate, sample


def test_a_paused_job_goes_on_to_the_same_bits(lab: Workspace):
    quiet, job = run(lab, queue(lab)), queue(lab)
    send(lab, job, "pause")
    paused = run(lab, job).job
    assert (paused.state, paused.step) == ("paused", 1)
    processes.requeue(lab, job.id)
    assert differences(quiet, run(lab, job)) == (0, 0)


def test_a_pause_is_settled_with_the_job(lab: Workspace):
    job = queue(lab)
    send(lab, job, "pause")
    run(lab, job)
    (event,) = trainers.events(lab, job)
    assert (event.state, event.step) == ("applied", 1)
    assert trainers.checkpoints(lab, job)[-1].step == 1


def test_a_paused_job_can_be_cancelled_and_that_is_final(lab: Workspace):
    job = queue(lab)
    send(lab, job, "pause")
    run(lab, job)
    assert trainers.cancel(lab, job).state == "cancelled"
    with pytest.raises(Conflict, match=r"is cancelled; only .* trainers\.fork"):
        trainers.resume(lab, job)
    assert trainers.checkpoints(lab, job)[-1].step == 1


def test_a_cancel_wins_over_a_pause(lab: Workspace):
    job = queue(lab)
    for command in ("cancel", "pause"):
        send(lab, job, command)
    assert run(lab, job).job.state == "cancelled"


def test_only_a_running_job_can_be_paused(lab: Workspace):
    job = queue(lab)
    with pytest.raises(Conflict, match=r"is queued; only a running job.*trainers\.cancel"):
        trainers.pause(lab, job)
    done = run(lab, job).job
    with pytest.raises(Conflict, match=r"is completed; .*trainers\.fork"):
        trainers.pause(lab, done)
    with pytest.raises(Conflict, match=r"is completed; only a paused or failed.*trainers\.fork"):
        trainers.resume(lab, done)


def test_a_checkpoint_and_a_held_out_loss_can_be_requested(lab: Workspace):
    job = queue(lab, STEPS.but(keep_checkpoints=20), held_out=True)
    events = [send(lab, job, command) for command in ("checkpoint", "evaluate")]
    run(lab, job)
    saved, measured = (states.event(lab, event.id) for event in events)
    assert (saved.state, saved.result) == ("applied", {"step": 1})
    assert 1 in {item.step for item in trainers.checkpoints(lab, job)}
    loss = {row.step: row.eval_loss for row in trainers.metrics(lab, job)}[1]
    assert (measured.state, measured.result) == ("applied", {"eval_loss": loss})


def test_evaluate_without_held_out_rows_is_refused(lab: Workspace):
    job = queue(lab)
    event = send(lab, job, "evaluate")
    run(lab, job)
    settled = states.event(lab, event.id)
    assert (settled.state, settled.note) == ("refused", "the job has no held-out rows")


def test_sampling_a_running_job_changes_no_bit_of_it(lab: Workspace):
    quiet, job = run(lab, queue(lab)), queue(lab)
    event = send(lab, job, "sample", prompts=["What colour is coal?", "Hm"], max_new_tokens=5)
    assert differences(quiet, run(lab, job)) == (0, 0)
    answers = (states.event(lab, event.id).result or {})["answers"]
    assert len(answers) == 2 and all(answers)


def test_a_paused_job_answers_from_its_checkpoint_as_when_it_ran(lab: Workspace):
    job = queue(lab, STEPS.but(precision="fp32"))  # what chats answer in on a processor
    arguments = {"prompts": ["What colour is coal?"], "max_new_tokens": 5}
    event = send(lab, job, "sample", **arguments)
    send(lab, job, "pause")
    run(lab, job)
    (answer,) = (states.event(lab, event.id).result or {})["answers"]
    (sample,) = trainers.sample(lab, job, **arguments)
    assert (sample.prompt, sample.answer) == ("What colour is coal?", answer)


def test_a_job_without_a_checkpoint_cannot_answer(lab: Workspace):
    job = queue(lab)
    with pytest.raises(NotFound, match="has no checkpoint to answer from"):
        trainers.sample(lab, job, ["Hm"])
    trainers.cancel(lab, job)


# replay, fork, lineage


def test_a_steered_and_killed_job_is_replayed_to_the_same_bits(lab: Workspace):
    job = queue(lab)
    trainers.adjust(lab, job, at_step=2, learning_rate=5e-3, max_grad_norm=0.01)
    trainers.adjust(lab, job, at_step=7, schedule="linear", max_steps=14, weight_decay=0.1)
    steered = run(lab, job, kills=3, after_s=(0.5, 1.2), seed=1)
    again = run(lab, trainers._again(lab, steered.job))
    assert again.job.step == 14
    assert differences(again, steered) == (0, 0)


def test_a_fork_begins_with_its_parents_weights(lab: Workspace):
    parent = run(lab, queue(lab, STEPS.but(max_steps=30), held_out=True)).job
    learnt = trainers.checkpoints(lab, parent)[-1].eval_loss or 0.0
    for changes in ({}, {"adapter_rank": 32}, {"adapter": "none"}, {"adapter_alpha": 64}):
        still = {"learning_rate": 1e-9, "max_steps": 1, "adapter_dropout": 0.0, **changes}
        child = run(lab, fork(lab, parent, **still)).job
        eval_loss = trainers.checkpoints(lab, child)[-1].eval_loss
        assert eval_loss == pytest.approx(learnt, abs=2e-4), changes


def fork(ws: Workspace, parent: Job, **changes: Any) -> Job:
    """What trainers.fork writes down, without its launch."""
    from ftlab_kit.trainers import forks

    config, checkpoint = forks.fork_config(ws, parent, None, changes)
    return trainers._enqueue(
        ws,
        config,
        parent.dataset_version_id,
        held_out=parent.held_out_version_id,
        parent_id=parent.id,
        parent_step=checkpoint.step,
        prepare=lambda job_id: forks.copy_weights(ws, checkpoint.path, job_id),
    )


def test_a_fork_trains_after_its_parents_checkpoint_is_gone(lab: Workspace):
    parent = run(lab, queue(lab)).job
    child = fork(lab, parent, max_steps=2)
    integrity.set_aside(lab, parent.id, after_step=0)
    assert run(lab, child).job.state == "completed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter_rank": 8}, "has rank 16; expected at least that, got 8"),
        ({"adapter_targets": "q_proj"}, None),
        ({"model": "smollm2-135m-instruct"}, "can't use its weights"),
    ],
)
def test_a_fork_that_does_not_fit_the_weights_is_refused(
    lab: Workspace, job: Job, changes: dict[str, Any], message: str | None
):
    if message:
        with pytest.raises(Conflict, match=message):
            fork(lab, job, **changes)
        return
    failed = run(lab, fork(lab, job, **changes)).job
    assert failed.state == "failed"
    assert "the fork's adapter has no room for it" in (failed.error or "")


def test_lineage_has_parents_data_events_and_forks(lab: Workspace):
    parent = run(lab, queue(lab, held_out=True)).job
    child = fork(lab, parent, max_steps=3)
    trainers.adjust(lab, child, at_step=1, learning_rate=1e-3)
    run(lab, child)
    story = trainers.lineage(lab, child)
    assert [item.id for item in story.parents] == [parent.id]
    assert [item.id for item in trainers.lineage(lab, parent).forks] == [child.id]
    assert story.dataset.id == parent.dataset_version_id
    assert story.facts["libraries"]["torch"] == torch.__version__
    assert story.facts["dataset_sha256"] == story.dataset.content_sha256
    assert [event.command for event in story.events] == ["adjust"]
    assert [item.step for item in story.checkpoints][-1] == 3
    assert "adjust" in story._repr_html_()


# drift and damage


def paused(ws: Workspace, config: Config = STEPS) -> Job:
    job = queue(ws, config)
    trainers.adjust(ws, job, at_step=7, learning_rate=0.01)
    send(ws, job, "checkpoint")
    states.write(ws, job.id, "pause", state="pending", at_step=7)
    assert run(ws, job).job.step == 7
    return job


def test_changed_rows_refuse_the_resume(ws: Workspace, lab: Workspace):
    job = paused(lab)
    path = datasets.get(lab, job.dataset_version_id).path
    before = path.read_bytes()
    path.write_bytes(before.replace(b"coal", b"soot", 1))
    try:
        with pytest.raises(Conflict, match=r"dataset_sha256 was \w+…, is .* allow_drift=True"):
            trainers.resume(lab, job)
        processes.requeue(lab, job.id)
        refused = run(lab, job).job  # the worker looks again, whatever the lab side did
        assert "dataset_sha256 was" in (refused.error or "")
        processes.requeue(lab, job.id, arguments={"allow_drift": True})
        assert run(lab, job).job.state == "completed"
    finally:
        path.write_bytes(before)
    event = trainers.events(lab, job)[-1]
    assert event.command == "resume" and "dataset_sha256" in (event.result or {})["drift"][0]


def test_changed_settings_threads_and_versions_are_named(lab: Workspace):
    job = paused(lab)
    manifest = trainers.checkpoints(lab, job)[-1].path / integrity.MANIFEST
    text, digest = manifest.read_text(), manifest.with_name(integrity.DIGEST)
    before = digest.read_text()
    torch_now = torch.__version__
    changed = text.replace('"threads": 1', '"threads": 7').replace(torch_now, "1.0")
    changed = changed.replace(device.processor(), "x86_64 sse2")
    manifest.write_text(changed.replace('"adapter_rank": 16', '"adapter_rank": 8'))
    digest.write_text(hashlib.sha256(manifest.read_bytes()).hexdigest())
    with pytest.raises(Conflict) as refused:
        trainers.resume(lab, job)
    expected = ("libraries torch was 1.0, is 2", "threads was 7, is 1", "adapter_rank was 8")
    for change in (*expected, "processor was x86_64 sse2, is "):
        assert change in str(refused.value)
    manifest.write_text(text)
    digest.write_text(before)
    processes.requeue(lab, job.id)
    assert run(lab, job).job.state == "completed"


def test_one_flipped_bit_in_any_file_is_noticed_and_the_older_checkpoint_used(lab: Workspace):
    quiet = run(lab, queue(lab))
    job = queue(lab, STEPS.but(keep_checkpoints=9))
    states.write(lab, job.id, "pause", state="pending", at_step=7)
    run(lab, job)
    newest, older = trainers.checkpoints(lab, job)[-1], trainers.checkpoints(lab, job)[-2]
    files = [*newest.path.iterdir()]
    assert len(files) >= 9
    for path in files:
        flip(path)
        valid, skipped = integrity.newest_valid(lab, job.id)
        assert valid == older
        assert "has other bytes than were written" in skipped[7]
        flip(path)
    assert integrity.newest_valid(lab, job.id) == (newest, {})
    flip(files[0])
    processes.requeue(lab, job.id)
    assert differences(quiet, run(lab, job)) == (0, 0)
    result = trainers.events(lab, job)[-1].result or {}
    assert result["from_step"] == older.step == 6
    assert str(files[0]) in result["skipped"]["7"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_damaged_manifest_is_noticed(lab: Workspace):
    job = paused(lab)
    path = trainers.checkpoints(lab, job)[-1].path / integrity.MANIFEST
    for at in range(0, path.stat().st_size, 97):
        before = path.read_bytes()
        path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        valid, _ = integrity.newest_valid(lab, job.id)
        same = valid is not None and valid.step == 7
        assert not same, before[max(0, at - 20) : at + 20]
        path.write_bytes(before)


def test_a_checkpoint_that_was_sealed_and_not_yet_listed_is_found(lab: Workspace):
    job = paused(lab)
    lab.store.delete("checkpoints", job_id=job.id, step=7)
    valid, _ = integrity.newest_valid(lab, job.id)
    assert valid is not None and valid.step == 7


def test_a_job_without_a_valid_checkpoint_begins_again(lab: Workspace):
    quiet, job = run(lab, queue(lab)), queue(lab)
    send(lab, job, "pause")
    run(lab, job)
    flip(trainers.checkpoints(lab, job)[-1].path / "optimizer.pt")
    processes.requeue(lab, job.id)
    assert differences(quiet, run(lab, job)) == (0, 0)


# other methods


def test_a_method_needs_its_kind_of_rows(lab: Workspace):
    with pytest.raises(InputError, match=r"kind of rows: rows of kind chat"):
        trainers._enqueue(lab, TINY.but(method="dpo"), "hues")
    with pytest.raises(InputError, match="'sft' trains on rows like"):
        trainers._enqueue(lab, TINY, add_pairs(lab))


def test_grpo_has_no_held_out_loss(lab: Workspace):
    with pytest.raises(InputError, match="grpo measures its reward on every answer"):
        trainers._enqueue(lab, TINY.but(method="grpo"), "hues", held_out=datasets.get(lab, "hues"))


def test_dpo_trains_on_preferences(lab: Workspace):
    pairs = add_pairs(lab)
    config = TINY.but(method="dpo", max_steps=6, warmup_fraction=0.0, eval_every_steps=6)
    job = trainers._enqueue(lab, config, pairs, held_out=pairs)
    rows = trainers.metrics(lab, run(lab, job).job)
    assert rows[0].loss == pytest.approx(math.log(2), abs=1e-3)
    assert (rows[-1].eval_loss or 1) < math.log(2)
    assert {"margin", "accuracy"} <= {*(rows[-1].more or {})}


def test_grpo_measures_its_reward(lab: Workspace):
    config = TINY.but(method="grpo", max_steps=2, max_new_tokens=6)
    rows = trainers.metrics(lab, run(lab, trainers._enqueue(lab, config, "hues")).job)
    assert all(0 < (row.more or {})["reward"] < 1 for row in rows)
    assert rows[-1].n_tokens and rows[-1].n_tokens > 0


def hashes(seen: Seen) -> list[str]:
    return [digest for step in sorted(seen.hashes) for digest in seen.hashes[step]]


def test_noise_on_embeddings_changes_the_weights(lab: Workspace):
    plain, noisy = (
        run(lab, queue(lab, STEPS.but(max_steps=2, neftune_alpha=alpha))) for alpha in (None, 5.0)
    )
    assert hashes(plain) != hashes(noisy)


def test_streamed_rows_train_like_rows_encoded_at_once(lab: Workspace):
    at_once, streamed = (
        run(lab, queue(lab, STEPS.but(max_steps=4, adapter_dropout=0.0, streaming=on, seed=3)))
        for on in (False, True)
    )
    losses = [[row.loss for row in trainers.metrics(lab, seen.job)] for seen in (at_once, streamed)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)

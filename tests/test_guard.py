"""What can go wrong in a step: NaN, a spike, no memory; injected into the model."""

import json
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from ftlab_kit import Workspace, datasets, trainers
from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError
from ftlab_kit.jobs import states
from ftlab_kit.records import Job
from ftlab_kit.trainers.run import guard, sampler
from ftlab_kit.trainers.run_state import RunState
from tests.chaos.killing import Seen, differences, run
from tests.conftest import TINY

STEPS = TINY.but(max_steps=8, adapter_dropout=0.1, save_every_steps=3, effective_batch=4)


class Spoil(TrainerCallback):
    """Changes the backbone's output in some steps, a limited number of times."""

    def __init__(
        self, ws: Workspace, steps: set[int], how: Callable[[Any], Any], times: int
    ) -> None:
        self.steps, self.how, self.times = steps, how, times
        self.count = ws.root / f"spoilt-{id(self)}.txt"  # outlives a killed worker
        self.count.write_text("")

    def on_train_begin(self, args: Any, state: Any, flow: Any, model: Any, **_: Any) -> None:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            is_due = state.global_step + 1 in self.steps and torch.is_grad_enabled()
            if is_due and len(self.count.read_text()) < self.times:
                self.count.write_text(self.count.read_text() + "x")
                output.last_hidden_state = self.how(output.last_hidden_state)
            return output

        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner.model.register_forward_hook(hook, with_kwargs=True)


def spoilt(ws: Workspace, config: Config, step: int, how: Any = None, times: int = 99) -> Seen:
    how = how or (lambda hidden: hidden * float("nan"))
    return run(ws, queue(ws, config), watchers=[Spoil(ws, {step}, how, times)])


def queue(ws: Workspace, config: Config = STEPS) -> Job:
    return trainers._enqueue(ws, config, "hues")


def lines_of(ws: Workspace, step: int) -> list[int]:
    """The lines of a step's batch, from the order itself."""
    from ftlab_kit.lm import loading, tokens

    model = ws.root / "models" / "tiny"
    tokenizer = loading.tokenizer(model)
    lengths = [
        len(tokens.encode(tokenizer, row["messages"]).input_ids)
        for row in datasets.rows(ws, "hues")
    ]
    stream = iter(sampler.ShuffledSampler(lengths, 4, STEPS.seed, start=step - 1))
    return sorted(next(stream) + 1 for _ in range(4))


def test_a_nan_loss_stops_the_job_and_names_the_lines(lab: Workspace):
    job = spoilt(lab, STEPS, 5).job
    lines = ", ".join(map(str, lines_of(lab, 5)))
    assert job.state == "failed"
    assert f"The loss became nan at step 5, lines {lines}. Look at these rows." in (job.error or "")
    assert "trainers.adjust" in (job.error or "")
    last = trainers.metrics(lab, job)[-1]
    assert (last.step, last.loss) == (5, None)
    assert f"the loss became nan at step 5, lines {lines}" in (last.note or "")


def test_a_skipped_batch_changes_no_weight(lab: Workspace):
    seen = spoilt(lab, STEPS.but(guard="skip"), 5)
    assert (seen.job.state, len(seen.hashes)) == ("completed", 8)
    assert seen.hashes[4] == seen.hashes[5] != seen.hashes[6]
    (event,) = trainers.events(lab, seen.job)
    assert (event.command, event.author) == ("skip", "worker")
    assert (event.arguments or {})["lines"] == lines_of(lab, 5)
    note = {row.step: row.note for row in trainers.metrics(lab, seen.job)}
    assert (note[5] or "").startswith("left out: the loss became nan") and note[4] is None


def test_a_job_fails_when_it_has_skipped_too_many_batches(lab: Workspace):
    config = STEPS.but(guard="skip", guard_tries=2)
    ruin = Spoil(lab, {3, 5, 6}, lambda hidden: hidden * float("inf"), 99)
    job = run(lab, queue(lab, config), watchers=[ruin]).job
    assert job.state == "failed"
    assert "at step 6, " in (job.error or "") and "after 2 batches left out" in (job.error or "")


def test_a_job_rolls_back_and_goes_on_with_half_the_rate(lab: Workspace):
    seen = spoilt(lab, STEPS.but(guard="rollback", schedule="constant"), 5, times=1)
    assert seen.job.state == "completed"
    adjust, rollback = trainers.events(lab, seen.job)
    assert (rollback.command, rollback.step, rollback.author) == ("rollback", 5, "guard")
    assert (rollback.arguments or {}) == {"lines": lines_of(lab, 5), "to_step": 3}
    assert (adjust.step, adjust.result) == (3, {"learning_rate": [0.01, 0.005]})
    rates = [row.learning_rate for row in trainers.metrics(lab, seen.job)]
    assert rates == [0.01] * 3 + [0.005] * 5


def test_a_job_fails_when_it_has_rolled_back_too_often(lab: Workspace):
    job = spoilt(lab, STEPS.but(guard="rollback", guard_tries=2), 5).job
    assert job.state == "failed"
    assert "after 2 rollbacks with a lower learning rate" in (job.error or "")
    commands = [event.command for event in trainers.events(lab, job)]
    assert commands == ["adjust", "rollback"] * 2
    rates = [(event.arguments or {})["learning_rate"] for event in trainers.events(lab, job)[::2]]
    assert rates == [0.005, 0.0025]


def test_a_failed_job_goes_on_when_its_guard_is_set_to_skip(lab: Workspace):
    from ftlab_kit.jobs import processes

    job = spoilt(lab, STEPS, 5).job
    event = trainers.adjust(lab, job, guard="skip")
    assert event.state == "pending"
    processes.requeue(lab, job.id)
    again = Spoil(lab, {5}, lambda hidden: hidden * float("nan"), 99)
    assert run(lab, job, watchers=[again]).job.state == "completed"
    assert states.event(lab, event.id).state == "applied"


def test_a_spike_is_caught_if_a_factor_is_set(lab: Workspace):
    config = STEPS.but(guard="skip", spike_factor=8.0, learning_rate=1e-4)
    (event,) = trainers.events(lab, spoilt(lab, config, 7, lambda hidden: hidden * 40).job)
    assert event.step == 6 and "jumped to" in (event.note or "")
    quiet = STEPS.but(guard="skip")
    assert trainers.events(lab, spoilt(lab, quiet, 7, lambda hidden: hidden * 40).job) == ()


@pytest.mark.parametrize(
    ("loss", "norm", "problem"),
    [
        (1.0, 1.0, None),
        (float("inf"), 1.0, "the loss became inf"),
        (1.0, float("nan"), "the gradient norm became nan"),
        (3.5, 1.0, "the loss jumped to 3.5, 3.5 times the usual"),
        (1.0, 9.0, "the gradient norm jumped to 9, 9.0 times the usual"),
    ],
)
def test_the_guard_names_the_problem(loss: float, norm: float, problem: str | None):
    run_state = RunState.begin(TINY.but(spike_factor=3.0), 20, 4)
    for _ in range(30):
        assert guard.check_step(run_state, 1.0, 1.0) is None
    assert guard.check_step(run_state, loss, norm) == problem
    assert len(run_state.losses) == 20 and statistics.median(run_state.losses) == 1.0


def test_a_median_of_zero_is_not_compared_with():
    run_state = RunState.begin(TINY.but(spike_factor=2.0), 20, 4)
    for _ in range(9):
        assert guard.check_step(run_state, 0.0, 0.0) is None
    assert guard.check_step(run_state, -0.5, 0.1) is None


def test_a_gradient_may_overflow_under_a_scaler():
    run_state = RunState.begin(TINY, 20, 4)
    assert guard.check_step(run_state, 1.0, float("inf"), is_scaled=True) is None
    assert guard.check_step(run_state, float("inf"), 1.0, is_scaled=True) == "the loss became inf"


class Shortage(TrainerCallback):
    """Lets memory run out for micro-batches of more than some rows, from a step on.

    It does so in the backward, when some layers have their gradients already.
    """

    def __init__(self, rows: int, step: int = 1, last: int = 10**6) -> None:
        self.rows, self.step, self.last = rows, step, last

    def on_train_begin(self, args: Any, state: Any, flow: Any, model: Any, **_: Any) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model

        def forward(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            mask = kwargs["attention_mask"]
            is_packed = mask is not None and mask.dtype == torch.long
            n_rows = mask.size(-1) - 1 if is_packed else len(hidden)
            is_due = self.step <= state.global_step + 1 <= self.last
            if is_due and hidden.requires_grad and n_rows > self.rows:
                hidden.register_hook(self.run_out)
            return output

        inner.model.layers[0].register_forward_hook(forward, with_kwargs=True)

    @staticmethod
    def run_out(gradient: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB (injected)")


def short(ws: Workspace, config: Config, *shortages: Shortage) -> Seen:
    return run(ws, queue(ws, config), watchers=shortages)


def forget_batch_sizes(ws: Workspace) -> None:
    ws.store.delete("batch_sizes", model="tiny")


def test_a_step_without_memory_is_done_in_smaller_micro_batches(lab: Workspace):
    forget_batch_sizes(lab)
    config = STEPS.but(adapter_dropout=0.0, effective_batch=8, precision="fp32")
    quiet = run(lab, queue(lab, config))
    seen = short(lab, config, Shortage(2, step=4))
    losses = [[row.loss for row in trainers.metrics(lab, item.job)] for item in (quiet, seen)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert [(event.step, event.arguments) for event in trainers.events(lab, seen.job)] == [
        (3, {"rows": 4}),
        (3, {"rows": 2}),
    ]
    assert [row.n_tokens for row in trainers.metrics(lab, seen.job)] == [
        row.n_tokens for row in trainers.metrics(lab, quiet.job)
    ]


def test_a_job_that_ran_out_of_memory_is_killed_resumed_and_replayed_to_the_same_bits(
    lab: Workspace,
):
    forget_batch_sizes(lab)
    shortage = Shortage(1, step=4, last=4)
    seen = short(lab, STEPS, shortage)
    forget_batch_sizes(lab)
    killed = run(lab, queue(lab), kills=2, after_s=(0.6, 1.1), seed=3, watchers=[shortage])
    assert differences(seen, killed) == (0, 0)
    assert differences(seen, run(lab, trainers._again(lab, seen.job))) == (0, 0)


def test_the_size_that_fits_is_remembered(lab: Workspace):
    forget_batch_sizes(lab)
    short(lab, STEPS, Shortage(2))
    next_one = run(lab, queue(lab))
    assert (states.row(lab, next_one.job)["facts"] or {})["rows_at_once"] == 2
    explicit = run(lab, queue(lab, STEPS.but(micro_batch=4)))
    assert (states.row(lab, explicit.job)["facts"] or {})["rows_at_once"] == 4
    forget_batch_sizes(lab)


def test_a_row_that_does_not_fit_fails_the_job_with_a_reason(lab: Workspace):
    forget_batch_sizes(lab)
    job = short(lab, STEPS, Shortage(0)).job
    assert job.state == "failed"
    assert "does not hold one row at a time" in (job.error or "")
    assert "Lower max_length" in (job.error or "")
    forget_batch_sizes(lab)


def test_pairs_are_split_into_micro_batches_too(lab: Workspace):
    from tests.conftest import add_pairs

    forget_batch_sizes(lab)
    config = TINY.but(method="dpo", max_steps=1, effective_batch=2)
    pairs = add_pairs(lab)
    quiet, split = (
        run(lab, trainers._enqueue(lab, config, pairs), watchers=watchers)
        for watchers in ([], [Shortage(2)])
    )
    losses = [trainers.metrics(lab, seen.job)[0].loss for seen in (quiet, split)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert trainers.events(lab, split.job)[0].arguments == {"rows": 1}
    forget_batch_sizes(lab)


def test_auto_uses_as_many_rows_as_fit(lab: Workspace):
    forget_batch_sizes(lab)
    seen = run(lab, queue(lab, STEPS.but(micro_batch="auto", effective_batch=12, max_steps=2)))
    assert (states.row(lab, seen.job)["facts"] or {})["rows_at_once"] == 12
    assert lab.store.get("batch_sizes", model="tiny") is not None
    forget_batch_sizes(lab)


@pytest.mark.slow
def test_auto_really_runs_out_of_memory_and_uses_fewer(lab: Workspace):
    """With a limit on the worker's address space, which torch's allocator runs into."""
    forget_batch_sizes(lab)
    path = lab.root / "long.jsonl"
    turns = {"user": "very " * 400, "assistant": "long " * 400}
    row = {"messages": [{"role": role, "content": text} for role, text in turns.items()]}
    path.write_text("\n".join(json.dumps(row) for _ in range(8)))
    config = STEPS.but(micro_batch="auto", effective_batch=256, max_steps=1, adapter="none")
    job = trainers._enqueue(lab, config, datasets.add(lab, path))
    seen = run(lab, job, before=lambda: limit_memory(1_000_000_000))
    assert seen.job.state == "completed"
    # the probe runs out, or the step after it, which needs a little more
    assert (lab.store.get("batch_sizes", model="tiny") or {"rows": 256})["rows"] < 256
    forget_batch_sizes(lab)


def limit_memory(more_bytes: int) -> None:
    """Limit this process to its present memory and these bytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def test_settings_that_conflict_are_refused():
    for changes, message in (
        ({"packing": True, "streaming": True}, "packing needs all rows first"),
        ({"method": "dpo", "packing": True}, "packing is set and method is 'dpo'"),
        ({"method": "grpo", "effective_batch": 6}, "a multiple of answers_per_prompt"),
        ({"processes": 3}, "a multiple of processes"),
        ({"processes": 2, "micro_batch": 4}, "a process's share of it"),
        ({"micro_batch": "most"}, "micro_batch is 'most'; expected an integer or 'auto'"),
    ):
        with pytest.raises(ConfigError, match=message):
            TINY.but(**changes)

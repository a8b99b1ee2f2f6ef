"""What happens between two optimizer steps: commands in, metrics out, checkpoints when due.

The worker reads its mailbox, applies each command or refuses it with a reason, and records the
step. With these records a steered job can be resumed, and replayed, to the same bits.
"""

import time
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftlab_kit import device
from ftlab_kit import metrics as measured
from ftlab_kit.errors import JobFailed, KitError
from ftlab_kit.jobs import log, processes, states
from ftlab_kit.lm import generation
from ftlab_kit.records import Event
from ftlab_kit.trainers import generations
from ftlab_kit.trainers.run import evaluation, sample_answers
from ftlab_kit.trainers.run.wandb_log import Tracker
from ftlab_kit.workspace import Workspace, now

# metrics of one method: TRL's name, ours
METHOD_METRICS = {
    "reward": "reward",
    "reward_std": "reward_spread",
    "kl": "kl",
    "completions/mean_length": "answer_tokens",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}
BEFORE_FIRST_STEP = ("adjust", "micro_batch")  # also applied before the first step
REPEATABLE = (*BEFORE_FIRST_STEP, "evaluate")  # a resumed job applies these again at their step


class AlreadyFinished(Exception):
    """The checkpoint that a run starts from is its last already."""


class CommandCallback(TrainerCallback):  # type: ignore[misc]
    """The callback of one run of a job; the worker sets `trainer` and `prompts`.

    The prompts are answered every few steps. `extra_metrics` and `notes` collect what the current
    step has measured besides its loss.
    """

    trainer: Any
    prompts: Sequence[generations.Prompt] = ()

    def __init__(self, ws: Workspace, job_id: int, tracker: Tracker | None) -> None:
        """Set up for one job; processes other than the first have no tracker and write nothing."""
        self.ws, self.job_id, self.tracker = ws, job_id, tracker
        self.is_first = tracker is not None
        self.losses: dict[str, float | None] = {"loss": None, "eval_loss": None}
        self.extra_metrics: dict[str, float] = {}
        self.notes: list[str] = []
        self.ending: str | None = None
        self.unsettled: dict[str, list[Event]] = {"checkpoint": [], "evaluate": []}
        self._to_repeat: list[Event] = []
        self._is_scheduled = False
        self._gauge = device.Gauge()
        self._began = self._busy_s = self._all_busy_s = 0.0
        self._steps_timed = self._tokens_seen = self._last_logged = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Continue from the checkpoint, and apply the commands that came in the meantime."""
        run_state = self.trainer.run_state
        state.max_steps = run_state.total_steps
        self._tokens_seen, self._last_logged = self.trainer.n_tokens, state.global_step
        if self.is_first:
            self._load_commands(state.global_step)
            generations.undo(self.ws, self.job_id, after_step=state.global_step)
        self._process_commands(state, control, only=BEFORE_FIRST_STEP)
        if run_state.is_stopped or state.global_step >= run_state.total_steps:
            raise AlreadyFinished
        if self.is_first:
            self.ws.store.update("jobs", {"id": self.job_id}, total_steps=run_state.total_steps)
            rows = min(args.train_batch_size, run_state.micro_batch)
            total = run_state.total_steps
            log.write(f"training: step {state.global_step} of {total}, {rows} rows at once")

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock; time between steps does not count towards training speed."""
        self.losses, self.extra_metrics, self.notes = {"loss": None, "eval_loss": None}, {}, []
        self.trainer.begin_step()
        self._began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock, process commands, and request what is due."""
        step_s = time.perf_counter() - self._began
        self._busy_s += step_s
        if self._steps_timed or state.global_step > 1:  # the first step also warms the caches
            self._all_busy_s += step_s
            self._steps_timed += 1
        step, run_state = state.global_step, self.trainer.run_state
        self._heartbeat(step)
        self._process_commands(state, control)
        config, is_last = run_state.config, step >= run_state.total_steps
        if is_last:
            self.ending = None if self.ending == "paused" else self.ending
        is_ending = is_last or self.ending is not None
        if generations.is_due(run_state, step) and self.ending != "cancelled":
            self._sample_prompts(step)
        self._is_scheduled = self.trainer.held_out is not None and (
            is_last or run_state.is_due(config.eval_every_steps or config.save_every_steps, step)
        )
        control.should_log = step == 1 or step % config.log_every_steps == 0 or is_last
        control.should_evaluate = self._is_scheduled or bool(self.unsettled["evaluate"])
        control.should_save = (
            is_ending
            or run_state.is_due(config.save_every_steps, step)
            or bool(self.unsettled["checkpoint"])
        )
        control.should_training_stop = is_ending

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the metrics of a step."""
        logs, run_state = logs or {}, self.trainer.run_state
        values: dict[str, Any] = {}
        if "loss" in logs:
            values = {**self.trainer.step_metrics, "learning_rate": logs["learning_rate"]}
            values["epoch"] = run_state.epoch(state.global_step)
            self.extra_metrics |= {
                METHOD_METRICS[name]: logs[name] for name in METHOD_METRICS if name in logs
            }
            values |= self._extra_columns()
            values |= self._speed(state) | self._gauge.read()
        if "eval_loss" in logs:
            values["eval_loss"] = logs["eval_loss"]
        self.losses |= {name: values[name] for name in self.losses if name in values}
        if not values:
            return
        if self.is_first:
            measured.write(self.ws, self.job_id, state.global_step, **values)
            numbers = {name: item for name, item in values.items() if name not in ("more", "note")}
            self._track(state.global_step, numbers | (values.get("more") or {}))
            log.write(f"step {state.global_step}/{run_state.total_steps} " + _summary(values))
        if "eval_loss" in logs:
            self._evaluated(state, control, logs["eval_loss"])

    def _track(self, step: int, values: dict[str, Any]) -> None:
        if self.tracker is not None:
            self.tracker.write(step, values)

    def _extra_columns(self) -> dict[str, Any]:
        """Return the metrics' columns for what the step has measured besides its loss."""
        notes = "; ".join(filter(None, [self.trainer.note, *self.notes]))
        return {"more": {**self.extra_metrics} or None, "note": notes or None}

    def _sample_prompts(self, step: int) -> None:
        """Answer the prompts with the current weights; scores go to the step's metrics."""
        if not self.is_first:
            return
        config, trainer = self.trainer.run_state.config, self.trainer
        prompts = self.prompts[: config.sample_rows]
        sampled = sample_answers.generate(trainer.model, trainer.processing_class, prompts, config)
        self.extra_metrics |= sampled.means
        self.notes += [f"sample answers: {message}" for message in sampled.messages]
        generations.write(
            self.ws, self.job_id, step, prompts, answers=sampled.answers,
            is_complete=sampled.is_complete, scores=sampled.scores, messages=sampled.messages,
        )  # fmt: skip
        measured.write(self.ws, self.job_id, step, **self._extra_columns())
        self._track(step, sampled.means)
        scores = " ".join(f"{name} {value:.4g}" for name, value in sampled.means.items())
        log.write(f"step {step}: {'; '.join([scores or 'no sample answers', *sampled.messages])}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record why a held-out loss could not be measured; the job goes on without it."""
        reason, step = (metrics or {}).get("trouble"), state.global_step
        if reason is None:
            return
        for event in self.unsettled["evaluate"]:
            self._refuse(event, state, reason)
        self.unsettled["evaluate"] = []
        if self.is_first:
            self.notes.append(reason)
            measured.write(self.ws, self.job_id, step, **self._extra_columns())
            if self._is_scheduled:
                generations.write_event(
                    self.ws, self.job_id, "evaluate", step, state="refused", note=reason
                )
            log.write(f"step {step}: {reason}")

    def _evaluated(self, state: TrainerState, control: TrainerControl, eval_loss: float) -> None:
        """Settle evaluate commands, and end a job whose held-out loss has stopped falling."""
        step, run_state = state.global_step, self.trainer.run_state
        self._settle("evaluate", step, {"eval_loss": eval_loss})
        if (
            self._is_scheduled
            and run_state.is_stopped_early(eval_loss)
            and step < run_state.total_steps
        ):
            control.should_training_stop = control.should_save = True
            self.ending = None if self.ending == "paused" else self.ending
            reason = (
                f"{run_state.n_worse} held-out losses in a row were no better than "
                f"{run_state.best:.4g}"
            )
            if run_state.config.sample_every_steps and not generations.is_due(run_state, step):
                self._sample_prompts(step)
            if self.is_first:
                states.write(
                    self.ws, self.job_id, "stop", state="applied", step=step, note=reason,
                    author="early stopping",
                )  # fmt: skip

    def committed(self, step: int) -> None:
        """Settle the commands that requested a checkpoint."""
        self._settle("checkpoint", step, {"step": step})

    def _settle(self, command: str, step: int, result: dict[str, Any]) -> None:
        for event in self.unsettled[command]:
            self.trainer.run_state.applied.append(event.id)
            if self.is_first:
                states.settle(self.ws, event, "applied", step, result=result)
        self.unsettled[command] = []

    def _heartbeat(self, step: int) -> None:
        """Record the step; a job that was ended from outside stops here."""
        is_ours = not self.is_first or self.ws.store.update(
            "jobs", processes.owned_by_me(self.job_id), step=step, heartbeat_at=now()
        )
        if not self.trainer.broadcast(is_ours):
            raise JobFailed(f"Job {self.job_id} was ended from outside before this step.")

    def _process_commands(
        self, state: TrainerState, control: TrainerControl, *, only: tuple[str, ...] = ()
    ) -> None:
        """Apply the commands that are due, in the order in which they came."""
        due = self._due(state.global_step) if self.is_first else []
        for event in self.trainer.broadcast(due):
            if only and event.command not in only:
                continue
            if event.command in ("pause", "cancel"):
                # a cancel that comes with a pause wins
                ending = {"pause": "paused", "cancel": "cancelled"}[event.command]
                self.ending = "cancelled" if self.ending == "cancelled" else ending
            elif event.command == "adjust":
                self._adjust(event, state)
            elif event.command == "micro_batch":
                self._set_micro_batch(event, state)
            elif event.command == "evaluate" and self.trainer.held_out is None:
                self._refuse(event, state, "the job has no held-out rows")
            elif event.command == "sample":
                self._sample(event, state)
            else:
                self.unsettled[event.command].append(event)

    def _due(self, step: int) -> list[Event]:
        """Return the commands due after a step: new ones, and ones applied here in a past run."""
        pending = [
            event
            for event in states.events(self.ws, self.job_id, state="pending")
            if event.at_step is None or event.at_step <= step
        ]
        repeated = [event for event in self._to_repeat if event.step == step]
        return sorted([*repeated, *pending], key=lambda event: event.id)

    def _load_commands(self, step: int) -> None:
        """Load the commands that later steps have applied before; refuse those due in the past."""
        past = states.events(self.ws, self.job_id, state="applied", command=[*REPEATABLE])
        applied = self.trainer.run_state.applied
        self._to_repeat = [event for event in past if event.id not in applied]
        for event in states.events(self.ws, self.job_id, state="pending"):
            if event.at_step is not None and event.at_step < step:
                states.settle(self.ws, event, "refused", step, note="its step is past")

    def _adjust(self, event: Event, state: TrainerState) -> None:
        run_state = self.trainer.run_state
        try:
            result = run_state.adjust(dict(event.arguments or {}))
        except KitError as error:
            self._refuse(event, state, str(error))
            return
        run_state.applied.append(event.id)
        self.trainer.apply_settings()
        if self.is_first:
            states.settle(self.ws, event, "applied", state.global_step, result=result)
            self.ws.store.update("jobs", {"id": self.job_id}, total_steps=run_state.total_steps)
            log.write(f"step {state.global_step}: {event.author} adjusts {result}")

    def _set_micro_batch(self, event: Event, state: TrainerState) -> None:
        """Use the micro-batch that an earlier run had to fall back to at this step."""
        self.trainer.run_state.micro_batch = int((event.arguments or {})["rows"])
        self.trainer.run_state.applied.append(event.id)
        if self.is_first:
            states.settle(self.ws, event, "applied", state.global_step)

    def _refuse(self, event: Event, state: TrainerState, reason: str) -> None:
        if self.is_first:
            states.settle(self.ws, event, "refused", state.global_step, note=reason)

    def _sample(self, event: Event, state: TrainerState) -> None:
        """Answer prompts with the current weights, without affecting the random generators."""
        if not self.is_first:
            return
        arguments = dict(event.arguments or {})
        try:
            with evaluation.preserve_rng(self.trainer.model):
                answers = generation.greedy_answers(
                    self.trainer.model,
                    self.trainer.processing_class,
                    arguments["prompts"],
                    max_new_tokens=arguments["max_new_tokens"],
                )
        except (RuntimeError, ValueError, KitError) as error:  # a prompt must not end a run
            self._refuse(event, state, f"it could not be answered ({error})")
            return
        states.settle(self.ws, event, "applied", state.global_step, result={"answers": answers})

    def _speed(self, state: TrainerState) -> dict[str, Any]:
        """Return the speed since the last metrics, over the time spent in steps."""
        run_state, busy = self.trainer.run_state, self._busy_s
        n_tokens = self.trainer.n_tokens - self._tokens_seen
        n_rows = (state.global_step - self._last_logged) * run_state.config.prompts_a_step
        steps_left = run_state.total_steps - state.global_step
        mean_s = self._all_busy_s / self._steps_timed if self._steps_timed else None
        self._tokens_seen, self._last_logged = self.trainer.n_tokens, state.global_step
        self._busy_s = 0.0
        return {
            "tokens_per_s": n_tokens / busy if busy else None,
            "samples_per_s": n_rows / busy if busy else None,
            "n_tokens": self.trainer.n_tokens,
            "remaining_s": mean_s * steps_left if mean_s is not None else None,
        }


def _summary(values: dict[str, Any]) -> str:
    shown = {name: values[name] for name in ("loss", "eval_loss", "tokens_per_s") if name in values}
    return " ".join(f"{name} {value:.4g}" for name, value in shown.items() if value is not None)

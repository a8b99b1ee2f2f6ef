"""What happens at step borders: commands in, metrics out, cadence kept.

A border is the moment after one optimizer step and before the next. Here the worker reads its
mailbox, does what it is told or says why not, and writes down at which step: with that a steered
job can be resumed, and replayed, to the bit.
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

# what a method alone measures: TRL's name, ours
MORE = {
    "reward": "reward",
    "reward_std": "reward_spread",
    "kl": "kl",
    "completions/mean_length": "answer_tokens",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}
SETTLED_FIRST = ("adjust", "micro_batch")  # also before the first step
MADE_AGAIN = (*SETTLED_FIRST, "evaluate")  # commands that a resumed job takes again at their step


class NothingLeft(Exception):
    """The checkpoint that a run begins with is its end already."""


class CommandCallback(TrainerCallback):  # type: ignore[misc]
    """The callback of one run of a job. `trainer` is set when there is one.

    `prompts` is what is answered at a cadence; `more` and `notes` are what the step under way has
    brought besides its loss.
    """

    trainer: Any
    prompts: Sequence[generations.Prompt] = ()

    def __init__(self, ws: Workspace, job_id: int, tracker: Tracker | None) -> None:
        """Watch one job; processes other than the first have no tracker and write nothing."""
        self.ws, self.job_id, self.tracker = ws, job_id, tracker
        self.is_first = tracker is not None
        self.losses: dict[str, float | None] = {"loss": None, "eval_loss": None}
        self.more: dict[str, float] = {}
        self.notes: list[str] = []
        self.ending: str | None = None
        self.to_settle: dict[str, list[Event]] = {"checkpoint": [], "evaluate": []}
        self._again: list[Event] = []
        self._is_scheduled = False
        self._gauge = device.Gauge()
        self._began = self._busy_s = self._all_busy_s = 0.0
        self._steps_timed = self._tokens_seen = self._last_logged = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, flow: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up where the checkpoint was, and what was asked of the job meanwhile."""
        live = self.trainer.live
        state.max_steps = live.total_steps
        self._tokens_seen, self._last_logged = self.trainer.n_tokens, state.global_step
        if self.is_first:
            self._remember(state.global_step)
            generations.undo(self.ws, self.job_id, after_step=state.global_step)
        self._take(state, flow, only=SETTLED_FIRST)
        if live.is_stopped or state.global_step >= live.total_steps:
            raise NothingLeft
        if self.is_first:
            self.ws.store.update("jobs", {"id": self.job_id}, total_steps=live.total_steps)
            rows = min(args.train_batch_size, live.micro_batch)
            log.write(
                f"training: step {state.global_step} of {live.total_steps}, {rows} rows at once"
            )

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock; what happens between steps does not count as training speed."""
        self.losses, self.more, self.notes = {"loss": None, "eval_loss": None}, {}, []
        self.trainer.begin_step()
        self._began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, flow: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock, take commands, and ask for what is due."""
        took = time.perf_counter() - self._began
        self._busy_s += took
        if self._steps_timed or state.global_step > 1:  # the first step also warms the caches
            self._all_busy_s += took
            self._steps_timed += 1
        step, live = state.global_step, self.trainer.live
        self._show_life(step)
        self._take(state, flow)
        config, is_last = live.config, step >= live.total_steps
        if is_last:
            self.ending = None if self.ending == "paused" else self.ending
        is_ending = is_last or self.ending is not None
        if generations.is_due(live, step) and self.ending != "cancelled":
            self._speak(step)
        self._is_scheduled = self.trainer.held_out is not None and (
            is_last or live.is_due(config.eval_every_steps or config.save_every_steps, step)
        )
        flow.should_log = step == 1 or step % config.log_every_steps == 0 or is_last
        flow.should_evaluate = self._is_scheduled or bool(self.to_settle["evaluate"])
        flow.should_save = (
            is_ending
            or live.is_due(config.save_every_steps, step)
            or bool(self.to_settle["checkpoint"])
        )
        flow.should_training_stop = is_ending

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        flow: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the metrics of a step, as they were measured."""
        logs, live = logs or {}, self.trainer.live
        values: dict[str, Any] = {}
        if "loss" in logs:
            values = {**self.trainer.measured, "learning_rate": logs["learning_rate"]}
            values["epoch"] = live.epoch(state.global_step)
            self.more |= {MORE[name]: logs[name] for name in MORE if name in logs}
            values |= self._said()
            values |= self._speed(state) | self._gauge.read()
        if "eval_loss" in logs:
            values["eval_loss"] = logs["eval_loss"]
        self.losses |= {name: values[name] for name in self.losses if name in values}
        if not values:
            return
        if self.is_first:
            measured.write(self.ws, self.job_id, state.global_step, **values)
            known = {name: item for name, item in values.items() if name not in ("more", "note")}
            self._track(state.global_step, known | (values.get("more") or {}))
            log.write(f"step {state.global_step}/{live.total_steps} " + _line(values))
        if "eval_loss" in logs:
            self._evaluated(state, flow, logs["eval_loss"])

    def _track(self, step: int, values: dict[str, Any]) -> None:
        assert self.tracker is not None
        self.tracker.write(step, values)

    def _said(self) -> dict[str, Any]:
        """Return what the step has brought so far besides its loss, as its metrics have it."""
        words = [self.trainer.note, *self.notes]
        return {"more": {**self.more} or None, "note": "; ".join(filter(None, words)) or None}

    def _speak(self, step: int) -> None:
        """Answer the prompts with the weights as they are; scores go to the step's metrics."""
        if not self.is_first:
            return
        config, trainer = self.trainer.live.config, self.trainer
        prompts = self.prompts[: config.sample_rows]
        sampled = sample_answers.generate(trainer.model, trainer.processing_class, prompts, config)
        self.more |= sampled.means
        self.notes += [f"sample answers: {message}" for message in sampled.messages]
        generations.write(
            self.ws, self.job_id, step, prompts, answers=sampled.answers,
            is_complete=sampled.is_complete, scores=sampled.scores, messages=sampled.messages,
        )  # fmt: skip
        measured.write(self.ws, self.job_id, step, **self._said())
        self._track(step, sampled.means)
        scores = " ".join(f"{name} {value:.4g}" for name, value in sampled.means.items())
        log.write(f"step {step}: {'; '.join([scores or 'no sample answers', *sampled.messages])}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        flow: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say why a held-out loss could not be measured; the job goes on without."""
        words, step = (metrics or {}).get("trouble"), state.global_step
        if words is None:
            return
        for event in self.to_settle["evaluate"]:
            self._refuse(event, state, words)
        self.to_settle["evaluate"] = []
        if self.is_first:
            self.notes.append(words)
            measured.write(self.ws, self.job_id, step, **self._said())
            if self._is_scheduled:
                generations.write_event(
                    self.ws, self.job_id, "evaluate", step, state="refused", note=words
                )
            log.write(f"step {step}: {words}")

    def _evaluated(self, state: TrainerState, flow: TrainerControl, eval_loss: float) -> None:
        """Settle who asked for it, and end a job that has stopped getting better."""
        step, live = state.global_step, self.trainer.live
        self._settle("evaluate", step, {"eval_loss": eval_loss})
        if self._is_scheduled and live.is_stopped_early(eval_loss) and step < live.total_steps:
            flow.should_training_stop = flow.should_save = True
            self.ending = None if self.ending == "paused" else self.ending
            words = f"{live.n_worse} held-out losses in a row were no better than {live.best:.4g}"
            if live.config.sample_every_steps and not generations.is_due(live, step):
                self._speak(step)
            if self.is_first:
                states.write(
                    self.ws, self.job_id, "stop", state="applied", step=step, note=words,
                    author="early stopping",
                )  # fmt: skip

    def sealed(self, step: int) -> None:
        """Settle the commands that wanted a checkpoint."""
        self._settle("checkpoint", step, {"step": step})

    def _settle(self, command: str, step: int, result: dict[str, Any]) -> None:
        for event in self.to_settle[command]:
            self.trainer.live.applied.append(event.id)
            if self.is_first:
                states.settle(self.ws, event, "applied", step, result=result)
        self.to_settle[command] = []

    def _show_life(self, step: int) -> None:
        """Say which step is done; a job that was ended from outside stops here."""
        is_ours = not self.is_first or self.ws.store.update(
            "jobs", processes.owned_by_me(self.job_id), step=step, heartbeat_at=now()
        )
        if not self.trainer.together(is_ours):
            raise JobFailed(f"Job {self.job_id} was ended from outside before this step.")

    # --- commands -----------------------------------------------------------------------------

    def _take(
        self, state: TrainerState, flow: TrainerControl, *, only: tuple[str, ...] = ()
    ) -> None:
        """Do what is due at this border, in the order in which it was asked."""
        due = self._due(state.global_step) if self.is_first else []
        for event in self.trainer.together(due):
            if only and event.command not in only:
                continue
            if event.command in ("pause", "cancel"):
                # a cancel that comes with a pause wins
                ending = {"pause": "paused", "cancel": "cancelled"}[event.command]
                self.ending = "cancelled" if self.ending == "cancelled" else ending
            elif event.command == "adjust":
                self._adjust(event, state)
            elif event.command == "micro_batch":
                self._split(event, state)
            elif event.command == "evaluate" and self.trainer.held_out is None:
                self._refuse(event, state, "the job has no held-out rows")
            elif event.command == "sample":
                self._sample(event, state)
            else:
                self.to_settle[event.command].append(event)

    def _due(self, step: int) -> list[Event]:
        """Return the commands of this border: new ones, and those that were taken here before."""
        pending = [
            event
            for event in states.events(self.ws, self.job_id, state="pending")
            if event.at_step is None or event.at_step <= step
        ]
        again = [event for event in self._again if event.step == step]
        return sorted([*again, *pending], key=lambda event: event.id)

    def _remember(self, step: int) -> None:
        """Find what was taken at later borders before, and refuse what was due at past ones."""
        done = states.events(self.ws, self.job_id, state="applied", command=[*MADE_AGAIN])
        applied = self.trainer.live.applied
        self._again = [event for event in done if event.id not in applied]
        for event in states.events(self.ws, self.job_id, state="pending"):
            if event.at_step is not None and event.at_step < step:
                states.settle(self.ws, event, "refused", step, note="its step is past")

    def _adjust(self, event: Event, state: TrainerState) -> None:
        live = self.trainer.live
        try:
            result = live.adjust(dict(event.arguments or {}))
        except KitError as error:
            self._refuse(event, state, str(error))
            return
        live.applied.append(event.id)
        self.trainer.retune()
        if self.is_first:
            states.settle(self.ws, event, "applied", state.global_step, result=result)
            self.ws.store.update("jobs", {"id": self.job_id}, total_steps=live.total_steps)
            log.write(f"step {state.global_step}: {event.author} adjusts {result}")

    def _split(self, event: Event, state: TrainerState) -> None:
        """Go on in the pieces that a run before this one had to take from this step on."""
        self.trainer.live.micro_batch = int((event.arguments or {})["rows"])
        self.trainer.live.applied.append(event.id)
        if self.is_first:
            states.settle(self.ws, event, "applied", state.global_step)

    def _refuse(self, event: Event, state: TrainerState, words: str) -> None:
        if self.is_first:
            states.settle(self.ws, event, "refused", state.global_step, note=words)

    def _sample(self, event: Event, state: TrainerState) -> None:
        """Answer prompts with the weights as they are, and leave every random number alone."""
        if not self.is_first:
            return
        asked = dict(event.arguments or {})
        try:
            with evaluation.preserve_rng(self.trainer.model):
                found = generation.greedy_answers(
                    self.trainer.model,
                    self.trainer.processing_class,
                    asked["prompts"],
                    max_new_tokens=asked["max_new_tokens"],
                )
        except (RuntimeError, ValueError, KitError) as error:  # no prompt is worth a run
            self._refuse(event, state, f"it could not be answered ({error})")
            return
        states.settle(self.ws, event, "applied", state.global_step, result={"answers": found})

    def _speed(self, state: TrainerState) -> dict[str, Any]:
        """Return what was done since the last metrics, by time spent in steps."""
        live, busy = self.trainer.live, self._busy_s
        n_tokens = self.trainer.n_tokens - self._tokens_seen
        n_rows = (state.global_step - self._last_logged) * live.config.prompts_a_step
        left = live.total_steps - state.global_step
        each = self._all_busy_s / self._steps_timed if self._steps_timed else None
        self._tokens_seen, self._last_logged = self.trainer.n_tokens, state.global_step
        self._busy_s = 0.0
        return {
            "tokens_per_s": n_tokens / busy if busy else None,
            "samples_per_s": n_rows / busy if busy else None,
            "n_tokens": self.trainer.n_tokens,
            "remaining_s": each * left if each is not None else None,
        }


def _line(values: dict[str, Any]) -> str:
    shown = {name: values[name] for name in ("loss", "eval_loss", "tokens_per_s") if name in values}
    return " ".join(f"{name} {value:.4g}" for name, value in shown.items() if value is not None)

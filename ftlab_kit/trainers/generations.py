"""What a job's model answers to the same few prompts while it learns, so that one sees it change.

The worker asks between two steps, greedily and in bounded time, and nothing of the run depends on
it. The texts are kept as events, one a step, the scores beside the metrics of their step; a step
that is done again replaces both.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from typing import Any

from ftlab_kit.configs import Config
from ftlab_kit.datasets import schema
from ftlab_kit.errors import NotFound
from ftlab_kit.jobs import states
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Event, Rows, Sample
from ftlab_kit.trainers.run_state import RunState
from ftlab_kit.workspace import Workspace

WHO = "cadence"  # of events that no one has asked for, and that a resumed run writes again
MOST_ROWS = 32
AT_ONCE = 4  # prompts between two looks at the clock
# a few prompts take seconds; longer, a job that waits to be paused would seem to hang
MOST_S = 30.0
NO_PROMPTS = (
    "no prompts to answer: nothing is asked in these rows; expected chats or preferences. Hold "
    "some out, or leave sample_every_steps empty"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row of a dataset version, counted from 0, whose last answer is to be given anew."""

    row: int
    messages: list[dict[str, Any]]
    tools: Any
    question: str
    reference: str


@dataclass(slots=True)
class Generations:
    """What was answered to each prompt, None where nothing was, and in words why not."""

    answers: list[str | None] = field(default_factory=list)
    is_complete: list[bool | None] = field(default_factory=list)
    scores: list[dict[str, float | None]] = field(default_factory=list)
    message: list[str] = field(default_factory=list)

    @property
    def series(self) -> dict[str, float]:
        """The means over the prompts that were answered, by the names that metrics have for them.

        `sample_chrf` is from 0 to 100, `sample_tokens` an answer's length, `sample_ended` the share
        of answers that ended by themselves.
        """
        known = {
            "sample_chrf": [each.get("chrf") for each in self.scores],
            "sample_tokens": [each.get("tokens") for each in self.scores],
            "sample_ended": [None if each is None else float(each) for each in self.is_complete],
        }
        found = {name: [item for item in each if item is not None] for name, each in known.items()}
        return {name: fmean(each) for name, each in found.items() if each}


def prompts(rows: Iterable[dict[str, Any]]) -> list[Prompt]:
    """Return what the first rows of a version ask, with their answers; nothing of texts.

    Of a preference the better answer is the reference.
    """
    found = []
    for number, row in enumerate(islice(rows, MOST_ROWS)):
        if messages := schema.messages(row):
            *asked, answer = messages
            prompt = Prompt(
                number, asked, row.get("tools"), schema.question(row), answer["content"]
            )
            found.append(prompt)
    return found


def is_due(live: RunState, step: int) -> bool:
    """Return whether answers are wanted after a step: the first, the last, and some between."""
    every = live.config.sample_every_steps
    return every is not None and (step == 1 or live.is_due(every, step))


def generate(model: Any, tokenizer: Any, asked: Sequence[Prompt], config: Config) -> Generations:
    """Return a model's greedy answers to prompts, scored; where it fails, the words why."""
    from ftlab_kit.lm import generation
    from ftlab_kit.trainers.run import evaluation

    words = [] if asked else [NO_PROMPTS]
    answers: dict[int, Any] = {}
    texts = _rendered(tokenizer, asked, config, words)
    deadline, numbers = time.monotonic() + MOST_S, [*texts]
    manner = GenerationSettings(max_new_tokens=config.sample_tokens)

    def measure(batch: Sequence[int]) -> list[Any]:
        return generation.answers(model, tokenizer, [texts[at] for at in batch], manner)

    for start in range(0, len(numbers), AT_ONCE):
        if time.monotonic() > deadline:
            words.append(f"after {MOST_S:.0f} s the other {len(numbers) - start} were not asked")
            break
        batch = numbers[start : start + AT_ONCE]
        try:
            with evaluation.preserve_rng(model):
                answers |= zip(batch, evaluation.in_halves(batch, measure), strict=True)
        except evaluation.EVALUATION_ERRORS as error:
            words.append(f"{_rows(asked, batch)} could not be answered ({evaluation.said(error)})")
    return _scored(asked, answers, words)


def _rendered(
    tokenizer: Any, asked: Sequence[Prompt], config: Config, words: list[str]
) -> dict[int, str]:
    """Return the prompts as the model's template has them; of one that can't be asked, words."""
    from ftlab_kit.lm import tokens
    from ftlab_kit.trainers.run import evaluation

    found = {}
    for at, prompt in enumerate(asked):
        try:
            text = tokens.prompt(tokenizer, prompt.messages, tools=prompt.tools)
            length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        except evaluation.EVALUATION_ERRORS as error:
            words.append(f"row {prompt.row} could not be asked ({evaluation.said(error)})")
            continue
        if length > config.max_length:
            words.append(f"row {prompt.row} has a prompt of {length} tokens, more than max_length")
            continue
        found[at] = text
    return found


def _rows(asked: Sequence[Prompt], batch: Sequence[int]) -> str:
    numbers = ", ".join(str(asked[at].row) for at in batch)
    return f"row{'s' if len(batch) > 1 else ''} {numbers}"


def _scored(asked: Sequence[Prompt], answers: dict[int, Any], words: list[str]) -> Generations:
    found = Generations(message=words)
    for at, prompt in enumerate(asked):
        answer = answers.get(at)
        found.answers.append(answer and answer.text)
        found.is_complete.append(answer and answer.is_complete)
        found.scores.append({} if answer is None else _scores(prompt, answer))
    return found


def _scores(prompt: Prompt, answer: Any) -> dict[str, float | None]:
    """Return an answer's likeness to its reference by characters, and its length."""
    import sacrebleu

    chrf = None
    if prompt.reference.strip():  # a call of a tool says nothing
        chrf = float(sacrebleu.sentence_chrf(answer.text, [prompt.reference]).score)
    return {"chrf": chrf, "tokens": float(answer.n_tokens)}


def keep(
    ws: Workspace, job_id: int, step: int, asked: Sequence[Prompt], found: Generations
) -> None:
    """Write down what was answered after a step, in place of what was there of the same step."""
    note(
        ws, job_id, "sample", step,
        state="applied" if found.series else "refused",
        note="; ".join(found.message) or None,
        arguments={
            "prompts": [prompt.question for prompt in asked],
            "references": [prompt.reference for prompt in asked],
            "rows": [prompt.row for prompt in asked],
        },
        result={
            "answers": found.answers,
            "is_complete": found.is_complete,
            "scores": found.scores,
        },
    )  # fmt: skip


def note(ws: Workspace, job_id: int, command: str, step: int, **values: Any) -> None:
    """Write an event of a step that no one has asked for, in place of that of the same step."""
    known = states.events(ws, job_id, command=command, step=step, author=WHO)
    if known:
        ws.store.update("events", {"id": known[-1].id}, **values)
    else:
        states.write(ws, job_id, command, step=step, author=WHO, **values)


def undo(ws: Workspace, job_id: int, *, after_step: int) -> None:
    """Let what was answered after later steps count no more: these will be done again."""
    for event in states.events(ws, job_id, author=WHO):
        if event.step is not None and event.step > after_step:
            ws.store.update("events", {"id": event.id}, state="undone")


def read(ws: Workspace, job_id: int, step: int | None = None) -> Rows[Sample]:
    """Return what was answered, in the order of steps and prompts.

    Raises:
        NotFound: Nothing was answered after the step that is asked for.
    """
    where: dict[str, Any] = {"command": "sample", "author": WHO, "state": "applied"}
    events = sorted(states.events(ws, job_id, **where), key=lambda event: event.step or 0)
    steps = [event.step for event in events]
    if step is not None and step not in steps:
        there = f"there are of steps {', '.join(map(str, steps))}" if steps else "there are none"
        raise NotFound(
            f"Job {job_id} has no sample answers of step {step}; {there}. Take one of these, ask "
            "now with trainers.sample, or set sample_every_steps."
        )
    return Rows(
        sample for event in events if step in (None, event.step) for sample in _samples(event)
    )


def _samples(event: Event) -> Iterable[Sample]:
    asked, result = event.arguments or {}, event.result or {}
    parts = [asked[name] for name in ("prompts", "references", "rows")]
    parts += [result[name] for name in ("answers", "is_complete", "scores")]
    for prompt, reference, row, answer, is_complete, scores in zip(*parts, strict=True):
        yield Sample(
            prompt=prompt, reference=reference, answer=answer, row=row, step=event.step,
            is_complete=is_complete, scores=scores,
        )  # fmt: skip

"""What a job's model answers to the same few prompts while it trains, so that one sees it change.

The worker answers them between two steps (`run/sample_answers.py`). The texts are kept as events,
one for each step, their scores beside the metrics of the step. A step that is done again replaces
both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ftlab_kit.datasets import schema
from ftlab_kit.errors import NotFound
from ftlab_kit.jobs import states
from ftlab_kit.records import Event, Rows, Sample
from ftlab_kit.trainers.run_state import RunState
from ftlab_kit.workspace import Workspace

AUTHOR = "cadence"  # of events that no person has sent, and that a resumed run writes again
MAX_ROWS = 32


@dataclass(frozen=True, slots=True)
class Prompt:
    """A row of a dataset version, counted from 0, whose last answer the model gives anew."""

    row: int
    messages: list[dict[str, Any]]
    tools: Any
    question: str
    reference: str


def prompts(rows: Iterable[dict[str, Any]]) -> list[Prompt]:
    """Return the prompts of a version's first rows, with their reference answers.

    Of a preference the chosen answer is the reference. Texts have no prompts.
    """
    selected: list[Prompt] = []
    for number, row in enumerate(islice(rows, MAX_ROWS)):
        if messages := schema.messages(row):
            *context, answer = messages
            question = schema.question(row)
            selected.append(Prompt(number, context, row.get("tools"), question, answer["content"]))
    return selected


def is_due(state: RunState, step: int) -> bool:
    """Return whether the prompts are answered after a step: the first, the last, some between."""
    every = state.config.sample_every_steps
    return every is not None and (step == 1 or state.is_due(every, step))


def write(
    ws: Workspace,
    job_id: int,
    step: int,
    prompts: Sequence[Prompt],
    *,
    answers: Sequence[str | None],
    is_complete: Sequence[bool | None],
    scores: Sequence[dict[str, float | None]],
    messages: Sequence[str] = (),
) -> None:
    """Write down the answers after a step, in place of earlier ones of the same step.

    Args:
        answers: One for each prompt; None where there is none.
        is_complete: Whether each answer ended by itself.
        scores: The scores of each answer; {} where there is none.
        messages: Why answers are missing.
    """
    write_event(
        ws, job_id, "sample", step,
        state="applied" if any(scores) else "refused",
        note="; ".join(messages) or None,
        arguments={
            "prompts": [prompt.question for prompt in prompts],
            "references": [prompt.reference for prompt in prompts],
            "rows": [prompt.row for prompt in prompts],
        },
        result={
            "answers": [*answers],
            "is_complete": [*is_complete],
            "scores": [*scores],
        },
    )  # fmt: skip


def write_event(ws: Workspace, job_id: int, command: str, step: int, **values: Any) -> None:
    """Write an event of a step that no person has sent, in place of that of the same step."""
    earlier = states.events(ws, job_id, command=command, step=step, author=AUTHOR)
    if earlier:
        ws.store.update("events", {"id": earlier[-1].id}, **values)
    else:
        states.write(ws, job_id, command, step=step, author=AUTHOR, **values)


def undo(ws: Workspace, job_id: int, *, after_step: int) -> None:
    """Mark the answers of later steps as undone: these steps will be done again."""
    for event in states.events(ws, job_id, author=AUTHOR):
        if event.step is not None and event.step > after_step:
            ws.store.update("events", {"id": event.id}, state="undone")


def read(ws: Workspace, job_id: int, step: int | None = None) -> Rows[Sample]:
    """Return the answers in the order of steps and prompts.

    Args:
        step: Only the answers after this step.

    Raises:
        NotFound: There are no answers of this step.
    """
    where: dict[str, Any] = {"command": "sample", "author": AUTHOR, "state": "applied"}
    events = sorted(states.events(ws, job_id, **where), key=lambda event: event.step or 0)
    steps = [event.step for event in events]
    if step is not None and step not in steps:
        others = f"there are answers of steps {', '.join(map(str, steps))}"
        raise NotFound(
            f"Job {job_id} has no sample answers of step {step}; "
            f"{others if steps else 'it has none at all'}. Choose one of these steps, ask the "
            "model now with trainers.sample, or set sample_every_steps."
        )
    return Rows(
        sample for event in events if step in (None, event.step) for sample in _samples(event)
    )


def _samples(event: Event) -> Iterable[Sample]:
    arguments, result = event.arguments or {}, event.result or {}
    columns = [arguments[name] for name in ("prompts", "references", "rows")]
    columns += [result[name] for name in ("answers", "is_complete", "scores")]
    for prompt, reference, row, answer, is_complete, scores in zip(*columns, strict=True):
        yield Sample(
            prompt=prompt, reference=reference, answer=answer, row=row, step=event.step,
            is_complete=is_complete, scores=scores,
        )  # fmt: skip

"""Models to talk to side by side, each with its own conversation, and answers as they grow.

One background thread loads the models and lets them answer one after another. At the same time they
would share the cores, and the speeds shown would say nothing about either.
"""

import html
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import Any

import ipywidgets

from ftlab_kit import chats, datasets, trainers
from ftlab_kit.chats import ChatModel, Target
from ftlab_kit.datasets import schema
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.records import Message, show
from ftlab_kit.widgets.chat_column import TEXT, Chat, Column, footer, job_of, speed, user_turn
from ftlab_kit.widgets.display import (
    Html,
    is_interactive,
    show_alert,
    show_status,
    table,
    work_around_ipykernel_7_4,
)
from ftlab_kit.workspace import Workspace

N_HELD_OUT = 2  # held-out rows that are the default prompts
MAX_NEW_TOKENS = 128
PROMPTS = ("Who are you, in one sentence?", "Name three things that float.")  # without a job
LABELS = {"description_width": "initial"}


def playground(
    ws: Workspace, *targets: Target, prompts: Sequence[str] = ()
) -> "PlaygroundView | Html":
    """Return models to talk to side by side; where no one can type, their answers in a table.

    The models answer one after another, each in its own conversation. `close` frees their memory.

    Args:
        targets: Each as in `chats.open`; a single job, checkpoint or export is shown beside its
            base model.
        prompts: Prompts of the table; a person finds the first one in the message field. By default
            the prompts of two held-out rows of the job.

    Raises:
        InputError: No model was given.
        KitError: Where no one can type: a model can't be opened, or does not answer.
    """
    if not targets:
        raise InputError("No model was given; expected one or more. Name them after ws.")
    sides = _with_base(ws, targets)
    first = [[user_turn(text)] for text in prompts or PROMPTS]
    if not prompts:
        first = _held_out(ws, targets) or first
    return PlaygroundView(ws, sides, first[0]) if is_interactive() else _table(ws, sides, first)


class PlaygroundView(ipywidgets.VBox):  # type: ignore[misc]
    """A column for each model, a message to all of them, and settings for their answers."""

    def __init__(self, ws: Workspace, targets: Sequence[Target], first: Chat) -> None:
        """Show the columns and start to load their models.

        Args:
            first: A chat whose system turn and prompt fill the fields, ready to be sent.
        """
        self._ws, self._stopped, self._is_closed = ws, Event(), False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ftlab-playground")
        self.columns = [Column(target) for target in targets]
        self.system = _area("system", "How the models are to answer; may be empty", first)
        self.message = _area("user", "A message to all models", first)
        self._make_settings()
        self._status = ipywidgets.HTML()
        self.send_button = _button("Send", "Let each model answer the message", self._on_send)
        self.stop_button = _button("Stop", "Stop the answer that is growing", self._stopped.set)
        self.clear_button = _button("Clear", "Forget the conversations and start over", self._clear)
        side_by_side = ipywidgets.Layout(
            grid_template_columns="repeat(auto-fit, minmax(320px, 1fr))", grid_gap="0 16px"
        )
        settings = [self.max_new_tokens, self.temperature, self.seed]
        super().__init__(
            [
                ipywidgets.GridBox(self.columns, layout=side_by_side),
                self.system,
                self.message,
                ipywidgets.HBox(settings, layout=ipywidgets.Layout(flex_flow="row wrap")),
                ipywidgets.HBox([self.send_button, self.stop_button, self.clear_button]),
                self._status,
            ]
        )
        self._run(self._load)

    def close(self) -> None:
        """Stop, free the models' memory, and remove the view."""
        if not self._is_closed:
            self._is_closed = True
            self._stopped.set()
            self._pool.submit(self._free)
            self._pool.shutdown(wait=False)
        super().close()

    def _make_settings(self) -> None:
        self.max_new_tokens = ipywidgets.BoundedIntText(
            MAX_NEW_TOKENS, min=1, max=131_072, description="max_new_tokens", style=LABELS
        )
        self.temperature = ipywidgets.BoundedFloatText(
            0.0, min=0.0, max=10.0, step=0.1, description="temperature", style=LABELS
        )
        self.seed = ipywidgets.BoundedIntText(
            0, min=0, max=2**31 - 1, description="seed", style=LABELS
        )
        self.max_new_tokens.tooltip = "Longer answers are cut"
        self.temperature.tooltip = "0 takes the likeliest token; higher values sample more freely"
        self.seed.tooltip = "Seed of the sampling"

    def _on_send(self) -> None:
        text, system = self.message.value.strip(), self.system.value.strip()
        if not text:
            show_alert(self._status, "The message is empty; expected some text. Write it first.")
            return
        self.message.value = ""
        before = [{"role": "system", "content": system}] if system else []
        settings: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens.value,
            "temperature": self.temperature.value,
            "seed": self.seed.value,
        }
        self._run(lambda: self._answer_all(before, text, settings))

    def _clear(self) -> None:
        self._stopped.set()
        self._pool.submit(self._forget)

    def _run(self, work: Callable[[], None]) -> None:
        """Do some work in the background; an error is shown as an alert."""

        def done(future: Future[None]) -> None:
            if error := future.exception():
                show_alert(self._status, f"{type(error).__name__}: {error}")
            self._show_busy(False)

        self._stopped.clear()
        self._show_busy(True)
        self._pool.submit(work).add_done_callback(done)

    def _show_busy(self, is_busy: bool) -> None:
        self.send_button.disabled, self.stop_button.disabled = is_busy, not is_busy
        work_around_ipykernel_7_4(
            self.send_button, self.stop_button, self.clear_button, self.system, self.message
        )

    def _load(self) -> None:
        """Open the models that are not open yet; if one can't be opened, its column says why."""
        for column in self.columns:
            if column.chat_model is None and not self._stopped.is_set():
                show_status(self._status, f"loading {column.label} …")
                try:
                    column.chat_model = chats.open(self._ws, column.target)
                except KitError as error:
                    show_alert(column.line, str(error))
                else:
                    column.set_label(column.chat_model.label)
                    show_status(column.line, "")
        n_open = sum(column.chat_model is not None for column in self.columns)
        show_status(self._status, f"{n_open} of {len(self.columns)} models are ready")

    def _answer_all(self, before: Chat, text: str, settings: dict[str, Any]) -> None:
        # again: loading may have been stopped, and what made it fail may be gone
        self._load()
        for column in self.columns:
            if column.chat_model is not None and not self._stopped.is_set():
                show_status(self._status, f"{column.label} answers …")
                chat = [*before, *column.begin_turn(text)]
                self._answer(column, column.chat_model, chat, settings)
        show_status(self._status, "stopped" if self._stopped.is_set() else "answered")

    def _answer(
        self, column: Column, model: ChatModel, chat: Chat, settings: dict[str, Any]
    ) -> None:
        """Let one model answer, and show the answer as it grows."""
        began = time.perf_counter()
        pieces = chats.stream(self._ws, model, chat, **settings)
        try:
            with closing(pieces):
                while not self._stopped.is_set():
                    column.add(next(pieces))
            text = f"stopped; {speed(column.n_tokens, time.perf_counter() - began)}"
        except StopIteration as end:
            text = footer(end.value)
        except KitError as error:
            show_alert(column.line, str(error))
            text = "no answer, or an incomplete one"
        column.end_turn(text)

    def _forget(self) -> None:
        for column in self.columns:
            column.clear()
        show_status(self._status, "cleared")

    def _free(self) -> None:
        for column in self.columns:
            if column.chat_model is not None:
                column.chat_model.close()
                column.chat_model = None


def _area(role: str, hint: str, first: Chat) -> Any:
    """Return a field for a role's turn, filled with the one in the first chat."""
    content = next((turn["content"] for turn in first if turn["role"] == role), "")
    name = "message" if role == "user" else role
    whole = ipywidgets.Layout(width="98%")
    return ipywidgets.Textarea(
        content, description=name, placeholder=hint, tooltip=hint, layout=whole
    )


def _button(name: str, tooltip: str, act: Callable[[], None]) -> Any:
    button = ipywidgets.Button(description=name, tooltip=tooltip)
    button.on_click(lambda _: act())
    return button


def _table(ws: Workspace, targets: Sequence[Target], prompts: Sequence[Chat]) -> Html:
    """Return the models' answers to some prompts as a table."""
    labels, answers = [], []
    for target in targets:
        with chats.open(ws, target) as model:
            labels.append(model.label)
            answers.append(chats.replies(ws, model, prompts, max_new_tokens=MAX_NEW_TOKENS, seed=0))
    rows = []
    for index, chat in enumerate(prompts):
        cells = [html.escape(chat[-1]["content"]), *(_cell(each[index]) for each in answers)]
        rows.append([f"<div {TEXT}>{cell}</div>" for cell in cells])
    n_prompts = "1 prompt" if len(prompts) == 1 else f"{len(prompts)} prompts"
    summary = f"{n_prompts}, answered by {' and by '.join(labels)}"
    return Html(table(["prompt", *labels], rows), summary)


def _cell(message: Message | None) -> str:
    if message is None:
        return show(None)
    cut = ", cut" if message.is_complete is False else ""
    n_tokens = f"{show(message.usage.n_output_tokens)} tokens{cut}"
    return f"{html.escape(message.content) or '<i>empty answer</i>'}<br><small>{n_tokens}</small>"


def _with_base(ws: Workspace, targets: Sequence[Target]) -> list[Target]:
    """Return the targets; before a single trained one stands its base model."""
    job_id = job_of(targets[0])
    if len(targets) > 1 or job_id is None:
        return [*targets]
    return [trainers.status(ws, job_id).model, targets[0]]


def _held_out(ws: Workspace, targets: Sequence[Target]) -> list[Chat]:
    """Return the prompts of the first held-out rows of a job, if there is one."""
    numbers = [number for number in map(job_of, targets) if number is not None]
    version = trainers.status(ws, numbers[0]).held_out_version_id if numbers else None
    prompts: list[Chat] = []
    for row in datasets.rows(ws, version) if version is not None else ():
        if schema.messages(row) and not row.get("tools"):
            prompts.append(schema.messages(row)[:-1])
        if len(prompts) == N_HELD_OUT:
            break
    return prompts

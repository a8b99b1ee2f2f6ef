"""Models to talk to side by side, each with a conversation of its own, and answers as they grow.

One thread in the background loads the models and lets them answer one after another: together they
would share the cores, and the speed of neither would be its own.
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
from ftlab_kit.chats import Target
from ftlab_kit.datasets.schema import messages
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.records import CELL, Message, show
from ftlab_kit.widgets.chat_column import TEXT, Chat, Column, asked, job_of, speed, words_of
from ftlab_kit.widgets.display import Html, is_interactive, say, work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

N_HELD_OUT = 2  # rows that are asked by default
MAX_NEW_TOKENS = 128
PROMPTS = ("Who are you, in one sentence?", "Name three things that float.")  # of no job
LABELS = {"description_width": "initial"}


def playground(
    ws: Workspace, *targets: Target, prompts: Sequence[str] = ()
) -> "PlaygroundView | Html":
    """Return a place to talk to models side by side; where no one can, their answers in a table.

    The models answer one after another, each in a conversation of its own. `close` gives their
    memory back.

    Args:
        targets: Each as in `chats.open`; one job, checkpoint or export alone stands beside its base
            model.
        prompts: What to ask; by default two held-out rows of the job. The table has them all, and
            in front of a person the first stands ready to be sent.

    Raises:
        InputError: No model is named.
        KitError: Where no one can click: a model can't be had, or does not answer.
    """
    if not targets:
        raise InputError("No model is named; expected one or more. Name them after ws.")
    sides = _sides(ws, targets)
    first = [[asked(text)] for text in prompts or PROMPTS]
    if not prompts:
        first = _held_out(ws, targets) or first
    return PlaygroundView(ws, sides, first[0]) if is_interactive() else _still(ws, sides, first)


class PlaygroundView(ipywidgets.VBox):  # type: ignore[misc]
    """Columns of models, a message to them, and how it is to be answered."""

    def __init__(self, ws: Workspace, targets: Sequence[Target], first: Chat) -> None:
        """Show the columns and begin to load their models.

        Args:
            first: A chat that stands ready to be sent: its system turn, and what is asked first.
        """
        self._ws, self._stopped, self._is_closed = ws, Event(), False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ftlab-playground")
        self.columns = [Column(target) for target in targets]
        self.system = _area("system", "How the models are to answer; may be empty", first)
        self.message = _area("user", "What to say to the models", first)
        self._make_settings()
        self._said = ipywidgets.HTML()
        self.send_button = _button("Send", "Let each model answer the message", self._on_send)
        self.stop_button = _button("Stop", "End the answer that is being made", self._stopped.set)
        self.clear_button = _button("Clear", "Forget the conversations, begin anew", self._on_clear)
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
                self._said,
            ]
        )
        self._begin(self._load)

    def close(self) -> None:
        """Stop, give the models' memory back, and remove the view."""
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
        self.max_new_tokens.tooltip = "An answer is cut there"
        self.temperature.tooltip = "0 takes the likeliest token, more draws freely"
        self.seed.tooltip = "Seeds what is drawn"

    def _on_send(self) -> None:
        text, system = self.message.value.strip(), self.system.value.strip()
        if not text:
            words = "There is nothing to send; expected a message. Write one first."
            say(self._said, "alert", words)
            return
        self.message.value = ""
        before = [{"role": "system", "content": system}] if system else []
        manner: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens.value,
            "temperature": self.temperature.value,
            "seed": self.seed.value,
        }
        self._begin(lambda: self._ask(before, text, manner))

    def _on_clear(self) -> None:
        self._stopped.set()
        self._pool.submit(self._forget)

    def _begin(self, work: Callable[[], None]) -> None:
        """Do something in the background; what goes wrong with it is said."""

        def done(future: Future[None]) -> None:
            if error := future.exception():
                say(self._said, "alert", f"{type(error).__name__}: {error}")
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
        """Open the models that are not open yet; where one can't be, its column says why."""
        for column in self.columns:
            if column.speaker is None and not self._stopped.is_set():
                say(self._said, "status", f"loading {column.label} …")
                try:
                    column.speaker = chats.open(self._ws, column.target)
                except KitError as error:
                    say(column.line, "alert", str(error))
                else:
                    column.call(column.speaker.label)
                    say(column.line, "status", "")
        n_open = sum(column.speaker is not None for column in self.columns)
        say(self._said, "status", f"{n_open} of {len(self.columns)} models are ready")

    def _ask(self, before: Chat, text: str, manner: dict[str, Any]) -> None:
        self._load()  # loading may have been stopped, and what stood in its way be gone
        for column in self.columns:
            if column.speaker is not None and not self._stopped.is_set():
                say(self._said, "status", f"{column.label} answers …")
                self._answer(column, [*before, *column.ask(text)], manner)
        say(self._said, "status", "stopped" if self._stopped.is_set() else "answered")

    def _answer(self, column: Column, chat: Chat, manner: dict[str, Any]) -> None:
        """Let one model answer, and show the answer as it grows."""
        assert column.speaker is not None
        began = time.perf_counter()
        pieces = chats.stream(self._ws, column.speaker, chat, **manner)
        try:
            with closing(pieces):
                while not self._stopped.is_set():
                    column.add(next(pieces))
            words = f"stopped; {speed(column.n_tokens, time.perf_counter() - began)}"
        except StopIteration as end:
            words = words_of(end.value)
        except KitError as error:
            say(column.line, "alert", str(error))
            words = "no answer, or no whole one"
        column.end(words)

    def _forget(self) -> None:
        for column in self.columns:
            column.clear()
        say(self._said, "status", "cleared")

    def _free(self) -> None:
        for column in self.columns:
            if column.speaker is not None:
                column.speaker.close()
                column.speaker = None


def _area(role: str, hint: str, first: Chat) -> Any:
    """Return a field for what someone says, with what is said in the first chat."""
    said = next((turn["content"] for turn in first if turn["role"] == role), "")
    name = "message" if role == "user" else role
    whole = ipywidgets.Layout(width="98%")
    return ipywidgets.Textarea(said, description=name, placeholder=hint, tooltip=hint, layout=whole)


def _button(name: str, tooltip: str, act: Callable[[], None]) -> Any:
    made = ipywidgets.Button(description=name, tooltip=tooltip)
    made.on_click(lambda _: act())
    return made


def _still(ws: Workspace, targets: Sequence[Target], asked: Sequence[Chat]) -> Html:
    """Return what the models answer to some chats, as a table."""
    head, found = ["asked"], []
    for target in targets:
        with chats.open(ws, target) as speaker:
            head.append(speaker.label)
            found.append(chats.replies(ws, speaker, asked, max_new_tokens=MAX_NEW_TOKENS, seed=0))
    top = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in head)
    body = ""
    for row, chat in enumerate(asked):
        cells = [html.escape(chat[-1]["content"]), *(_cell(each[row]) for each in found)]
        parts = (f"<td {CELL}><div {TEXT}>{cell}</div></td>" for cell in cells)
        body += f"<tr>{''.join(parts)}</tr>"
    prompts = "1 prompt" if len(asked) == 1 else f"{len(asked)} prompts"
    words = f"{prompts}, answered by {' and by '.join(head[1:])}"
    return Html(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", words)


def _cell(said: Message | None) -> str:
    if said is None:
        return show(None)
    words = (
        f"{show(said.usage.n_output_tokens)} tokens{', cut' if said.is_complete is False else ''}"
    )
    return f"{html.escape(said.content) or '<i>says nothing</i>'}<br><small>{words}</small>"


def _sides(ws: Workspace, targets: Sequence[Target]) -> list[Target]:
    """Return the targets; what was trained, alone, with its base model before it."""
    job_id = job_of(targets[0])
    if len(targets) > 1 or job_id is None:
        return [*targets]
    return [trainers.status(ws, job_id).model, targets[0]]


def _held_out(ws: Workspace, targets: Sequence[Target]) -> list[Chat]:
    """Return what the first held-out rows of a job ask, where there is one."""
    numbers = [number for number in map(job_of, targets) if number is not None]
    version = trainers.status(ws, numbers[0]).held_out_version_id if numbers else None
    found: list[Chat] = []
    for row in datasets.rows(ws, version) if version is not None else ():
        if messages(row) and not row.get("tools"):
            found.append(messages(row)[:-1])
        if len(found) == N_HELD_OUT:
            break
    return found

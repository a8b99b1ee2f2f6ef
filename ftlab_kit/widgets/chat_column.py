"""One model of a playground: its conversation, the answer as it grows, and figures about it."""

import html
import time
from typing import Any

import ipywidgets

from ftlab_kit.chats import ChatModel, Target
from ftlab_kit.records import Checkpoint, Export, Job, Message, Model, show
from ftlab_kit.widgets.display import show_status

REFRESH_S = 0.1  # between two updates of an answer that grows
TEXT = 'style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.4"'

Chat = list[dict[str, Any]]


class Column(ipywidgets.VBox):  # type: ignore[misc]
    """One model: its name, its conversation, and a line for figures and errors."""

    def __init__(self, target: Target) -> None:
        """Show the name; the model itself is opened later."""
        self.target = target
        self.chat_model: ChatModel | None = None
        self.turns: Chat = []  # without the system turn, which may change
        self._prompt, self._answer, self._drawn_at = "", "", 0.0
        self._head, self.past, self.now, self.line = (ipywidgets.HTML() for _ in range(4))
        conversation = ipywidgets.VBox(
            [self.past, self.now], layout=ipywidgets.Layout(flex="0 0 auto", overflow="visible")
        )
        # a reversed column stays scrolled to its end while it grows
        scroll = ipywidgets.Layout(flex_flow="column-reverse", overflow="auto", max_height="420px")
        super().__init__([self._head, ipywidgets.Box([conversation], layout=scroll), self.line])
        self.set_label(_name(target))

    def set_label(self, label: str) -> None:
        """Show the model's name."""
        self.label = label
        self._head.value = f"<b>{html.escape(label)}</b>"

    def begin_turn(self, prompt: str) -> Chat:
        """Show a prompt, and return the conversation that the model is to answer."""
        self._prompt, self._answer = prompt, ""
        self._draw()
        show_status(self.line, "")
        return [*self.turns, user_turn(prompt)]

    def add(self, piece: str) -> None:
        """Add a piece to the answer, and show it unless the answer was drawn just now."""
        self._answer += piece
        if time.perf_counter() - self._drawn_at >= REFRESH_S:
            self._draw()

    def end_turn(self, footer: str) -> None:
        """Move the answer to the conversation, with a footer below it.

        A prompt without an answer is dropped: no chat has two prompts in a row.
        """
        if answer := self._answer.strip():
            self.turns += [user_turn(self._prompt), {"role": "assistant", "content": answer}]
        self._draw()
        self.past.value += f"{self.now.value}<div><small>{html.escape(footer)}</small></div>"
        self.now.value = ""

    def clear(self) -> None:
        """Forget the conversation."""
        self.turns, self.past.value, self.now.value, self.line.value = [], "", "", ""

    @property
    def n_tokens(self) -> int | None:
        """Tokens of the answer so far; None for a hosted model, whose tokenizer is not here."""
        tokenizer = self.chat_model.tokenizer if self.chat_model else None
        return len(tokenizer(self._answer)["input_ids"]) if tokenizer else None

    def _draw(self) -> None:
        self._drawn_at = time.perf_counter()
        answer = _turn(self.label, self._answer) if self._answer else ""
        self.now.value = _turn("you", self._prompt) + answer


def user_turn(text: str) -> dict[str, Any]:
    """Return a person's turn of a chat."""
    return {"role": "user", "content": text}


def _turn(author: str, text: str) -> str:
    return f"<div {TEXT}><b>{html.escape(author)}</b>\n{html.escape(text)}</div>"


def footer(message: Message) -> str:
    """Return length, speed, cost and what is special about a complete answer."""
    text = speed(message.usage.n_output_tokens, message.seconds)
    text += "" if message.content else ", empty answer"
    text += ", cut at max_new_tokens" if message.is_complete is False else ""
    text += f", without {', '.join(message.left_out)}" if message.left_out else ""
    cost = message.usage.cost_usd
    return text + (f", {cost:.6f} USD" if cost is not None else "")


def speed(n_tokens: int | None, seconds: float) -> str:
    """Return an answer's length, duration and speed."""
    rate = None if n_tokens is None or not seconds else n_tokens / seconds
    return f"{show(n_tokens)} tokens, {seconds:.1f} s, {show(rate)} tokens/s"


def job_of(target: Target) -> int | None:
    """Return the number of the job that a target comes from."""
    if isinstance(target, Checkpoint | Export):
        return target.job_id
    if isinstance(target, Job):
        return target.id
    if isinstance(target, str) and target.isdigit():
        return int(target)
    return target if isinstance(target, int) else None


def _name(target: Target) -> str:
    """Return a target's name before its model is open."""
    if isinstance(target, Checkpoint | Export):
        return f"job {target.job_id}, step {target.step}"
    if isinstance(target, Model):
        return target.id
    job_id = job_of(target)
    return str(target) if job_id is None else f"job {job_id}"

"""One model of a playground: its conversation as it goes on, and what there is to say about it."""

import html
import time
from typing import Any

import ipywidgets

from ftlab_kit.chats import ChatModel, Target
from ftlab_kit.records import Checkpoint, Export, Job, Message, Model, show
from ftlab_kit.widgets.display import say

REFRESH_S = 0.1  # between two pictures of an answer that grows
TEXT = 'style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.4"'

Chat = list[dict[str, Any]]


class Column(ipywidgets.VBox):  # type: ignore[misc]
    """One model: its name, its conversation, and what there is to say about it."""

    def __init__(self, target: Target) -> None:
        """Show the name; the model itself comes later."""
        self.target = target
        self.speaker: ChatModel | None = None
        self.turns: Chat = []  # what the model is told again; the system turn may change
        self._asked, self._answer, self._shown = "", "", 0.0
        self._head, self.past, self.now, self.line = (ipywidgets.HTML() for _ in range(4))
        said = ipywidgets.VBox(
            [self.past, self.now], layout=ipywidgets.Layout(flex="0 0 auto", overflow="visible")
        )
        # what scrolls in a reversed column stays at its end while it grows
        scroll = ipywidgets.Layout(flex_flow="column-reverse", overflow="auto", max_height="420px")
        super().__init__([self._head, ipywidgets.Box([said], layout=scroll), self.line])
        self.call(_name(target))

    def call(self, label: str) -> None:
        """Show what the model is called."""
        self.label = label
        self._head.value = f"<b>{html.escape(label)}</b>"

    def ask(self, text: str) -> Chat:
        """Show what is asked, and return the conversation that the model is told."""
        self._asked, self._answer = text, ""
        self._draw()
        say(self.line, "status", "")
        return [*self.turns, asked(text)]

    def add(self, piece: str) -> None:
        """Show the answer with one more piece, unless it was shown just now."""
        self._answer += piece
        if time.perf_counter() - self._shown >= REFRESH_S:
            self._draw()

    def end(self, words: str) -> None:
        """Put the answer to what was said before, with some words beneath it.

        A turn without an answer is not told to the model again: the next one would follow it.
        """
        if answer := self._answer.strip():
            self.turns += [asked(self._asked), {"role": "assistant", "content": answer}]
        self._draw()
        self.past.value += f"{self.now.value}<div><small>{html.escape(words)}</small></div>"
        self.now.value = ""

    def clear(self) -> None:
        """Forget the conversation."""
        self.turns, self.past.value, self.now.value, self.line.value = [], "", "", ""

    @property
    def n_tokens(self) -> int | None:
        """How many tokens the answer has as far as it came; None of a model that is elsewhere."""
        tokenizer = self.speaker.tokenizer if self.speaker else None
        return len(tokenizer(self._answer)["input_ids"]) if tokenizer else None

    def _draw(self) -> None:
        self._shown = time.perf_counter()
        answer = _turn(self.label, self._answer) if self._answer else ""
        self.now.value = _turn("you", self._asked) + answer


def asked(text: str) -> dict[str, Any]:
    """Return a person's turn."""
    return {"role": "user", "content": text}


def _turn(who: str, text: str) -> str:
    return f"<div {TEXT}><b>{html.escape(who)}</b>\n{html.escape(text)}</div>"


def words_of(said: Message) -> str:
    """Return what there is to say about an answer that came to its end."""
    words = speed(said.usage.n_output_tokens, said.seconds)
    words += "" if said.content else ", says nothing"
    words += ", cut at max_new_tokens" if said.is_complete is False else ""
    words += f", without {', '.join(said.left_out)}" if said.left_out else ""
    return words + (f", {said.usage.cost_usd:.6f} USD" if said.usage.cost_usd is not None else "")


def speed(n_tokens: int | None, seconds: float) -> str:
    """Return how much was said, how long it took, and how fast that is."""
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
    """Return what a target is called before it is there."""
    if isinstance(target, Checkpoint | Export):
        return f"job {target.job_id}, step {target.step}"
    if isinstance(target, Model):
        return target.id
    job_id = job_of(target)
    return str(target) if job_id is None else f"job {job_id}"

"""From a chat to tokens and the ones that are trained: the only place where that is decided.

Training, preflight and evaluation all call `encode`. Every assistant turn is trained, with the end
token that closes it; everything else is context.

T: tokens of one chat.
"""

from dataclasses import dataclass
from typing import Any

from ftlab_kit.errors import DataError

Chat = list[dict[str, str]]
IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chat as tokens, cut to the maximal length.

    `n_cut` counts the trained tokens that the cut took away; `has_end` tells whether every trained
    answer that is whole ends with a special token.
    """

    input_ids: list[int]  # (T,)
    labels: list[int]  # (T,), IGNORED where not trained
    n_cut: int
    has_end: bool

    @property
    def n_trained(self) -> int:
        """The number of trained tokens."""
        return sum(label != IGNORED for label in self.labels)


def prompt(tokenizer: Any, messages: Chat) -> str:
    """Return the text after which the model is to answer the last user turn."""
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def encode(tokenizer: Any, messages: Chat, max_length: int | None = None) -> Encoded:
    """Return a chat's tokens and labels, from one rendering and one tokenisation.

    Where an answer begins is where the template's own generation prompt ends, so that the model
    learns to answer exactly what it will be asked.

    Raises:
        DataError: The template renders an answer so that it can't be found again.
    """
    text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    spans = [
        _span(tokenizer, text, messages, index)
        for index, turn in enumerate(messages)
        if turn["role"] == "assistant"
    ]
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    special = set(tokenizer.all_special_ids)
    labels, has_end, position = [], True, 0
    open_end = False
    for token, (start, _) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True):
        while position < len(spans) and start >= spans[position][1]:
            position += 1
        is_answer = position < len(spans) and start >= spans[position][0]
        closes = open_end and not is_answer and token in special
        if open_end and not is_answer:
            has_end &= closes
        labels.append(token if is_answer or closes else IGNORED)
        open_end = is_answer
    has_end &= not open_end
    cut = labels[max_length:] if max_length else []
    return Encoded(
        input_ids=tokens["input_ids"][:max_length],
        labels=labels[:max_length],
        n_cut=sum(label != IGNORED for label in cut),
        has_end=has_end,
    )


def _span(tokenizer: Any, text: str, messages: Chat, index: int) -> tuple[int, int]:
    """Return where the answer at a turn begins and ends in the rendered chat, in characters."""
    before = prompt(tokenizer, messages[:index])
    content = messages[index]["content"]
    start = len(before)
    found = text.find(content, start)
    if found < 0:
        found = text.find(content.strip(), start)
        content = content.strip()
    if not text.startswith(before) or found < 0:
        raise DataError(
            f"The chat template changes the turns before answer {index}, so that the answer can't "
            "be found in the rendered chat; expected a template that only appends. "
            "Use single-turn rows with this model, or a template that leaves earlier turns alone."
        )
    return start, found + len(content)

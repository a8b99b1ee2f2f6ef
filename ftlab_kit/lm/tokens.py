"""A chat as tokens, and which of them are trained: the only place that decides it.

Training, preflight, evaluation and the token mask all use this. Every assistant turn is trained,
with the end token that closes it, unless it has `"train": false`; everything else is context. In a
text without turns every token is trained.

T: tokens of one chat.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab_kit.errors import DataError

Chat = list[dict[str, Any]]
IGNORED = -100  # the label that torch's cross-entropy leaves out
# the files in a model's folder that decide how a chat becomes tokens
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
    "added_tokens.json",
    "vocab*",
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chat as tokens, cut to a maximal length.

    `n_cut` counts the trained tokens that were cut off. `has_end` is true if every trained answer
    ends with a special token, the cut aside.
    """

    input_ids: list[int]  # (T,)
    labels: list[int]  # (T,), IGNORED where not trained
    n_cut: int
    has_end: bool

    @property
    def n_trained(self) -> int:
        """The number of trained tokens."""
        return sum(label != IGNORED for label in self.labels)


def prompt(tokenizer: Any, messages: Chat, *, tools: Any = None) -> str:
    """Return the chat as text, up to where the model answers the last user turn."""
    return _render(tokenizer, messages, tools=tools, add_generation_prompt=True)


def _render(tokenizer: Any, messages: Chat, **options: Any) -> str:
    from jinja2 import TemplateError

    # `train` is for this module alone: a template might print it
    turns = [{name: turn[name] for name in turn if name != "train"} for turn in messages]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, **options)
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in messages)
        raise DataError(
            f"The model's chat template refuses a row with the roles {roles} ({error}). "
            "Put a system turn's text into the first user turn, or take another model."
        ) from error
    return text


def encode(
    tokenizer: Any, messages: Chat, max_length: int | None = None, *, tools: Any = None
) -> Encoded:
    """Return a chat's tokens and labels, from one rendering and one tokenisation.

    An answer begins where the template's own generation prompt ends, so that the model is trained
    on exactly the prompt that it will get.

    Args:
        tokenizer: The model's.
        messages: The turns of the chat.
        max_length: Tokens after these are cut off; None cuts nothing.
        tools: Schemas of the functions that the assistant may call, for the template.

    Raises:
        DataError: The template refuses the chat, or changes an answer beyond recognition.
    """
    text = _render(tokenizer, messages, tools=tools)
    _check_tools(text, tools or [])
    spans = [
        _span(tokenizer, text, messages, index, tools)
        for index, turn in enumerate(messages)
        if turn["role"] == "assistant" and turn.get("train", True)
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
    return _cut(tokens["input_ids"], labels, max_length, has_end=has_end)


def _check_tools(text: str, tools: Any) -> None:
    names = [str(tool.get("function", tool).get("name")) for tool in tools]
    absent = [name for name in names if name not in text]
    if absent:
        raise DataError(
            f"The model's chat template leaves out the tools of a row ({', '.join(absent)}); "
            "expected a template that shows them. Take a model with tools, or rows without."
        )


def plain(tokenizer: Any, text: str, max_length: int | None = None) -> Encoded:
    """Return the tokens of a text without turns, all trained, with the end token of a text."""
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return _cut(ids, [*ids], max_length, has_end=True)


def _cut(ids: list[int], labels: list[int], max_length: int | None, *, has_end: bool) -> Encoded:
    cut = labels[max_length:] if max_length else []
    return Encoded(
        input_ids=ids[:max_length],
        labels=labels[:max_length],
        n_cut=sum(label != IGNORED for label in cut),
        has_end=has_end,
    )


def _span(tokenizer: Any, text: str, messages: Chat, index: int, tools: Any) -> tuple[int, int]:
    """Return where the answer at a turn begins and ends in the rendered chat, in characters."""
    before = prompt(tokenizer, messages[:index], tools=tools)
    content, start = messages[index]["content"], len(before)
    if text.startswith(before):
        if messages[index].get("tool_calls"):
            return start, _end_of_calls(tokenizer, text, messages[: index + 1], tools)
        if text.startswith(content, start):
            return start, start + len(content)
        # many templates strip the content, and some put a space before it
        stripped = content.strip()
        content_start = start + len(text[start:]) - len(text[start:].lstrip())
        if text.startswith(stripped, content_start):
            return start, content_start + len(stripped)
    raise DataError(
        f"The chat template changes the turns before answer {index}, so that the answer can't "
        "be found in the rendered chat; expected a template that only appends. "
        "Use single-turn rows with this model, or a template that leaves earlier turns unchanged."
    )


def _end_of_calls(tokenizer: Any, text: str, messages: Chat, tools: Any) -> int:
    """Return where a turn that calls tools ends, before the special token that closes it."""
    rendered = _render(tokenizer, messages, tools=tools)
    start = len(prompt(tokenizer, messages[:-1], tools=tools))
    turn = rendered[start:].rstrip()
    for token in tokenizer.all_special_tokens:
        turn = turn.removesuffix(token)
    names = [call["function"]["name"] for call in messages[-1]["tool_calls"]]
    if not text.startswith(rendered.rstrip()) or not all(name in turn for name in names):
        raise DataError(
            f"The model's chat template does not write the call of {', '.join(names)} at turn "
            f"{len(messages) - 1}; expected a template that supports tools, else the model would "
            "be trained on an empty answer. Take a model with tools, or leave such rows out."
        )
    return start + len(turn)


def end_tokens(tokenizer: Any, model: Any) -> list[int]:
    """Return every token that ends an answer: the template's, the tokenizer's and the model's."""
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    closing = [label for label in encode(tokenizer, chat).labels if label != IGNORED][-1]
    configured = model.generation_config.eos_token_id
    if closing not in tokenizer.all_special_ids:
        closing = tokenizer.eos_token_id
    return sorted({closing, tokenizer.eos_token_id, *_as_list(configured)})


def _as_list(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def fingerprint(folder: Path) -> str:
    """Return a hash of everything in a model's folder that decides its tokens.

    Two models with the same fingerprint turn every chat into the same tokens, so their cached
    tokens can be shared and their losses per token compared.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(path.name.encode() + content)
    return digest.hexdigest()[:16]

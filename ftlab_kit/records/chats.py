"""Records of chats: a model's answer, its tokens and its cost."""

from dataclasses import dataclass

from ftlab_kit.records.shown import Record


@dataclass(frozen=True, slots=True)
class Usage(Record):
    """Tokens and cost of an answer. Reasoning tokens count as output; the cost is the list price.

    None is what the server does not report, or what has no known price.
    """

    n_input_tokens: int | None
    n_output_tokens: int | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Message(Record):
    """A chat model's answer. `is_complete` is whether it ended by itself, None if not known.

    `left_out` names the settings that the model does not support and that were not sent.
    """

    role: str
    content: str
    usage: Usage
    is_complete: bool | None
    seconds: float
    left_out: tuple[str, ...] = ()

"""Records of chats: what was said, and what it took."""

from dataclasses import dataclass

from ftlab_kit.records.shown import Record


@dataclass(frozen=True, slots=True)
class Usage(Record):
    """What an answer took. A thinking model's thoughts are output; the cost is the list price.

    None is what the server does not say, or what has no known price.
    """

    n_input_tokens: int | None
    n_output_tokens: int | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Message(Record):
    """What a chat model said. `is_complete` tells whether it ended by itself, None if not known.

    `left_out` names the settings that the model takes none of, and that it answered without.
    """

    role: str
    content: str
    usage: Usage
    is_complete: bool | None
    seconds: float
    left_out: tuple[str, ...] = ()

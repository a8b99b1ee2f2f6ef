"""What answers a chat, and what passes between the files of this room.

Every chat model answers chats. One whose weights are on this machine has a `model` too, so that
likelihoods can be computed; a hosted one returns text only.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Checkpoint, Export, Job, Message, Model, OnProgress

# what a verb of this room can be pointed at
Target = Job | Model | Checkpoint | Export | Path | int | str
Turns = Sequence[dict[str, Any]]

OUT_OF_TIME = "Not sent: the time was up. Allow more with max_seconds."


@dataclass(frozen=True, slots=True)
class Completion:
    """What a provider's response holds; None is what it does not report."""

    text: str
    is_complete: bool | None
    n_input_tokens: int | None
    n_output_tokens: int | None
    n_cached_tokens: int = 0


class ChatModel(ABC):
    """A model that answers chats: close it, or leave its block, to give its memory back.

    Args:
        label: How the model is shown.
    """

    label: str
    job_id: int | None = None
    step: int | None = None
    # of a hosted model these three stay None
    model: Any = None
    tokenizer: Any = None
    folder: Path | None = None
    cost_usd: float | None = None  # of all answers so far; None where a part is not known
    reasons: dict[int, str]  # for each chat of the last `answers` without an answer, why

    def __init__(self, label: str) -> None:
        self.label = label
        self.reasons = {}

    @abstractmethod
    def answers(
        self,
        chats: Sequence[Turns],
        settings: GenerationSettings,
        progress: OnProgress | None = None,
        *,
        tools: Sequence[Any] | None = None,
    ) -> list[Message | None]:
        """Return the answer to each chat, None where there is none, with the reason in `reasons`.

        Args:
            chats: The turns of each chat.
            settings: How answers are generated.
            progress: Called with the number of chats answered.
            tools: For each chat the functions that may be called, or None.
        """

    @abstractmethod
    def stream(self, chat: Turns, settings: GenerationSettings) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces of whole characters, and return the message.

        The pieces joined are what `answers` returns, except for white space at both ends.
        """

    @abstractmethod
    def close(self) -> None:
        """Give memory and files back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""A model whose weights are on this machine: loaded once, used for many chats."""

import gc
from collections.abc import Generator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ftlab_kit import device
from ftlab_kit.chats.protocol import OUT_OF_TIME, ChatModel, Turns
from ftlab_kit.errors import Conflict
from ftlab_kit.lm import adapters, generation, loading, tokens
from ftlab_kit.lm.generation import Completion
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message, OnProgress, Usage


class Local(ChatModel):
    """A model whose weights are on this machine."""

    def __init__(
        self,
        label: str,
        folder: Path,
        *,
        checkpoint: Path | None = None,
        scratch: "TemporaryDirectory[str] | None" = None,
    ) -> None:
        """Load a model.

        Args:
            label: How it is shown.
            folder: The base model's files.
            checkpoint: The folder of a checkpoint that was trained from it.
            scratch: A folder that is removed on close.
        """
        super().__init__(label)
        self.folder, self._scratch = folder, scratch
        # a GPU answers in the precision it trains in, a processor in the one that is exact there
        dtype = adapters.weight_dtype(device.precision("auto"), adapter="lora")
        loaded = (
            loading.load_trained(folder, checkpoint, dtype=dtype)
            if checkpoint
            else loading.load(folder, dtype=dtype)
        )
        self.model = loaded.to(device.kind())
        self.tokenizer = loading.tokenizer(folder)

    def answers(
        self,
        chats: Sequence[Turns],
        settings: GenerationSettings,
        progress: OnProgress | None = None,
        *,
        tools: Sequence[Any] | None = None,
    ) -> list[Message | None]:
        """Return the answer to each chat, None where the time did not suffice."""
        tools = tools or [None] * len(chats)
        prompts = [self._prompt(chat, each) for chat, each in zip(chats, tools, strict=True)]
        answers = generation.complete(
            self.model, self.tokenizer, prompts, settings, progress=progress
        )
        self.reasons = {
            number: OUT_OF_TIME for number, answer in enumerate(answers) if answer is None
        }
        return [_message(answer) if answer else None for answer in answers]

    def stream(self, chat: Turns, settings: GenerationSettings) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces, as it is generated, and return the message."""
        pieces = generation.stream(self.model, self.tokenizer, self._prompt(chat), settings)
        return _message((yield from pieces))

    def close(self) -> None:
        """Give the memory back, and remove what a GGUF file was unpacked into."""
        self.model = None
        gc.collect()  # adapted layers refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _prompt(self, chat: Turns, tools: Any = None) -> str:
        if self.model is None:
            raise Conflict(
                f"{self.label} is closed and its memory given back; expected an open model. "
                "Open it again with chats.open."
            )
        return tokens.prompt(self.tokenizer, [*chat], tools=tools)


def _message(answer: Completion) -> Message:
    usage = Usage(answer.n_input_tokens, answer.n_output_tokens, None)
    return Message("assistant", answer.text, usage, answer.is_complete, answer.seconds)

"""A model whose weights are here: loaded once, asked as often as one likes."""

import gc
from collections.abc import Generator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ftlab_kit import device
from ftlab_kit.chats.targets import LATE, ChatModel, Chats, Progress
from ftlab_kit.errors import Conflict
from ftlab_kit.lm import generation, loading, tokens
from ftlab_kit.lm.generation import Answer
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message, Usage


class Local(ChatModel):
    """A model whose weights are here."""

    def __init__(
        self,
        label: str,
        folder: Path,
        *,
        learnt: Path | None = None,
        scratch: "TemporaryDirectory[str] | None" = None,
    ) -> None:
        """Load a folder, with what a checkpoint has learnt where there is one.

        Args:
            scratch: What is to be removed in the end.
        """
        self.label, self.folder, self._scratch = label, folder, scratch
        self.job_id = self.step = self.cost_usd = None
        self.reasons = {}
        # a GPU answers in the type it trains in, a processor in the one it is exact in
        dtype = loading.dtype(device.precision("auto"), adapter="lora")
        loaded = (
            loading.load_trained(folder, learnt, dtype=dtype)
            if learnt
            else loading.load(folder, dtype=dtype)
        )
        self.model = loaded.to(device.kind())
        self.tokenizer = loading.tokenizer(folder)

    def answers(
        self,
        chats: Chats,
        manner: GenerationSettings,
        progress: Progress | None = None,
        *,
        tools: Any = None,
    ) -> list[Message | None]:
        """Return the answer to each chat, None where the time did not suffice."""
        given = tools or [None] * len(chats)
        prompts = [self._prompt(chat, each) for chat, each in zip(chats, given, strict=True)]
        found = generation.answers(self.model, self.tokenizer, prompts, manner, progress=progress)
        self.reasons = {number: LATE for number, item in enumerate(found) if item is None}
        return [_message(item) if item else None for item in found]

    def stream(
        self, chat: Sequence[dict[str, Any]], manner: GenerationSettings
    ) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces, as it is made, and return it."""
        prompt = self._prompt(chat)
        return _message((yield from generation.stream(self.model, self.tokenizer, prompt, manner)))

    def close(self) -> None:
        """Give the memory back, and remove what a GGUF was unpacked into."""
        self.model = None
        gc.collect()  # adapted layers refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _prompt(self, chat: Sequence[dict[str, Any]], tools: Any = None) -> str:
        if self.model is None:
            raise Conflict(
                f"{self.label} is closed, and its weights are given back; expected one that is "
                "open. Open it again with chats.open."
            )
        return tokens.prompt(self.tokenizer, [*chat], tools=tools)


def _message(said: Answer) -> Message:
    usage = Usage(said.n_input_tokens, said.n_tokens, None)
    return Message("assistant", said.text, usage, said.is_complete, said.seconds)

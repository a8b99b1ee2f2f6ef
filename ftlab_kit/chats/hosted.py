"""A chat model that is served elsewhere: asked over a line, a few chats at a time.

Every answer is paid for. So what was answered is kept whatever happens to the other chats, and no
more are asked where one fails that would fail all (key, credit, name, address), or the server fails
some in a row.
"""

import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from ftlab_kit.chats.connection import ProviderClient
from ftlab_kit.chats.provider_errors import ProviderError
from ftlab_kit.chats.requests import address, turns
from ftlab_kit.chats.targets import LATE, ChatModel, Chats, Progress
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message

AT_ONCE = 4
PATIENCE = 8  # so many chats in a row that a server fails, and it is not asked again

Turns = list[dict[str, str]]


class Hosted(ChatModel):
    """A hosted chat model; nothing is asked before its first chat."""

    def __init__(self, name: str) -> None:
        """Take its name.

        Raises:
            InputError: It is none.
        """
        address(name)
        self.label = name
        self.model = self.tokenizer = self.folder = None
        self.job_id = self.step = None
        self.cost_usd: float | None = None
        self.reasons = {}
        self._costs: list[float | None] = []

    def answers(
        self,
        chats: Chats,
        manner: GenerationSettings,
        progress: Progress | None = None,
        *,
        tools: Any = None,
    ) -> list[Message | None]:
        """Return the answer to each chat, None where there is none, with the reason in `reasons`.

        Raises:
            InputError: The rows have tools, which are not sent, or turns are no chat.
            KitError: Not a single chat was answered; the first reason.
        """
        if any(tools or ()):
            raise InputError(
                f"These rows give the model tools, and {self.label} would be asked without them; "
                "expected rows without tools. Filter them out with datasets.filter."
            )
        known = [_turns(number, chat, len(chats)) for number, chat in enumerate(chats)]
        with ProviderClient(self.label, manner) as line:
            found = _all(line, known, progress)
        faults = [item for item in found if isinstance(item, ProviderError)]
        answers = [item if isinstance(item, Message) else None for item in found]
        if faults and not any(answers):
            raise faults[0].error from faults[0].__cause__
        self._note([item.usage.cost_usd for item in answers if item])
        self.reasons = {
            number: str(item or LATE)
            for number, item in enumerate(found)
            if not isinstance(item, Message)
        }
        return answers

    def stream(
        self, chat: Sequence[dict[str, Any]], manner: GenerationSettings
    ) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces, as they come, and return it.

        Raises:
            KitError: There is none, or it broke off.
        """
        asked, cost_usd = turns(chat), None
        with ProviderClient(self.label, manner) as line:
            try:
                message = yield from line.stream(asked)
                cost_usd = message.usage.cost_usd
            except ProviderError as refusal:
                raise refusal.error from refusal.__cause__
            finally:  # what was stopped is paid for too, and no one says how much
                self._note([cost_usd])
        return message

    def close(self) -> None:
        """There is nothing to give back."""

    def _note(self, costs: Sequence[float | None]) -> None:
        self._costs += costs
        known = [cost for cost in self._costs if cost is not None]
        # a part of the bill is no bill
        self.cost_usd = sum(known) if known and len(known) == len(self._costs) else None


def _turns(number: int, chat: Sequence[dict[str, Any]], n_chats: int) -> Turns:
    try:
        return turns(chat)
    except InputError as error:
        raise error if n_chats == 1 else InputError(f"Chat {number}: {error}") from None


def _all(
    line: ProviderClient, chats: Sequence[Turns], progress: Progress | None
) -> list[Message | ProviderError | None]:
    """Return a message or a refusal for each chat, None for one that was not asked any more."""
    stopped: list[ProviderError] = []
    began, limit_s, in_a_row = time.monotonic(), line.manner.max_seconds, 0

    def ask(chat: Turns) -> Message | ProviderError | None:
        if stopped:
            return stopped[0].again()
        if limit_s is not None and time.monotonic() - began > limit_s:
            return None
        try:
            return line.ask(chat)
        except ProviderError as refusal:
            return refusal

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        waiting = [pool.submit(ask, chat) for chat in chats]
        for done, future in enumerate(as_completed(waiting), 1):
            item = future.result()
            if isinstance(item, Message):
                in_a_row = 0
            elif item is not None:
                in_a_row += isinstance(item.error, Unavailable)
                if item.is_for_all or in_a_row >= PATIENCE:
                    stopped.append(item)
            if progress:
                progress(done, len(waiting))
        return [future.result() for future in waiting]
    finally:
        # who interrupts does not wait for what is on its way
        pool.shutdown(wait=False, cancel_futures=True)

"""A chat model that is served elsewhere: a few chats at a time over one connection.

Every answer is paid for. So each answer that arrives is returned, whatever happens to the other
chats. No more are sent where one fails in a way that all would (key, credit, name, address), or the
server fails several in a row.
"""

import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from ftlab_kit.chats.connection import ProviderClient
from ftlab_kit.chats.protocol import OUT_OF_TIME, ChatModel, Turns
from ftlab_kit.chats.provider_errors import ProviderError
from ftlab_kit.chats.requests import address, turns
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message, OnProgress, Progress

N_AT_ONCE = 4
MAX_FAILURES = 8  # chats in a row that the server fails before no more are sent


class Hosted(ChatModel):
    """A hosted chat model; nothing is sent before its first chat."""

    def __init__(self, name: str) -> None:
        """Take the model's name.

        Raises:
            InputError: It is not the name of a hosted model.
        """
        address(name)
        super().__init__(name)
        self._costs: list[float | None] = []

    def answers(
        self,
        chats: Sequence[Turns],
        settings: GenerationSettings,
        progress: OnProgress | None = None,
        *,
        tools: Sequence[Any] | None = None,
    ) -> list[Message | None]:
        """Return the answer to each chat, None where there is none, with the reason in `reasons`.

        Raises:
            InputError: The rows have tools, which are not sent, or a chat is malformed.
            KitError: Not a single chat was answered; the first reason.
        """
        if any(tools or ()):
            raise InputError(
                f"These rows give the model tools, which {self.label} would not be sent; expected "
                "rows without tools. Filter them out with datasets.filter."
            )
        requests = [_turns(number, chat, len(chats)) for number, chat in enumerate(chats)]
        with ProviderClient(self.label, settings) as client:
            outcomes = _all(client, requests, progress)
        errors = [outcome for outcome in outcomes if isinstance(outcome, ProviderError)]
        messages = [outcome if isinstance(outcome, Message) else None for outcome in outcomes]
        if errors and not any(messages):
            raise errors[0].error from errors[0].__cause__
        self._add_costs([message.usage.cost_usd for message in messages if message])
        self.reasons = {
            number: str(outcome or OUT_OF_TIME)
            for number, outcome in enumerate(outcomes)
            if not isinstance(outcome, Message)
        }
        return messages

    def stream(self, chat: Turns, settings: GenerationSettings) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces, as they come, and return the message.

        Raises:
            KitError: There is none, or it broke off.
        """
        request, cost_usd = turns(chat), None
        with ProviderClient(self.label, settings) as client:
            try:
                message = yield from client.stream(request)
                cost_usd = message.usage.cost_usd
            except ProviderError as error:
                raise error.error from error.__cause__
            finally:  # a stopped answer is paid for too, and the server no longer says how much
                self._add_costs([cost_usd])
        return message

    def close(self) -> None:
        """There is nothing to give back."""

    def _add_costs(self, costs: Sequence[float | None]) -> None:
        self._costs += costs
        known_usd = [cost for cost in self._costs if cost is not None]
        # part of a bill is not the bill
        is_whole = known_usd and len(known_usd) == len(self._costs)
        self.cost_usd = sum(known_usd) if is_whole else None


def _turns(number: int, chat: Turns, n_chats: int) -> list[dict[str, str]]:
    try:
        return turns(chat)
    except InputError as error:
        raise error if n_chats == 1 else InputError(f"Chat {number}: {error}") from None


def _all(
    client: ProviderClient, chats: Sequence[list[dict[str, str]]], progress: OnProgress | None
) -> list[Message | ProviderError | None]:
    """Return a message or an error for each chat, None for one that ran out of time."""
    stopped_by: list[ProviderError] = []
    began, limit_s, n_failures = time.monotonic(), client.settings.max_seconds, 0

    def reply(chat: list[dict[str, str]]) -> Message | ProviderError | None:
        if stopped_by:
            return stopped_by[0].again()
        if limit_s is not None and time.monotonic() - began > limit_s:
            return None
        try:
            return client.reply(chat)
        except ProviderError as error:
            return error

    pool = ThreadPoolExecutor(N_AT_ONCE)
    try:
        futures = [pool.submit(reply, chat) for chat in chats]
        for done, future in enumerate(as_completed(futures), 1):
            outcome = future.result()
            if isinstance(outcome, Message):
                n_failures = 0
            elif outcome is not None:
                n_failures += isinstance(outcome.error, Unavailable)
                if outcome.is_for_all or n_failures >= MAX_FAILURES:
                    stopped_by.append(outcome)
            if progress:
                progress(Progress("answers", done, len(futures)))
        return [future.result() for future in futures]
    finally:
        # an interrupt does not wait for requests that are on their way
        pool.shutdown(wait=False, cancel_futures=True)

"""Hosted chat models: `provider:name`, or `provider:name@https://...` for one at another address.

`openai` is OpenAI and whatever speaks its protocol: vLLM, Ollama, an endpoint at RunPod. The key is
that of the SDK's own environment variable, and goes to the address that is asked.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Unpack

from ftlab_kit.chats.asked import PROVIDERS, Manner, Wishes, turns
from ftlab_kit.chats.line import Line
from ftlab_kit.chats.refusals import Refusal
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.records import Message
from ftlab_kit.workspace import Workspace

AT_ONCE = 4
PATIENCE = 8  # so many chats in a row that a server fails, and it is not asked again
LATE = "Not asked: the time was up. Give more with max_seconds."

Chat = Sequence[dict[str, Any]]


def is_hosted(name: str) -> bool:
    """Return whether a name is that of a hosted chat model."""
    provider, colon, _ = name.partition(":")
    return bool(colon) and provider in PROVIDERS


def reply(ws: Workspace, model: str, messages: Chat, **manner: Unpack[Wishes]) -> Message:
    """Return what a hosted model says to a chat.

    A setting that the model takes none of is left out, and named in the message.

    Args:
        model: `provider:name` or `provider:name@url`; the url up to and with its /v1.
        messages: Turns of system, user and assistant with their content.
        manner: max_new_tokens, temperature, seed, and the timeout_s of one try of four.

    Raises:
        InputError: No such provider, turns that are no chat, or a chat that the provider refuses.
        NotFound: It has no such model.
        Unavailable: No key, no credit, or no answer even after more tries.
    """
    chat = turns(messages)
    with Line(model, Manner(**manner)) as line:
        try:
            return line.ask(chat)
        except Refusal as refusal:
            raise refusal.error from refusal.__cause__


def replies(
    ws: Workspace,
    model: str,
    chats: Sequence[Chat],
    *,
    progress: Callable[[int, int], None] | None = None,
    refused: Callable[[int, str], None] | None = None,
    **manner: Unpack[Wishes],
) -> list[Message | None]:
    """Return what a hosted model says to each chat, a few at a time, in the order of the chats.

    What was answered is kept whatever happens to the other chats: one without an answer is None.
    No more are asked where one fails that would fail all (key, credit, name, address), or the
    server fails eight in a row.

    Args:
        progress: Called with chats done and chats in all.
        refused: Called with the number of each chat without an answer, from 0, and why.
        manner: As in `reply`; after max_seconds no chat is begun any more.

    Raises:
        InputError: No such provider, or turns that are no chat; nothing was sent.
        KitError: Not a single chat was answered; the first reason, as in `reply`.
    """
    known = []
    for number, chat in enumerate(chats):
        try:
            known.append(turns(chat))
        except InputError as error:
            raise InputError(f"Chat {number}: {error}") from None
    with Line(model, Manner(**manner)) as line:
        found = _all(line, known, progress)
    faults = [item for item in found if isinstance(item, Refusal)]
    answers = [item if isinstance(item, Message) else None for item in found]
    if faults and not any(answers):
        raise faults[0].error from faults[0].__cause__
    for number, item in enumerate(found):
        if refused and not isinstance(item, Message):
            refused(number, str(item or LATE))
    return answers


def _all(
    line: Line, chats: Sequence[Chat], progress: Callable[[int, int], None] | None
) -> list[Message | Refusal | None]:
    """Return a message or a refusal for each chat, None for one that was not asked any more."""
    stopped: list[Refusal] = []
    began, limit_s, in_a_row = time.monotonic(), line.manner.max_seconds, 0

    def ask(chat: Chat) -> Message | Refusal | None:
        if stopped:
            return stopped[0].again()
        if limit_s is not None and time.monotonic() - began > limit_s:
            return None
        try:
            return line.ask(chat)
        except Refusal as refusal:
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

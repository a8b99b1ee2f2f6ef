"""Chats: one call sends a chat to any model: a base model, a job, an export, a hosted one.

Hosted models are named `provider:name`, or `provider:name@https://...` for one at another address.
`openai` is OpenAI and every server that speaks its protocol: vLLM, Ollama, an endpoint at RunPod.
The key is read from the SDK's own environment variable, and is sent to that address only.

Each call loads a local model anew; `open` loads it once for many calls.

Other rooms use `ChatModel` and `Target`, and two files: `connection` (`connection.client`, the one
place where a provider's SDK client is made) and `prices` (what tokens cost).
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ftlab_kit.chats import connection, prices, requests, targets
from ftlab_kit.chats.protocol import ChatModel, Completion, Target
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message, OnProgress
from ftlab_kit.workspace import Workspace

__all__ = [
    "ChatModel",
    "Completion",
    "Target",
    "connection",
    "is_hosted",
    "open",
    "prices",
    "replies",
    "reply",
    "stream",
]


def is_hosted(name: str) -> bool:
    """Return whether a name is that of a hosted chat model."""
    return requests.is_hosted(name)


def open(
    ws: Workspace,
    target: Target,
    *,
    checkpoint: str | int = "last",
) -> ChatModel:
    """Return the model that answers for a target, its weights loaded; other verbs take it as one.

        with chats.open(ws, job) as tuned:
            chats.reply(ws, tuned, "My coat leaks.")

    Close it, or leave the block, to give its memory back.

    Args:
        ws: The workspace.
        target: A base model by name, a job (its last checkpoint, or `checkpoint`), a checkpoint, an
            export, the path of a model's folder or GGUF file, or a hosted chat model or deployment
            as `provider:model` or `provider:model@url`, the url up to and with its /v1.
        checkpoint: Of a job: 'last', 'best', or a step.

    Raises:
        InputError: There is no model at the path, or the name of a hosted one is malformed.
        NotFound: There is no such model, job or checkpoint.
        Conflict: The checkpoint is damaged.
    """
    return targets.open_model(ws, target, checkpoint=checkpoint)


def reply(
    ws: Workspace,
    target: Target | ChatModel,
    messages: str | Sequence[dict[str, Any]],
    *,
    checkpoint: str | int = "last",
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    seed: int | None = None,
    timeout_s: float = 120.0,
    max_seconds: float | None = None,
) -> Message:
    """Return a model's answer to a chat.

    A setting that a hosted model does not support is left out, and named in the message.

    Args:
        ws: The workspace.
        target: A model's name, a job, a checkpoint, an export, a path, `provider:model[@url]`, or
            what `open` returned.
        messages: Turns of system, user and assistant with their content, or a user's message.
        checkpoint: Of a job: 'last', 'best', or a step.
        max_new_tokens: The answer is cut there (tokens).
        temperature: 0 takes the likeliest token; more draws more freely.
        seed: Seeds the drawing; None draws differently each time.
        timeout_s: For one try of a hosted model, of up to four (seconds).
        max_seconds: No chat is begun after this time (seconds).

    Raises:
        InputError: A malformed name or chat, a setting out of bounds, or a chat that the provider
            refuses.
        NotFound: There is no such model, job or checkpoint.
        Unavailable: No key, no credit, or no answer after several tries.
    """
    settings = GenerationSettings(max_new_tokens, temperature, seed, timeout_s, max_seconds)
    with _opened(ws, target, checkpoint) as model:
        (message,) = model.answers([requests.chat(messages)], settings)
        if message is None:
            raise Unavailable(model.reasons[0])
        return message


def replies(
    ws: Workspace,
    target: Target | ChatModel,
    chats: Sequence[str | Sequence[dict[str, Any]]],
    *,
    checkpoint: str | int = "last",
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    seed: int | None = None,
    timeout_s: float = 120.0,
    max_seconds: float | None = None,
    progress: OnProgress | None = None,
    refused: Callable[[int, str], None] | None = None,
) -> list[Message | None]:
    """Return a model's answer to each chat, in the order of the chats.

    A local model answers in batches, a hosted one a few chats at a time. Each answer that arrives
    is returned, whatever happens to the other chats: a chat without an answer is None. No more are
    sent where one fails in a way that all would (key, credit, name, address), or the server fails
    eight in a row.

    Args:
        ws: The workspace.
        target: A model's name, a job, a checkpoint, an export, a path, `provider:model[@url]`, or
            what `open` returned.
        chats: Each as in `reply`.
        checkpoint: Of a job: 'last', 'best', or a step.
        max_new_tokens: An answer is cut there (tokens).
        temperature: 0 takes the likeliest token; more draws more freely.
        seed: Seeds the drawing; None draws differently each time.
        timeout_s: For one try of a hosted model, of up to four (seconds).
        max_seconds: No chat is begun after this time (seconds).
        progress: Called with the number of chats answered.
        refused: Called with the number of each chat without an answer, from 0, and the reason.

    Raises:
        InputError: A malformed name or chat; nothing was sent.
        KitError: Not a single chat was answered; the first reason, as in `reply`.
    """
    settings = GenerationSettings(max_new_tokens, temperature, seed, timeout_s, max_seconds)
    checked = []
    for number, chat in enumerate(chats):
        try:
            checked.append(requests.chat(chat))
        except InputError as error:
            raise InputError(f"Chat {number}: {error}") from None
    with _opened(ws, target, checkpoint) as model:
        messages = model.answers(checked, settings, progress)
    if refused:
        for number, reason in model.reasons.items():
            refused(number, reason)
    return messages


def stream(
    ws: Workspace,
    target: Target | ChatModel,
    messages: str | Sequence[dict[str, Any]],
    *,
    checkpoint: str | int = "last",
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    seed: int | None = None,
    timeout_s: float = 120.0,
) -> Generator[str, None, Message]:
    """Yield a model's answer to a chat, piece by piece as it is generated.

    A piece is whole characters; joined they are the answer. Close the generator to stop the model.

    Args:
        ws: The workspace.
        target: A model's name, a job, a checkpoint, an export, a path, `provider:model[@url]`, or
            what `open` returned.
        messages: Turns with role and content, or a user's message.
        checkpoint: Of a job: 'last', 'best', or a step.
        max_new_tokens: The answer is cut there (tokens).
        temperature: 0 takes the likeliest token; more draws more freely.
        seed: Seeds the drawing; None draws differently each time.
        timeout_s: For one try of a hosted model, of up to four (seconds).

    Returns:
        The message, as the generator's own value.

    Raises:
        KitError: As in `reply`, at the first piece; Unavailable too where a server breaks off.
    """
    settings = GenerationSettings(max_new_tokens, temperature, seed, timeout_s)
    with _opened(ws, target, checkpoint) as model:
        return (yield from model.stream(requests.chat(messages), settings))


def _opened(
    ws: Workspace, target: Target | ChatModel, checkpoint: str | int
) -> AbstractContextManager[ChatModel]:
    """Return the model for a target, closed after its block; one that was open stays open."""
    if isinstance(target, ChatModel):
        return nullcontext(target)
    return targets.open_model(ws, target, checkpoint=checkpoint)

"""Chats: one call asks a model, whichever it is: a base model, a job, an export, a hosted one.

Hosted models are named `provider:name`, or `provider:name@https://...` for one at another address.
`openai` is OpenAI and whatever speaks its protocol: vLLM, Ollama, an endpoint at RunPod. The key is
that of the SDK's own environment variable, and goes to the address that is asked.

Weights that are here are loaded by each call; `open` loads them once for many.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Unpack

from ftlab_kit.chats import requests, targets
from ftlab_kit.chats.requests import Wishes
from ftlab_kit.chats.targets import ChatModel, Target
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message
from ftlab_kit.workspace import Workspace


def is_hosted(name: str) -> bool:
    """Return whether a name is that of a hosted chat model."""
    return requests.is_hosted(name)


def open(
    ws: Workspace,
    target: Target,
    *,
    checkpoint: str | int = "last",
) -> ChatModel:
    """Return what answers for a target, its weights loaded; every other verb takes it as a target.

        with chats.open(ws, job) as tuned:
            chats.reply(ws, tuned, "My coat leaks.")

    Close it, or leave the block, to give its memory back.

    Args:
        target: A base model by name, a job (its last checkpoint, or `checkpoint`), a checkpoint, an
            export, the path of a model's folder or GGUF file, or a hosted chat model or deployment
            as `provider:model` or `provider:model@url`, the url up to and with its /v1.
        checkpoint: Of a job: 'last', 'best', or the step of one.

    Raises:
        InputError: No model is at the path, or no hosted one has such a name.
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
    **manner: Unpack[Wishes],
) -> Message:
    """Return what a model says to a chat.

    A setting that a hosted model takes none of is left out, and named in the message.

    Args:
        target: A model's name, a job, a checkpoint, an export, a path, `provider:model[@url]`, or
            what `open` has returned.
        messages: Turns of system, user and assistant with their content, or what a person says.
        checkpoint: Of a job: 'last', 'best', or the step of one.
        manner: max_new_tokens, temperature, seed, and the timeout_s of one try of four.

    Raises:
        InputError: No such provider, turns that are no chat, or a chat that the provider refuses.
        NotFound: There is no such model, job or checkpoint.
        Unavailable: No key, no credit, or no answer even after more tries.
    """
    with _speaker(ws, target, checkpoint) as speaker:
        (found,) = speaker.answers([requests.chat(messages)], GenerationSettings(**manner))
        if found is None:
            raise Unavailable(speaker.reasons[0])
        return found


def replies(
    ws: Workspace,
    target: Target | ChatModel,
    chats: Sequence[str | Sequence[dict[str, Any]]],
    *,
    checkpoint: str | int = "last",
    progress: Callable[[int, int], None] | None = None,
    refused: Callable[[int, str], None] | None = None,
    **manner: Unpack[Wishes],
) -> list[Message | None]:
    """Return what a model says to each chat, in the order of the chats.

    Weights that are here answer in batches, a hosted model a few chats at a time. What was answered
    is kept whatever happens to the other chats: one without an answer is None. No more are asked
    where one fails that would fail all (key, credit, name, address), or the server fails eight in a
    row.

    Args:
        target: A model's name, a job, a checkpoint, an export, a path, `provider:model[@url]`, or
            what `open` has returned.
        chats: Each as in `reply`.
        checkpoint: Of a job: 'last', 'best', or the step of one.
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
            known.append(requests.chat(chat))
        except InputError as error:
            raise InputError(f"Chat {number}: {error}") from None
    with _speaker(ws, target, checkpoint) as speaker:
        found = speaker.answers(known, GenerationSettings(**manner), progress)
    if refused:
        for number, why in speaker.reasons.items():
            refused(number, why)
    return found


def stream(
    ws: Workspace,
    target: Target | ChatModel,
    messages: str | Sequence[dict[str, Any]],
    *,
    checkpoint: str | int = "last",
    **manner: Unpack[Wishes],
) -> Generator[str, None, Message]:
    """Yield what a model says to a chat, piece by piece as it is made.

    A piece is whole characters; joined they are the answer. Close the generator to stop the model.

    Args:
        target: A model's name, a job, a checkpoint, an export, a path, `provider:model[@url]`, or
            what `open` has returned.
        messages: Turns with role and content, or what a person says.
        checkpoint: Of a job: 'last', 'best', or the step of one.
        manner: As in `reply`.

    Returns:
        The message, as the generator's own value.

    Raises:
        KitError: As in `reply`, when the first piece is asked for; Unavailable too where a server
            breaks off.
    """
    with _speaker(ws, target, checkpoint) as speaker:
        return (yield from speaker.stream(requests.chat(messages), GenerationSettings(**manner)))


def _speaker(
    ws: Workspace, target: Target | ChatModel, checkpoint: str | int
) -> AbstractContextManager[ChatModel]:
    """Return what answers for a target, to be closed in the end; what was open stays open."""
    if isinstance(target, ChatModel):
        return nullcontext(target)
    return targets.open_model(ws, target, checkpoint=checkpoint)

"""What is asked, and of whom: the turns of a chat, the manner, and the name of a hosted model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from ftlab_kit.errors import InputError, nearest

PROVIDERS = {
    "openai": "ftlab_kit.chats.providers.openai",
    "anthropic": "ftlab_kit.chats.providers.anthropic",
}
ROLES = ("system", "user", "assistant", "tool")
FORM = "provider:name or provider:name@https://..."
# no name and password: what is asked, and of whom, is kept and shown
URL = r"https?://(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?(?:/[^\s@]*)?"


# what people write down: the turns of a chat, or what a person says first
Chat = str | Sequence[dict[str, Any]]


class Wishes(TypedDict, total=False):
    """A Manner as arguments of a verb."""

    max_new_tokens: Annotated[int, "An answer is cut there (tokens). Default: 512"]
    temperature: Annotated[float, "0 takes the likeliest token, more draws freely. Default: 0"]
    seed: Annotated[int | None, "Seeds what is drawn. Default: by chance"]
    timeout_s: Annotated[float, "For one try of a hosted model (seconds). Default: 120"]
    max_seconds: Annotated[float | None, "No chat is begun after it (seconds)"]


@dataclass(frozen=True, slots=True)
class Address:
    """A hosted model: who serves it, what it is called there, and where; None is the vendor's."""

    provider: str
    name: str
    base_url: str | None


def is_hosted(name: str) -> bool:
    """Return whether a name begins as that of a hosted model."""
    provider, colon, _ = name.partition(":")
    return bool(colon) and provider in PROVIDERS


def address(model: str) -> Address:
    """Return what a name says.

    Raises:
        InputError: There is no such provider, or the name has another form.
    """
    provider, _, rest = model.partition(":")
    if provider not in PROVIDERS:
        raise InputError(
            f"{model!r} names no hosted model; expected {FORM} with a provider of "
            f"{', '.join(PROVIDERS)}.{nearest(provider, PROVIDERS)} Name one of these."
        )
    found = re.fullmatch(rf"(\S+?)(?:@({URL}))?", rest)
    # an address without its scheme would be sent to the vendor as a part of the name
    if not found or re.search(r"@[^@]*[/:]", found[1]):
        raise InputError(
            f"{model!r} can't be read; expected {FORM}. "
            "Write the name as the provider has it, and an address with http:// or https://."
        )
    return Address(provider, found[1], found[2])


def chat(messages: Chat) -> list[dict[str, Any]]:
    """Return the turns of a chat; a text is what a person says first.

    Raises:
        InputError: A turn has another form, or nothing is asked.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    for number, turn in enumerate(messages):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise InputError(
                f"Turn {number} is {turn!r:.80}; expected an object with role and content, both "
                "text. Write what was said as one string."
            )
        if turn.get("role") not in ROLES:
            raise InputError(
                f"Turn {number} is of {turn.get('role')!r}; expected one of {', '.join(ROLES)}. "
                "A person is 'user', the model 'assistant'."
            )
    if not any(turn["role"] == "user" for turn in messages):
        raise InputError("Nothing is asked; expected a turn of 'user'. Add what is asked.")
    return [*messages]


def turns(messages: Chat) -> list[dict[str, str]]:
    """Return the turns of a chat as they are sent, with role and content alone.

    Raises:
        InputError: A turn has another form, or calls a tool, or nothing is asked.
    """
    known = chat(messages)
    for number, turn in enumerate(known):
        if turn["role"] == "tool" or turn.get("tool_calls"):
            what = "calls a tool" if turn.get("tool_calls") else "is of 'tool'"
            raise InputError(
                f"Turn {number} {what}; expected a turn of {', '.join(ROLES[:3])} without tools, "
                "which are not sent to hosted models. Leave this chat out."
            )
    return [{"role": turn["role"], "content": turn["content"]} for turn in known]

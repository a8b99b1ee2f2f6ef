"""What is sent and to whom: the turns of a chat, and the name of a hosted model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftlab_kit.errors import InputError, nearest

PROVIDERS = {
    "openai": "ftlab_kit.chats.providers.openai",
    "anthropic": "ftlab_kit.chats.providers.anthropic",
}
ROLES = ("system", "user", "assistant", "tool")
FORM = "provider:name or provider:name@https://..."
# without user name and password: names of models are stored and shown
URL = r"https?://(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?(?:/[^\s@]*)?"


# what people write down: the turns of a chat, or the first message of a user
Chat = str | Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Address:
    """A hosted model: its provider, its name there, and its server; None is the vendor's."""

    provider: str
    name: str
    base_url: str | None


def is_hosted(name: str) -> bool:
    """Return whether a name begins as that of a hosted model."""
    provider, colon, _ = name.partition(":")
    return bool(colon) and provider in PROVIDERS


def address(model: str) -> Address:
    """Return the parts of a hosted model's name.

    Raises:
        InputError: There is no such provider, or the name has another form.
    """
    provider, _, rest = model.partition(":")
    if provider not in PROVIDERS:
        raise InputError(
            f"{model!r} is not the name of a hosted model; expected {FORM} with a provider of "
            f"{', '.join(PROVIDERS)}.{nearest(provider, PROVIDERS)}"
        )
    match = re.fullmatch(rf"(\S+?)(?:@({URL}))?", rest)
    # an address without its scheme would be sent to the vendor as a part of the name
    if not match or re.search(r"@[^@]*[/:]", match[1]):
        raise InputError(
            f"{model!r} can't be read; expected {FORM}. "
            "Write the name as the provider has it, and an address with http:// or https://."
        )
    return Address(provider, match[1], match[2])


def chat(messages: Chat) -> list[dict[str, Any]]:
    """Return the turns of a chat; a text becomes the first turn of a user.

    Raises:
        InputError: A turn has another form, or there is none of a user.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    for number, turn in enumerate(messages):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise InputError(
                f"Turn {number} is {turn!r:.80}; expected an object with role and content, both "
                "text. Write the content as one string."
            )
        if turn.get("role") not in ROLES:
            raise InputError(
                f"Turn {number} has the role {turn.get('role')!r}; expected one of "
                f"{', '.join(ROLES)}. A person is 'user', the model 'assistant'."
            )
    if not any(turn["role"] == "user" for turn in messages):
        raise InputError("The chat has no turn of 'user'; expected at least one. Add a question.")
    return [*messages]


def turns(messages: Chat) -> list[dict[str, str]]:
    """Return the turns of a chat as they are sent, with role and content alone.

    Raises:
        InputError: A turn has another form or calls a tool, or there is none of a user.
    """
    checked = chat(messages)
    for number, turn in enumerate(checked):
        if turn["role"] == "tool" or turn.get("tool_calls"):
            what = "calls a tool" if turn.get("tool_calls") else "has the role 'tool'"
            raise InputError(
                f"Turn {number} {what}; expected turns of {', '.join(ROLES[:3])} without tools, "
                "which are not sent to hosted models. Leave this chat out."
            )
    return [{"role": turn["role"], "content": turn["content"]} for turn in checked]

"""What is asked, and of whom: the name of a hosted model, the turns of a chat, and the manner."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ftlab_kit.errors import InputError, nearest

PROVIDERS = {
    "openai": "ftlab_kit.chats.openai",
    "anthropic": "ftlab_kit.chats.anthropic",
}
ROLES = ("system", "user", "assistant")
FORM = "provider:name or provider:name@https://..."
# no name and password: what is asked, and of whom, is kept and shown
URL = r"https?://(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?(?:/[^\s@]*)?"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a chat is asked.

    `timeout_s` is for one try; of many chats none is begun after `max_seconds`.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    timeout_s: float = 120.0
    max_seconds: float | None = None


class Wishes(TypedDict, total=False):
    """The same as arguments of a verb."""

    max_new_tokens: int
    temperature: float
    seed: int | None
    timeout_s: float
    max_seconds: float | None


@dataclass(frozen=True, slots=True)
class Address:
    """A hosted model: who serves it, what it is called there, and where; None is the vendor's."""

    provider: str
    name: str
    base_url: str | None


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


def turns(messages: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the turns of a chat as they are sent, with role and content alone.

    Raises:
        InputError: A turn has another form, or calls a tool, or nothing is asked.
    """
    for number, turn in enumerate(messages):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise InputError(
                f"Turn {number} is {turn!r:.80}; expected an object with role and content, both "
                "text. Write what was said as one string."
            )
        if turn.get("role") not in ROLES or turn.get("tool_calls"):
            what = "calls a tool" if turn.get("tool_calls") else f"is of {turn.get('role')!r}"
            raise InputError(
                f"Turn {number} {what}; expected a turn of {', '.join(ROLES)} without tools, "
                "which are not sent to hosted models. Leave this chat out."
            )
    if not any(turn["role"] == "user" for turn in messages):
        raise InputError("Nothing is asked; expected a turn of 'user'. Add what is asked.")
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]

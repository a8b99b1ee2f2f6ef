"""What keeps a provider from answering, in words: what is, and what to do.

The SDKs of OpenAI and Anthropic have the same tree of errors.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ftlab_kit.errors import InputError, KitError, NotFound, Unavailable

if TYPE_CHECKING:
    from ftlab_kit.chats.connection import ProviderClient

LONGEST = 300  # letters of what a server says that are passed on
UNWANTED = re.compile(r"support|deprecated|permitted|unknown|unrecognized|unexpected", re.I)


class ProviderError(Exception):
    """An error for the user, and whether it would meet every other chat as well."""

    def __init__(self, error: KitError, *, is_for_all: bool = False) -> None:
        """Take what a user is told."""
        super().__init__(str(error))
        self.error, self.is_for_all = error, is_for_all

    def again(self) -> "ProviderError":
        """Return the same of a chat that was not asked for it."""
        return ProviderError(type(self.error)(f"Not asked any more. {self.error}"), is_for_all=True)


def unwanted(error: Any, settings: Iterable[str]) -> str | None:
    """Return the setting that a model takes none of, where that is why it refuses a chat."""
    words = said(error) if getattr(error, "status_code", None) in (400, 422) else ""
    for name in ("temperature", "seed", "stream_options"):
        if name in settings and re.search(rf"\b{name}\b", words) and UNWANTED.search(words):
            return name
    return None


def in_words(error: Any, line: "ProviderClient") -> ProviderError:
    """Return what an error of a provider's SDK means."""
    sdk = line.provider.SDK
    if isinstance(error, sdk.APITimeoutError):
        return ProviderError(
            Unavailable(
                f"{line.model} did not answer within {line.manner.timeout_s:g} s, however often it "
                "was asked. Give it more time with timeout_s, or ask for less with max_new_tokens."
            )
        )
    # the last: a host whose name can be none
    if isinstance(error, (sdk.APIConnectionError, UnicodeError)):
        return _unreachable(error, line)
    if isinstance(error, sdk.APIStatusError):
        return _of_status(error, line)
    return no_chat(line)


def broken_off(error: Any, line: "ProviderClient") -> ProviderError:
    """Return that an answer was begun and not brought to its end."""
    words = f"{line.model} broke off its answer ({said(error.__cause__ or error)})."
    return ProviderError(Unavailable(f"{words} Ask again; if the server is yours, see its log."))


def no_chat(line: "ProviderClient") -> ProviderError:
    """Return that something answers which does not speak the protocol."""
    words = (
        f"{line.url} answers, but not as {line.address.provider} does. "
        "Correct the address; that of most servers ends in /v1."
    )
    return ProviderError(Unavailable(words), is_for_all=True)


def said(error: Any) -> str:
    """Return what a server says in an error, in whichever form it says it."""
    body = getattr(error, "body", None)
    for key in ("error", "message", "detail"):
        body = body.get(key, body) if isinstance(body, dict) else body
    text = " ".join((body if isinstance(body, str) else str(error)).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _unreachable(error: Any, line: "ProviderClient") -> ProviderError:
    cause = error.__cause__ or error
    first = (str(cause) or type(cause).__name__).splitlines()[0]
    # of whichever httpx the SDK stands on; a connection that breaks later is one chat's
    is_for_all = type(cause).__name__ not in ("ReadError", "RemoteProtocolError", "WriteError")
    words = f"{line.url} can't be reached ({first}). Start the server, or correct its address."
    return ProviderError(Unavailable(words), is_for_all=is_for_all)


def _of_status(error: Any, line: "ProviderClient") -> ProviderError:
    status, words, key = error.status_code, said(error), line.provider.KEY
    at = f"{line.model} ({status}: {words})"
    if status == 402 or "insufficient_quota" in str(error) or "credit balance" in words.lower():
        cure = "Add credit with the provider, or name another model."
        return ProviderError(
            Unavailable(f"There is no credit left for {at}. {cure}"), is_for_all=True
        )
    if status in (401, 403):
        cure = f"Set {key} to a key that is good at {line.url}."
        return ProviderError(Unavailable(f"The key is refused by {at}. {cure}"), is_for_all=True)
    if status == 404:
        cure = "Name a model that it serves; the address of most servers ends in /v1."
        return ProviderError(NotFound(f"{line.url} has no {at}. {cure}"), is_for_all=True)
    if status < 400:
        to = error.response.headers.get("location")
        cure = "Give that address, if you trust it with your chats."
        return ProviderError(Unavailable(f"{at} sends on to {to}. {cure}"), is_for_all=True)
    if status == 429:
        cure = "Wait a while, then ask again."
        return ProviderError(
            Unavailable(f"Too much is asked of {at}, even after some pauses. {cure}")
        )
    if status in (400, 413, 422):
        cure = "Shorten the chat, or change the settings that are named."
        return ProviderError(InputError(f"A chat is refused by {at}. {cure}"))
    cure = "Try again later; if the server is yours, see its log."
    return ProviderError(
        Unavailable(f"The server fails for {at}, however often it is asked. {cure}")
    )

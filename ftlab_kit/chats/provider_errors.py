"""Why a provider does not answer, as an error of the kit: what is, and what to do.

The SDKs of OpenAI and Anthropic have the same tree of errors.
"""

import re
from collections.abc import Iterable
from typing import Any

from ftlab_kit.errors import InputError, KitError, NotFound, Unavailable

MAX_CHARACTERS = 300  # of a server's own message that are passed on
REFUSES_SETTING = re.compile(
    r"support|deprecated|permitted|unknown|unrecognized|unexpected", re.IGNORECASE
)


class ProviderError(Exception):
    """An error for the user, and whether every other chat would meet it as well."""

    def __init__(self, error: KitError, *, is_for_all: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.is_for_all = error, is_for_all

    def again(self) -> "ProviderError":
        """Return the error of a chat that was not sent because of this one."""
        return ProviderError(type(self.error)(f"Not sent any more. {self.error}"), is_for_all=True)


def refused_setting(error: Any, settings: Iterable[str]) -> str | None:
    """Return the setting that a model does not support, if that is why it refuses a chat."""
    message = server_message(error) if getattr(error, "status_code", None) in (400, 422) else ""
    for name in ("temperature", "seed", "stream_options"):
        is_named = name in settings and re.search(rf"\b{name}\b", message)
        if is_named and REFUSES_SETTING.search(message):
            return name
    return None


def explain(error: Any, *, model: str, url: str, provider: Any, timeout_s: float) -> ProviderError:
    """Return what an error of a provider's SDK means for the user.

    Args:
        error: What the SDK raised.
        model: The model's full name, such as openai:NAME@URL.
        url: The address that the request went to.
        provider: The provider's module, with SDK, NAME and KEY.
        timeout_s: How long one try was given.
    """
    sdk = provider.SDK
    if isinstance(error, sdk.APITimeoutError):
        return ProviderError(
            Unavailable(
                f"{model} did not answer within {timeout_s:g} s, in any of several tries. "
                "Give it more time with timeout_s, or request less with max_new_tokens."
            )
        )
    # UnicodeError: a host name that can't be one
    if isinstance(error, (sdk.APIConnectionError, UnicodeError)):
        return _unreachable(error, url)
    if isinstance(error, sdk.APIStatusError):
        return _of_status(error, model, url, provider.KEY)
    return wrong_protocol(url, provider)


def broken_off(error: Any, model: str) -> ProviderError:
    """Return the error of an answer that began and did not reach its end."""
    reason = server_message(error.__cause__ or error)
    return ProviderError(
        Unavailable(
            f"{model} broke off its answer ({reason}). Try again; if the server is yours, see its "
            "log."
        )
    )


def wrong_protocol(url: str, provider: Any) -> ProviderError:
    """Return the error of a server that answers in another protocol."""
    return ProviderError(
        Unavailable(
            f"{url} answers, but not in the protocol of {provider.NAME}. Correct the address; "
            "most servers' ends in /v1."
        ),
        is_for_all=True,
    )


def server_message(error: Any) -> str:
    """Return the message in a server's error, in whichever form it comes."""
    body = getattr(error, "body", None)
    for key in ("error", "message", "detail"):
        body = body.get(key, body) if isinstance(body, dict) else body
    text = " ".join((body if isinstance(body, str) else str(error)).split())
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"


def _unreachable(error: Any, url: str) -> ProviderError:
    cause = error.__cause__ or error
    first = (str(cause) or type(cause).__name__).splitlines()[0]
    # by name, as SDKs stand on different HTTP libraries; a connection that breaks later costs one
    # chat only
    is_for_all = type(cause).__name__ not in ("ReadError", "RemoteProtocolError", "WriteError")
    message = f"{url} can't be reached ({first}). Start the server, or correct its address."
    return ProviderError(Unavailable(message), is_for_all=is_for_all)


def _of_status(error: Any, model: str, url: str, key: str) -> ProviderError:
    status, message = error.status_code, server_message(error)
    at = f"{model} ({status}: {message})"
    is_broke = "insufficient_quota" in str(error) or "credit balance" in message.lower()
    if status == 402 or is_broke:
        text = f"No credit is left for {at}. Add credit with the provider, or use another model."
        return ProviderError(Unavailable(text), is_for_all=True)
    if status in (401, 403):
        text = f"The key was refused by {at}. Set {key} to a key that is valid for {url}."
        return ProviderError(Unavailable(text), is_for_all=True)
    if status == 404:
        text = f"{url} has no {at}. Name a model that it serves; most servers' address ends in /v1."
        return ProviderError(NotFound(text), is_for_all=True)
    if status < 400:
        to = error.response.headers.get("location")
        text = f"{at} redirects to {to}. Give that address, if you trust it with your chats."
        return ProviderError(Unavailable(text), is_for_all=True)
    if status == 429:
        text = f"{at} refuses more requests for now, even after several pauses. Try again later."
        return ProviderError(Unavailable(text))
    if status in (400, 413, 422):
        text = f"A chat was refused by {at}. Shorten the chat, or change the settings it names."
        return ProviderError(InputError(text))
    text = f"The server of {at} fails at every try. Try later; if it is yours, see its log."
    return ProviderError(Unavailable(text))

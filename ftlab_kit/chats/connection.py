"""The connection to a hosted model: every chat goes over it, from several threads at once.

`client` is the one place where a provider's SDK client is made: its key, address, time limit and
tries. A provider is a file of `providers/` that knows how to send a chat and how to read an answer,
whole or in pieces.
"""

import importlib
import os
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, Self, cast

from ftlab_kit.chats import prices, provider_errors
from ftlab_kit.chats.protocol import Completion
from ftlab_kit.chats.requests import PROVIDERS, Address, address
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message, Usage

__all__ = ["Address", "Provider", "ProviderClient", "address", "client", "provider"]

TRIES = 4  # by the SDK, with growing pauses or those that the server asks for
# a stream reports its tokens only on request
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
PLACEHOLDER = "none"  # a server of your own may need no key, but the SDKs insist on one


class Provider(Protocol):
    """A file of `providers/`."""

    NAME: str  # how people call it
    KEY: str  # the environment variable of its key
    BASE_URL: str  # the one of its address, which the SDK reads
    SDK: Any  # the module with its errors
    SYNC: Any  # the SDK's clients
    ASYNC: Any
    UNSUPPORTED: frozenset[str]  # settings that its protocol lacks

    def root(self, base_url: str) -> str:
        """Return an address as the SDK wants it."""

    def send(
        self, client: Any, name: str, turns: Sequence[dict[str, str]], settings: dict[str, Any]
    ) -> Any:
        """Return the response to a chat.

        Args:
            client: The SDK's client.
            name: The model's name, as the provider has it.
            turns: Role and content of each.
            settings: Some of max_new_tokens, temperature, seed; those of STREAMED for a stream.
        """

    def read(self, response: Any) -> Completion | None:
        """Return what a response holds, None if it is not one of this protocol."""

    def pieces(self, response: Any) -> Generator[str, None, Completion | None]:
        """Yield the text of a stream as it comes; return the whole, as `read` does."""


def provider(name: str) -> Provider:
    """Return a provider by its name, `openai` or `anthropic`.

    Raises:
        Unavailable: The provider's SDK is not installed.
    """
    module: Any = importlib.import_module(PROVIDERS[name])
    return cast(Provider, module)


def client(
    model: str, *, timeout_s: float = 120.0, tries: int = TRIES, is_async: bool = False
) -> Any:
    """Return the SDK's client of a hosted model; nothing is sent yet.

    It follows no redirect: a chat must not reach a server that nobody named.

    Args:
        model: `provider:name` or `provider:name@url`; without a url, the vendor's own server or
            that of the SDK's environment variable.
        timeout_s: Of one try.
        tries: How often a request is sent at most.
        is_async: Whether to return the SDK's asynchronous client.

    Raises:
        InputError: There is no such provider, or the key has characters that no key has.
        Unavailable: There is no key, or the provider's SDK is not installed.
    """
    where = address(model)
    sdk = provider(where.provider)
    key = os.environ.get(sdk.KEY, "").strip()
    if not key and where.base_url is None and not os.environ.get(sdk.BASE_URL):
        raise Unavailable(
            f"{model} needs a key, and {sdk.KEY} is not set. Set {sdk.KEY} to your key of "
            f"{sdk.NAME}, or give the address of a server that needs none."
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{sdk.KEY} holds characters that no key has. Set it again.")
    http = sdk.SDK.DefaultAsyncHttpxClient if is_async else sdk.SDK.DefaultHttpxClient
    return (sdk.ASYNC if is_async else sdk.SYNC)(
        api_key=key or PLACEHOLDER,
        base_url=where.base_url and sdk.root(where.base_url),
        timeout=timeout_s,
        max_retries=tries - 1,
        http_client=http(follow_redirects=False),
    )


class ProviderClient:
    """A client that remembers which settings its model refuses."""

    def __init__(self, model: str, settings: GenerationSettings) -> None:
        """Make the client; nothing is sent yet.

        Raises:
            InputError: There is no such provider, or the key has characters that no key has.
            Unavailable: There is no key, or the provider's SDK is not installed.
        """
        self.model, self.settings, self.address = model, settings, address(model)
        self.provider = provider(self.address.provider)
        self._client = client(model, timeout_s=settings.timeout_s)
        self._unsupported = {*self.provider.UNSUPPORTED}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._client.close()

    @property
    def url(self) -> str:
        """The address that requests go to."""
        return str(self._client.base_url)

    def reply(self, turns: Sequence[dict[str, str]]) -> Message:
        """Return the answer to a chat.

        Raises:
            ProviderError: There is none.
        """
        began = time.perf_counter()
        return self._message(self.provider.read(self._send(turns)), began)

    def stream(self, turns: Sequence[dict[str, str]]) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces, as they come, and return the message.

        Raises:
            ProviderError: There is none, or it broke off.
        """
        began = time.perf_counter()
        response = self._send(turns, STREAMED)
        try:
            completion = yield from self.provider.pieces(response)
        except ValueError as error:  # not JSON
            raise provider_errors.wrong_protocol(self.url, self.provider) from error
        except Exception as error:
            # a broken stream raises the SDK's errors, those of the HTTP library below it (which
            # one differs from release to release), or the system's
            raise provider_errors.broken_off(error, self.model) from error
        finally:
            response.close()
        return self._message(completion, began)

    def _message(self, completion: Completion | None, began: float) -> Message:
        seconds = time.perf_counter() - began
        if completion is None:
            raise provider_errors.wrong_protocol(self.url, self.provider)
        n_input, n_output = completion.n_input_tokens, completion.n_output_tokens
        cost_usd = prices.cost_usd(
            self.address.name, self.url, n_input, n_output, completion.n_cached_tokens
        )
        return Message(
            role="assistant",
            content=completion.text.strip(),
            usage=Usage(n_input, n_output, cost_usd),
            is_complete=completion.is_complete,
            seconds=seconds,
            left_out=tuple(sorted(self._unsupported & set(self._options()))),
        )

    def _send(self, turns: Sequence[dict[str, str]], more: Mapping[str, Any] | None = None) -> Any:
        """Return the response; a setting that the model refuses is left out of another request."""
        options = {**self._options(), **(more or {})}
        while True:
            supported = {
                name: value for name, value in options.items() if name not in self._unsupported
            }
            try:
                return self.provider.send(self._client, self.address.name, turns, supported)
            except (self.provider.SDK.APIError, ValueError) as error:
                refused = provider_errors.refused_setting(error, supported)
                if refused is None:
                    raise provider_errors.explain(
                        error,
                        model=self.model,
                        url=self.url,
                        provider=self.provider,
                        timeout_s=self.settings.timeout_s,
                    ) from error
                self._unsupported.add(refused)

    def _options(self) -> dict[str, Any]:
        options = {
            name: getattr(self.settings, name) for name in ("max_new_tokens", "temperature", "seed")
        }
        return {name: value for name, value in options.items() if value is not None}

"""An open line to one hosted model: every chat goes over it, from several threads at once.

A provider is a file that says how to open its SDK's client, how to send, and how to read an answer,
whole or in pieces.
"""

import importlib
import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ftlab_kit.chats import prices, provider_errors
from ftlab_kit.chats.requests import PROVIDERS, address
from ftlab_kit.errors import InputError, Unavailable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message, Usage

TRIES = 4  # by the SDK, with growing pauses or those that the server asks for
# an answer in pieces tells its tokens only where that is asked for
PIECES = {"stream": True, "stream_options": {"include_usage": True}}
PLACEHOLDER = "none"  # a server of one's own may want no key, but the SDKs do


@dataclass(frozen=True, slots=True)
class Completion:
    """What a response holds; None is what it does not say."""

    text: str
    is_complete: bool | None
    n_input_tokens: int | None
    n_output_tokens: int | None
    n_cached_tokens: int = 0


class Provider(Protocol):
    """A file of this folder.

    KEY is the variable of its key, SDK has its errors, UNTAKEN the settings its protocol lacks.
    """

    KEY: str
    SDK: Any
    UNTAKEN: frozenset[str]

    def client(self, key: str, base_url: str | None, options: dict[str, Any]) -> Any:
        """Return the SDK's client."""

    def send(
        self, client: Any, name: str, turns: Sequence[dict[str, str]], settings: dict[str, Any]
    ) -> Any:
        """Return the response to a chat.

        Args:
            settings: Some of max_new_tokens, temperature, seed; those of PIECES for a stream.
        """

    def read(self, response: Any) -> Completion | None:
        """Return what a response says, None if it is none of the protocol."""

    def pieces(self, response: Any) -> Generator[str, None, Completion | None]:
        """Yield the text of a stream as it comes; return what was said, as `read` does."""


class ProviderClient:
    """A client with what it has learnt of its model: which settings that takes none of."""

    def __init__(self, model: str, manner: GenerationSettings) -> None:
        """Open the client; nothing is sent yet.

        Raises:
            InputError: No such provider, or a key that can be none.
            Unavailable: There is no key, or the provider's SDK is not installed.
        """
        self.model, self.manner, self.address = model, manner, address(model)
        self.provider: Provider = importlib.import_module(PROVIDERS[self.address.provider])
        options = {"timeout": manner.timeout_s, "max_retries": TRIES - 1}
        self._client = self.provider.client(self._key(), self.address.base_url, options)
        self._untaken = {*self.provider.UNTAKEN}
        # what breaks a stream: some SDKs let through what the HTTP library below them raises
        library = self.provider.SDK.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]
        self._breaks = (self.provider.SDK.APIError, sys.modules[library].HTTPError, OSError)

    def __enter__(self) -> Self:
        """Use the line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._client.close()

    @property
    def url(self) -> str:
        """Where it leads."""
        return str(self._client.base_url)

    def ask(self, turns: Sequence[dict[str, str]]) -> Message:
        """Return the answer to a chat.

        Raises:
            Refusal: There is none.
        """
        began = time.perf_counter()
        return self._message(self.provider.read(self._sent(turns)), began)

    def stream(self, turns: Sequence[dict[str, str]]) -> Generator[str, None, Message]:
        """Yield the answer to a chat in pieces, as they come, and return it.

        Raises:
            Refusal: There is none, or it broke off.
        """
        began = time.perf_counter()
        response = self._sent(turns, PIECES)
        try:
            said = yield from self.provider.pieces(response)
        except self._breaks as error:
            raise provider_errors.broken_off(error, self) from error
        except ValueError as error:  # no JSON
            raise provider_errors.no_chat(self) from error
        finally:
            response.close()
        return self._message(said, began)

    def _message(self, said: Completion | None, began: float) -> Message:
        seconds = time.perf_counter() - began
        if said is None:
            raise provider_errors.no_chat(self)
        cost_usd = prices.cost_usd(self.address.name, self.url, said)
        usage = Usage(said.n_input_tokens, said.n_output_tokens, cost_usd)
        left_out = tuple(sorted(self._untaken & set(self._wanted())))
        return Message("assistant", said.text.strip(), usage, said.is_complete, seconds, left_out)

    def _sent(self, turns: Sequence[dict[str, str]], more: Mapping[str, Any] | None = None) -> Any:
        """Return the response, asked for again without each setting that the model refuses."""
        while True:
            wanted = {**self._wanted(), **(more or {})}.items()
            settings = {name: value for name, value in wanted if name not in self._untaken}
            try:
                return self.provider.send(self._client, self.address.name, turns, settings)
            except (self.provider.SDK.APIError, ValueError) as error:
                unwanted = provider_errors.unwanted(error, settings)
                if unwanted is None:
                    raise provider_errors.in_words(error, self) from error
                self._untaken.add(unwanted)

    def _wanted(self) -> dict[str, Any]:
        names = ("max_new_tokens", "temperature", "seed")
        given = {name: getattr(self.manner, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def _key(self) -> str:
        name = self.provider.KEY
        key = os.environ.get(name, "").strip()
        if not key and self.address.base_url is None:
            raise Unavailable(
                f"{self.model} needs a key, and {name} is not set; expected the key of "
                f"{self.address.provider}. Set {name}, or give the address of a server without."
            )
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"{name} holds characters that no key has. Set it again.")
        return key or PLACEHOLDER

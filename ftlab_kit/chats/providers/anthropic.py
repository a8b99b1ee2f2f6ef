"""Anthropic's models by their Messages API.

https://docs.anthropic.com/en/api/messages
"""

from collections.abc import Generator, Sequence
from typing import Any

import anthropic

from ftlab_kit.chats.protocol import Completion

NAME = "Anthropic"
KEY = "ANTHROPIC_API_KEY"
BASE_URL = "ANTHROPIC_BASE_URL"
SDK = anthropic
SYNC, ASYNC = anthropic.Anthropic, anthropic.AsyncAnthropic
UNSUPPORTED = frozenset({"seed", "stream_options"})
COMPLETE = ("end_turn", "stop_sequence", "tool_use")


def root(base_url: str) -> str:
    """Return an address without the /v1 that this SDK adds itself."""
    return base_url.rstrip("/").removesuffix("/v1")


def send(client: Any, name: str, turns: Sequence[dict[str, str]], settings: dict[str, Any]) -> Any:
    """Return the response to a chat; its system turns stand apart."""
    options = dict(settings)
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    return client.messages.create(
        model=name,
        max_tokens=options.pop("max_new_tokens"),
        stream=options.pop("stream", False),
        messages=[turn for turn in turns if turn["role"] != "system"],
        # the SDK no longer has an argument for temperature, older models still take it
        extra_body=options,
        **({"system": system} if system else {}),
    )


def read(response: Any) -> Completion | None:
    """Return what a response holds, None if it is not a message."""
    blocks = getattr(response, "content", None)
    if not isinstance(blocks, list):
        return None
    text = "".join(block.text for block in blocks if block.type == "text")
    usage = response.usage
    return _completion(text, response.stop_reason, usage, getattr(usage, "output_tokens", None))


def pieces(response: Any) -> Generator[str, None, Completion | None]:
    """Yield the text of a stream as it comes; return the whole, None if it is not a message."""
    text, stop_reason, usage, n_output_tokens = "", None, None, None
    for event in response:
        if event.type == "message_start":
            usage = event.message.usage
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            text += event.delta.text
            yield event.delta.text
        elif event.type == "message_delta":
            stop_reason = event.delta.stop_reason or stop_reason
            n_output_tokens = getattr(event.usage, "output_tokens", None)  # of all so far
    return _completion(text, stop_reason, usage, n_output_tokens) if usage else None


def _completion(
    text: str, stop_reason: str | None, usage: Any, n_output_tokens: int | None
) -> Completion:
    return Completion(
        text=text,
        is_complete=stop_reason in COMPLETE if stop_reason else None,
        n_input_tokens=getattr(usage, "input_tokens", None),
        n_output_tokens=n_output_tokens,
    )

"""OpenAI, and every server that speaks its chat completions: vLLM, Ollama, RunPod and others.

https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Generator, Sequence
from typing import Any

import openai

from ftlab_kit.chats.protocol import Completion

NAME = "OpenAI"
KEY = "OPENAI_API_KEY"
BASE_URL = "OPENAI_BASE_URL"
SDK = openai
SYNC, ASYNC = openai.OpenAI, openai.AsyncOpenAI
VENDOR = "api.openai.com"
UNSUPPORTED: frozenset[str] = frozenset()
IS_COMPLETE = {"stop": True, "tool_calls": True, "length": False, "content_filter": False}


def root(base_url: str) -> str:
    """Return an address as it is, with its /v1."""
    return base_url


def limit_name(client: Any) -> str:
    """Return what a client's server calls the limit of an answer's tokens.

    The vendor's newer models refuse the old name, other servers don't know the new one.
    """
    return "max_completion_tokens" if client.base_url.host == VENDOR else "max_tokens"


def send(client: Any, name: str, turns: Sequence[dict[str, str]], settings: dict[str, Any]) -> Any:
    """Return the response to a chat."""
    options = dict(settings)
    options[limit_name(client)] = options.pop("max_new_tokens")
    return client.chat.completions.create(model=name, messages=[*turns], **options)


def read(response: Any) -> Completion | None:
    """Return what a response holds, None if it is not a chat completion."""
    choices = getattr(response, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        return None
    return _completion(_text(choices[0].message), choices[0].finish_reason, response.usage)


def pieces(response: Any) -> Generator[str, None, Completion | None]:
    """Yield the text of a stream as it comes; return the whole, None if it was not a chat."""
    text, finish_reason, usage, is_chat = "", None, None, False
    for chunk in response:
        usage = getattr(chunk, "usage", None) or usage  # in a chunk of its own, the last
        for choice in getattr(chunk, "choices", None) or ():
            is_chat = True
            finish_reason = choice.finish_reason or finish_reason
            if piece := _text(choice.delta):
                text += piece
                yield piece
    return _completion(text, finish_reason, usage) if is_chat else None


def _text(part: Any) -> str:
    return getattr(part, "content", None) or getattr(part, "refusal", None) or ""


def _completion(text: str, finish_reason: str | None, usage: Any) -> Completion:
    cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None)
    return Completion(
        text=text,
        is_complete=IS_COMPLETE.get(finish_reason or ""),
        n_input_tokens=getattr(usage, "prompt_tokens", None),
        n_output_tokens=getattr(usage, "completion_tokens", None),
        n_cached_tokens=cached or 0,
    )

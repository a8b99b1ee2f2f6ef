"""OpenAI, and every server that speaks its chat completions: vLLM, Ollama, RunPod and others.

https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Generator, Sequence
from typing import Any

import openai

from ftlab_kit.chats.connection import Completion

KEY = "OPENAI_API_KEY"
SDK = openai
VENDOR = "api.openai.com"
UNTAKEN: frozenset[str] = frozenset()
ENDINGS = {"stop": True, "tool_calls": True, "length": False, "content_filter": False}


def client(key: str, base_url: str | None, options: dict[str, Any]) -> Any:
    """Return the SDK's client. It follows no redirect: a chat would go to who was not asked."""
    http = openai.DefaultHttpxClient(follow_redirects=False)
    return openai.OpenAI(api_key=key, base_url=base_url, http_client=http, **options)


def send(client: Any, name: str, turns: Sequence[dict[str, str]], settings: dict[str, Any]) -> Any:
    """Return the response to a chat."""
    rest = dict(settings)
    # the vendor's newer models refuse the old name, other servers don't know the new one
    limit = "max_completion_tokens" if client.base_url.host == VENDOR else "max_tokens"
    rest[limit] = rest.pop("max_new_tokens")
    return client.chat.completions.create(model=name, messages=[*turns], **rest)


def read(response: Any) -> Completion | None:
    """Return what a response says, None if it is no chat completion."""
    choices = getattr(response, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        return None
    return _said(_text(choices[0].message), choices[0].finish_reason, response.usage)


def pieces(response: Any) -> Generator[str, None, Completion | None]:
    """Yield the text of a stream as it comes; return what was said, None if it was no chat."""
    text, ending, usage, is_chat = "", None, None, False
    for chunk in response:
        usage = getattr(chunk, "usage", None) or usage  # in a chunk of its own, the last
        for choice in getattr(chunk, "choices", None) or ():
            is_chat = True
            ending = choice.finish_reason or ending
            if piece := _text(choice.delta):
                text += piece
                yield piece
    return _said(text, ending, usage) if is_chat else None


def _text(part: Any) -> str:
    return getattr(part, "content", None) or getattr(part, "refusal", None) or ""


def _said(text: str, ending: str | None, usage: Any) -> Completion:
    cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None)
    return Completion(
        text=text,
        is_complete=ENDINGS.get(ending or ""),
        n_input_tokens=getattr(usage, "prompt_tokens", None),
        n_output_tokens=getattr(usage, "completion_tokens", None),
        n_cached_tokens=cached or 0,
    )

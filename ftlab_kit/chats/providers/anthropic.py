"""Anthropic's models by their Messages API.

https://docs.anthropic.com/en/api/messages
"""

from collections.abc import Generator, Sequence
from typing import Any

from ftlab_kit.chats.connection import Completion
from ftlab_kit.errors import Unavailable

try:
    import anthropic
except ImportError as error:
    raise Unavailable(
        "anthropic is not installed; expected it for models of that name. "
        "Install it with: pip install 'ftlab-kit[anthropic]'."
    ) from error

KEY = "ANTHROPIC_API_KEY"
SDK = anthropic
UNTAKEN = frozenset({"seed", "stream_options"})
WHOLE = ("end_turn", "stop_sequence", "tool_use")


def client(key: str, base_url: str | None, options: dict[str, Any]) -> Any:
    """Return the SDK's client. It follows no redirect: a chat would go to who was not asked."""
    http = anthropic.DefaultHttpxClient(follow_redirects=False)
    # this SDK adds the /v1 itself
    root = base_url and base_url.rstrip("/").removesuffix("/v1")
    return anthropic.Anthropic(api_key=key, base_url=root, http_client=http, **options)


def send(client: Any, name: str, turns: Sequence[dict[str, str]], settings: dict[str, Any]) -> Any:
    """Return the response to a chat; its system turns stand apart."""
    rest = dict(settings)
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    return client.messages.create(
        model=name,
        max_tokens=rest.pop("max_new_tokens"),
        stream=rest.pop("stream", False),
        messages=[turn for turn in turns if turn["role"] != "system"],
        # the SDK has no argument for it any more, older models still take it
        extra_body=rest,
        **({"system": system} if system else {}),
    )


def read(response: Any) -> Completion | None:
    """Return what a response says, None if it is no message."""
    blocks = getattr(response, "content", None)
    if not isinstance(blocks, list):
        return None
    text = "".join(block.text for block in blocks if block.type == "text")
    usage = response.usage
    return _said(text, response.stop_reason, usage, getattr(usage, "output_tokens", None))


def pieces(response: Any) -> Generator[str, None, Completion | None]:
    """Yield the text of a stream as it comes; return what was said, None if it was no message."""
    text, ending, usage, n_said = "", None, None, None
    for event in response:
        if event.type == "message_start":
            usage = event.message.usage
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            text += event.delta.text
            yield event.delta.text
        elif event.type == "message_delta":
            ending = event.delta.stop_reason or ending
            n_said = getattr(event.usage, "output_tokens", None)  # of all so far
    return _said(text, ending, usage, n_said) if usage else None


def _said(text: str, ending: str | None, usage: Any, n_said: int | None) -> Completion:
    return Completion(
        text=text,
        is_complete=ending in WHOLE if ending else None,
        n_input_tokens=getattr(usage, "input_tokens", None),
        n_output_tokens=n_said,
    )

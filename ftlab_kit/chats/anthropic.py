"""Anthropic's models by their Messages API.

https://docs.anthropic.com/en/api/messages
"""

from collections.abc import Sequence
from typing import Any

from ftlab_kit.chats.line import Said
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
UNTAKEN = frozenset({"seed"})
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
        messages=[turn for turn in turns if turn["role"] != "system"],
        # the SDK has no argument for it any more, older models still take it
        extra_body=rest,
        **({"system": system} if system else {}),
    )


def read(response: Any) -> Said | None:
    """Return what a response says, None if it is no message."""
    blocks = getattr(response, "content", None)
    if not isinstance(blocks, list):
        return None
    usage = response.usage
    return Said(
        text="".join(block.text for block in blocks if block.type == "text"),
        is_whole=response.stop_reason in WHOLE if response.stop_reason else None,
        n_input_tokens=getattr(usage, "input_tokens", None),
        n_output_tokens=getattr(usage, "output_tokens", None),
    )

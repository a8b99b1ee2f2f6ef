"""A server on loopback that speaks the protocols of OpenAI and Anthropic; a word is a token.

The real SDKs talk to it, and get their answers whole or as a stream of server-sent events, a word
each. What it says is a function of the chat; faults come first, one a request.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Turns = list[dict[str, str]]


@dataclass
class ChatServer:
    """What it says, which settings it takes none of, what goes wrong, and what it was asked.

    A stream breaks off after so many words: the line, or, with `words_of_break`, by an error in it.
    """

    say: Callable[[Turns], str]
    untaken: frozenset[str] = frozenset()
    key: str | None = None
    faults: list[tuple[int, str]] = field(default_factory=list)
    breaks_after: int | None = None
    words_of_break: str = ""
    n_streamed: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    root: str = ""

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def fault(self, asked: dict[str, Any], key: str) -> tuple[int, str] | None:
        """The status and words of what goes wrong with a request."""
        if self.key is not None and key != self.key:
            return 401, "Incorrect API key provided"
        if asked["model"] == "none":
            return 404, "The model `none` does not exist"
        for name in self.untaken & asked.keys():
            return (
                400,
                f"Unsupported value: '{name}' does not support {asked[name]} with this model.",
            )
        return self.faults.pop(0) if self.faults else None


def completion(asked: dict[str, Any], words: list[str], limit: int) -> dict[str, Any]:
    n_asked = sum(len(turn["content"].split()) for turn in asked["messages"])
    message = {"role": "assistant", "content": " ".join(words[:limit]) or None}
    ending = "length" if len(words) > limit else "stop"
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": ending}],
        "usage": {
            "prompt_tokens": n_asked,
            "completion_tokens": min(limit, len(words)),
            "total_tokens": n_asked + min(limit, len(words)),
        },
    }


def message(asked: dict[str, Any], words: list[str], limit: int) -> dict[str, Any]:
    n_asked = sum(len(turn["content"].split()) for turn in asked["messages"])
    return {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": " ".join(words[:limit])}] if words else [],
        "stop_reason": "max_tokens" if len(words) > limit else "end_turn",
        "usage": {"input_tokens": n_asked, "output_tokens": min(limit, len(words))},
    }


def chunks(asked: dict[str, Any], words: list[str], limit: int) -> Iterator[dict[str, Any]]:
    """The events of a stream as OpenAI has them."""
    whole = completion(asked, words, limit)
    head = {**whole, "object": "chat.completion.chunk", "usage": None}
    said = words[:limit]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f" {word}" if at else word} for at, word in enumerate(said)]
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    ending = whole["choices"][0]["finish_reason"]
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": ending}]}
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": whole["usage"]}


def events(asked: dict[str, Any], words: list[str], limit: int) -> Iterator[dict[str, Any]]:
    """The events of a stream as Anthropic has them."""
    whole = message(asked, words, limit)
    begun = {**whole["usage"], "output_tokens": 1}
    start = {**whole, "content": [], "stop_reason": None, "usage": begun}
    yield {"type": "message_start", "message": start}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for at, word in enumerate(words[:limit]):
        delta = {"type": "text_delta", "text": f" {word}" if at else word}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"]}, "usage": usage}
    yield {"type": "message_stop"}


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    told: ChatServer

    def answer(self, status: int, body: str, kind: str = "application/json") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:1/v1")
        self.end_headers()
        self.wfile.write(data)

    def tell(self, found: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # whoever listens may hang up
            for at, event in enumerate(found):
                if self.told.breaks_after is not None and at > self.told.breaks_after:
                    if not self.told.words_of_break:
                        self.close_connection = True
                        return
                    event = {"type": "error", "error": {"message": self.told.words_of_break}}
                name = f"event: {event['type']}\n" if "type" in event else ""
                self.piece(f"{name}data: {json.dumps(event)}\n\n")
                self.told.n_streamed += 1
            self.piece("" if name else "data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

    def piece(self, text: str) -> None:
        if text:
            self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.told.asked.append({**asked, "path": self.path})
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        fault = self.told.fault(asked, self.headers.get("x-api-key") or bearer)
        if fault and fault[0] == 0:  # it hangs up
            self.close_connection = True
        elif fault and fault[0] == 200:
            self.answer(200, fault[1], "text/html" if fault[1][:1] == "<" else "application/json")
        elif fault:
            self.answer(fault[0], json.dumps({"error": {"message": fault[1], "code": None}}))
        else:
            words = self.told.say(asked["messages"]).split(" ")
            words = [word for word in words if word]
            is_anthropic = self.path.endswith("/messages")
            limit = asked.get("max_tokens") or asked["max_completion_tokens"]
            if asked.get("stream"):
                self.tell((events if is_anthropic else chunks)(asked, words, limit))
            else:
                form = message if is_anthropic else completion
                self.answer(200, json.dumps(form(asked, words, limit)))

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(say: Callable[[Turns], str], **more: Any) -> Iterator[ChatServer]:
    """Serve until the block ends."""
    server = ChatServer(say, **more)
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Chat,), {"told": server}))
    server.root = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()

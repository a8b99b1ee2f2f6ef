"""A server on loopback that speaks the protocols of OpenAI and Anthropic; a word is a token.

The real SDKs talk to it, and get their answers whole or as a stream of server-sent events, one word
each. An answer is a function of the chat; faults come first, one a request.
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
    """How it answers, which settings it refuses, what goes wrong, and the requests it received.

    With `breaks_after` a stream breaks off after that number of words: the connection is closed,
    or, with a `break_message`, an error is sent in it.
    """

    say: Callable[[Turns], str]
    unsupported: frozenset[str] = frozenset()
    key: str | None = None
    faults: list[tuple[int, str]] = field(default_factory=list)
    breaks_after: int | None = None
    break_message: str = ""
    n_streamed: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    root: str = ""

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def fault(self, request: dict[str, Any], key: str) -> tuple[int, str] | None:
        """The status and message of what goes wrong with a request."""
        if self.key is not None and key != self.key:
            return 401, "Incorrect API key provided"
        if request["model"] == "none":
            return 404, "The model `none` does not exist"
        for name in self.unsupported & request.keys():
            return (
                400,
                f"Unsupported value: '{name}' does not support {request[name]} with this model.",
            )
        return self.faults.pop(0) if self.faults else None


def completion(request: dict[str, Any], tokens: list[str], limit: int) -> dict[str, Any]:
    n_input = sum(len(turn["content"].split()) for turn in request["messages"])
    message = {"role": "assistant", "content": " ".join(tokens[:limit]) or None}
    ending = "length" if len(tokens) > limit else "stop"
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": ending}],
        "usage": {
            "prompt_tokens": n_input,
            "completion_tokens": min(limit, len(tokens)),
            "total_tokens": n_input + min(limit, len(tokens)),
        },
    }


def message(request: dict[str, Any], tokens: list[str], limit: int) -> dict[str, Any]:
    n_input = sum(len(turn["content"].split()) for turn in request["messages"])
    return {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [{"type": "text", "text": " ".join(tokens[:limit])}] if tokens else [],
        "stop_reason": "max_tokens" if len(tokens) > limit else "end_turn",
        "usage": {"input_tokens": n_input, "output_tokens": min(limit, len(tokens))},
    }


def chunks(request: dict[str, Any], tokens: list[str], limit: int) -> Iterator[dict[str, Any]]:
    """The events of a stream as OpenAI has them."""
    whole = completion(request, tokens, limit)
    head = {**whole, "object": "chat.completion.chunk", "usage": None}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f" {word}" if at else word} for at, word in enumerate(tokens[:limit])]
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    ending = whole["choices"][0]["finish_reason"]
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": ending}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": whole["usage"]}


def events(request: dict[str, Any], tokens: list[str], limit: int) -> Iterator[dict[str, Any]]:
    """The events of a stream as Anthropic has them."""
    whole = message(request, tokens, limit)
    begun = {**whole["usage"], "output_tokens": 1}
    start = {**whole, "content": [], "stop_reason": None, "usage": begun}
    yield {"type": "message_start", "message": start}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for at, word in enumerate(tokens[:limit]):
        delta = {"type": "text_delta", "text": f" {word}" if at else word}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"]}, "usage": usage}
    yield {"type": "message_stop"}


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ChatServer

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

    def send_events(self, stream: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may hang up
            for at, event in enumerate(stream):
                if self.state.breaks_after is not None and at > self.state.breaks_after:
                    if not self.state.break_message:
                        self.close_connection = True
                        return
                    event = {"type": "error", "error": {"message": self.state.break_message}}
                name = f"event: {event['type']}\n" if "type" in event else ""
                self.piece(f"{name}data: {json.dumps(event)}\n\n")
                self.state.n_streamed += 1
            self.piece("" if name else "data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

    def piece(self, text: str) -> None:
        if text:
            self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.requests.append({**request, "path": self.path})
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        fault = self.state.fault(request, self.headers.get("x-api-key") or bearer)
        if fault and fault[0] == 0:  # the server hangs up
            self.close_connection = True
        elif fault and fault[0] == 200:
            self.answer(200, fault[1], "text/html" if fault[1][:1] == "<" else "application/json")
        elif fault:
            self.answer(fault[0], json.dumps({"error": {"message": fault[1], "code": None}}))
        else:
            tokens = [word for word in self.state.say(request["messages"]).split(" ") if word]
            is_anthropic = self.path.endswith("/messages")
            limit = request.get("max_tokens") or request["max_completion_tokens"]
            if request.get("stream"):
                self.send_events((events if is_anthropic else chunks)(request, tokens, limit))
            else:
                form = message if is_anthropic else completion
                self.answer(200, json.dumps(form(request, tokens, limit)))

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(say: Callable[[Turns], str], **more: Any) -> Iterator[ChatServer]:
    """Serve until the block ends."""
    server = ChatServer(say, **more)
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Chat,), {"state": server}))
    server.root = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()

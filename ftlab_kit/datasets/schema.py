"""The schema of a normalised row. Whatever a source holds, a version holds rows of one kind.

    chat        {"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}
    preference  {"prompt": [...], "chosen": [{"role": "assistant", ...}], "rejected": [...]}
    label       {"prompt": [...], "completion": [{"role": "assistant", ...}], "label": true}
    text        {"text": "..."}

A chat may begin with a system turn; then user and assistant alternate, and the assistant has the
last turn. An assistant turn may call tools (`tool_calls`); the `tool` turns that follow hold their
results, and then the assistant goes on. A turn with `"train": false` is only context. Other keys of
a row are kept unchanged.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from ftlab_kit.datasets.json_strict import ENCODE, Fault, may_have_duplicate_keys

ROLES = ("system", "user", "assistant", "tool")
CHAT_EXAMPLE = (
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
)
PREFERENCE_EXAMPLE = (
    '{"prompt": [{"role": "user", "content": "..."}], '
    '"chosen": [{"role": "assistant", "content": "..."}], "rejected": [...]}'
)
CALLS_EXAMPLE = '[{"type": "function", "function": {"name": "...", "arguments": {...}}}]'
# the fields that hold turns, in reading order
TURN_FIELDS = ("messages", "prompt", "chosen", "rejected", "completion")
# the answers of a row, each of which follows the prompt
ANSWER_FIELDS = {"preference": ("chosen", "rejected"), "label": ("completion",)}
KINDS = ("chat", "preference", "label", "text")

Chat = list[dict[str, Any]]
Row = dict[str, Any]


def kind(row: Row) -> str:
    """Return which of KINDS a row is."""
    if "messages" in row:
        return "chat"
    return "preference" if "chosen" in row else "label" if "completion" in row else "text"


def conversations(row: Row) -> list[Chat]:
    """Return the chats that a row trains: itself, or one with each answer; none for a text."""
    if kind(row) == "chat":
        return [row["messages"]]
    return [[*row["prompt"], *row[field]] for field in ANSWER_FIELDS.get(kind(row), ())]


def messages(row: Row) -> Chat:
    """Return the turns of a row, for a preference with the chosen answer; none for a text."""
    chats = conversations(row)
    return chats[0] if chats else []


def answers(row: Row) -> str:
    """Return the assistant's turns of a row as one text, a line each; of a text, all of it."""
    if kind(row) == "text":
        return str(row["text"])
    return "\n".join(turn["content"] for turn in messages(row) if turn["role"] == "assistant")


def question(row: Row) -> str:
    """Return the user's turns of a row as one text, a line each; '' for a text."""
    return "\n".join(turn["content"] for turn in messages(row) if turn["role"] == "user")


def dialogue(row: Row) -> str:
    """Return what user and assistant say in a row: without system turns, which many rows share."""
    if kind(row) == "text":
        return str(row["text"])
    return "\n".join(
        turn["content"]
        for chat in conversations(row)
        for turn in chat
        if turn["role"] not in ("system", "tool")
    )


def texts(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the place and content of each text in a row: ("messages[0].content", "Hi")."""
    if kind(row) == "text":
        yield "text", row["text"]
    for field in TURN_FIELDS:
        for index, turn in enumerate(row.get(field) or ()):
            yield f"{field}[{index}].content", turn["content"]


def with_texts(row: Row, change: Callable[[str], str]) -> Row:
    """Return a row with a function applied to each of its texts."""
    if kind(row) == "text":
        return {**row, "text": change(row["text"])}
    changed = {
        field: [{**turn, "content": change(turn["content"])} for turn in row[field]]
        for field in TURN_FIELDS
        if field in row
    }
    return {**row, **changed}


def transcript(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the role and text of each turn; an answer has its field's name in place of a role."""
    if kind(row) == "text":
        yield "text", row["text"]
        return
    for field in TURN_FIELDS:
        for turn in row.get(field) or ():
            calls = turn.get("tool_calls")
            text = turn["content"] or (json.dumps(calls) if calls else "")
            is_answer = turn["role"] == "assistant" and field not in ("messages", "prompt")
            yield (field if is_answer else turn["role"]), text


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "user", "assistant"]
    content: str


class _PlainChat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Turn]


_decode_chats = msgspec.json.Decoder(list[_PlainChat]).decode


def decode_plain_chats(block: bytes) -> Sequence[Any] | None:
    """Return the chats of a block of lines; None unless all are certainly good and plain.

    Nearly all blocks are, and this reads them several times faster than line by line. The chats
    are meant for an encoder: objects with the fields of a row, not dicts.
    """
    lines = block.strip()
    # every line end stays in place, so that one inside a string is still an error
    array = b"[" + lines.replace(b"\n", b"\n,") + b"]"
    n_lines = len(array) - len(lines) - 1
    try:
        rows = _decode_chats(array)
        if len(rows) != n_lines or may_have_duplicate_keys(array, ENCODE(rows)):
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for row in rows:
        turns = row.messages
        for turn in turns:
            if not turn.content or turn.content.isspace():
                return None
        if not _is_alternating(tuple([turn.role for turn in turns])):
            return None
    return rows


def is_plain_chat(row: Any) -> bool:
    """Return whether a row is certainly a good chat without tools, whatever other keys it has."""
    if type(row) is not dict or "tools" in row or type(row.get("messages")) is not list:
        return False
    for turn in row["messages"]:
        if type(turn) is not dict or len(turn) != 2 or type(turn.get("role")) is not str:
            return False
        content = turn.get("content")
        if type(content) is not str or not content or content.isspace():
            return False
    return _is_alternating(tuple([turn["role"] for turn in row["messages"]]))


@lru_cache(maxsize=4096)
def _is_alternating(roles: tuple[str, ...]) -> bool:
    rest = roles[1:] if roles[:1] == ("system",) else roles
    return bool(rest) and rest == ("user", "assistant") * (len(rest) // 2)


def faults(row: Row) -> Iterator[Fault]:
    """Yield what is wrong with a normalised row, the outermost fault first."""
    row_kind = kind(row)
    if row_kind == "text":
        yield from _text_faults("text", row["text"])
        return
    yield from _tools_faults(row)
    if row_kind == "chat":
        yield from _turns_faults("messages", row["messages"])
        yield from _order_faults("messages", row["messages"])
        return
    answer_fields = ANSWER_FIELDS[row_kind]
    for field in ("prompt", *answer_fields):
        yield from _turns_faults(field, row[field])
    for field in answer_fields:
        yield from _order_faults(f"prompt + {field}", [*row["prompt"], *row[field]])
    if row_kind == "preference" and row["chosen"] == row["rejected"]:
        fix = "Leave the row out: two equal answers give no preference."
        yield Fault("rejected", "the same as chosen", "another answer", fix)
    if row_kind == "label" and not isinstance(row["label"], bool):
        fix = "Write true for a good answer, false for a bad one."
        yield Fault("label", describe_type(row["label"]), "true or false", fix)


def describe_type(value: Any) -> str:
    """Return the JSON type of a value as a phrase: 'a list', 'text', 'null'."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def _text_faults(field: str, value: Any) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield Fault(field, describe_type(value), "text", "Write it as one string.")
    elif not value.strip():
        yield Fault(field, "empty", "text", "Fill it in, or leave the row out.")


def _turns_faults(field: str, turns: Any) -> Iterator[Fault]:
    if not isinstance(turns, list) or not turns:
        got = "an empty list" if turns == [] else describe_type(turns)
        yield Fault(field, got, "a list of turns", f"Write {CHAT_EXAMPLE}.")
        return
    for index, turn in enumerate(turns):
        yield from _turn_faults(f"{field}[{index}]", turn)


def _turn_faults(field: str, turn: Any) -> Iterator[Fault]:
    if not isinstance(turn, dict):
        expected = "an object with role and content"
        yield Fault(field, describe_type(turn), expected, f"Write {CHAT_EXAMPLE}.")
        return
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        yield Fault(
            f"{field}.role",
            "missing" if role is None else repr(role)[:80],
            "'system', 'user', 'assistant' or 'tool'",
            "Rename the role: 'user' for a person, 'assistant' for the model.",
        )
    if "content" not in turn:
        yield Fault(f"{field}.content", "missing", "text", "Write it as one string.")
    elif not (content == "" and (turn.get("tool_calls") or role == "tool")):
        yield from _text_faults(f"{field}.content", content)
    if not isinstance(turn.get("train", True), bool):
        fix = "Write true or false, or leave train out."
        yield Fault(f"{field}.train", describe_type(turn["train"]), "true or false", fix)
    yield from _call_faults(f"{field}.tool_calls", role, turn.get("tool_calls"))


def _call_faults(field: str, role: Any, calls: Any) -> Iterator[Fault]:
    if calls is None:
        return
    fix = f"Write {CALLS_EXAMPLE}."
    if role != "assistant" or not isinstance(calls, list):
        got = describe_type(calls) if role == "assistant" else f"in a turn of {role!r}"
        yield Fault(field, got, "a list in a turn of 'assistant'", fix)
        return
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not isinstance(function["arguments"], dict):  # type: ignore[index]
            expected = "a function with its name, and its arguments as an object"
            yield Fault(f"{field}[{index}]", "something else", expected, fix)


def _tools_faults(row: Row) -> Iterator[Fault]:
    tools = row.get("tools")
    is_list = isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    if tools is not None and not is_list:
        fix = "Write the schema of each function as one object."
        yield Fault("tools", describe_type(tools), "a list of objects", fix)


def _order_faults(field: str, turns: Chat) -> Iterator[Fault]:
    """Yield what is wrong with the order of roles; the turns themselves are valid."""
    roles = [turn["role"] for turn in turns]
    may_follow: tuple[str, ...] = ("system", "user")
    for index, turn in enumerate(turns):
        role = turn["role"]
        if role not in may_follow:
            expected = " or ".join(repr(name) for name in may_follow if name != "system")
            fix = "Put the turns in order; join consecutive turns of one role."
            yield Fault(f"{field}[{index}].role", repr(role), expected, fix)
            return
        after_assistant = ("tool",) if turn.get("tool_calls") else ("user",)
        after = {"system": ("user",), "user": ("assistant",), "tool": ("tool", "assistant")}
        may_follow = after.get(role, after_assistant)
    if roles[-1] != "assistant":
        yield Fault(
            f"{field}[{len(roles) - 1}].role",
            f"{roles[-1]!r} in the last turn",
            "'assistant' in the last turn",
            "A row ends with the answer to train on: add it, or leave the row out.",
        )
    elif not any(turn["role"] == "assistant" and turn.get("train", True) for turn in turns):
        fix = "Leave train out of one answer, or leave the row out: nothing of it is trained."
        yield Fault(field, "no answer that is trained", "at least one", fix)

"""The one form of a row, and its rules. Whatever a file holds, a version holds rows of one kind.

    chat        {"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}
    preference  {"prompt": [...], "chosen": [{"role": "assistant", ...}], "rejected": [...]}
    label       {"prompt": [...], "completion": [{"role": "assistant", ...}], "label": true}
    text        {"text": "..."}

A chat may begin with a system turn; then user and assistant take turns, and the assistant has the
last word. An assistant's turn may call tools (`tool_calls`); the turns of the `tool` that follow
are its results, and then the assistant goes on. A turn with `"train": false` is context only.
Other keys of a row are kept as they are.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from ftlab_kit.datasets.json_strict import ENCODE, Fault, may_repeat

ROLES = ("system", "user", "assistant", "tool")
FORM = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
PREFERENCE = (
    '{"prompt": [{"role": "user", "content": "..."}], '
    '"chosen": [{"role": "assistant", "content": "..."}], "rejected": [...]}'
)
# the fields of turns, in the order in which they are read
TURNS = ("messages", "prompt", "chosen", "rejected", "completion")
KINDS = ("chat", "preference", "label", "text")

Chat = list[dict[str, Any]]
Row = dict[str, Any]


def kind(row: Row) -> str:
    """Return which of KINDS a row is."""
    if "messages" in row:
        return "chat"
    return "preference" if "chosen" in row else "label" if "completion" in row else "text"


def conversations(row: Row) -> list[Chat]:
    """Return the chats that a row teaches: itself, or one with each answer; none of a text."""
    known = {
        "chat": (),
        "preference": ("chosen", "rejected"),
        "label": ("completion",),
    }
    found = kind(row)
    if found == "chat":
        return [row["messages"]]
    return [[*row["prompt"], *row[side]] for side in known.get(found, ())]


def messages(row: Row) -> Chat:
    """Return the turns of a row, those with the better answer of a preference; none of a text."""
    found = conversations(row)
    return found[0] if found else []


def answers(row: Row) -> str:
    """Return what the assistant says in a row, turn by turn; a text whole."""
    if kind(row) == "text":
        return str(row["text"])
    return "\n".join(turn["content"] for turn in messages(row) if turn["role"] == "assistant")


def question(row: Row) -> str:
    """Return what is asked in a row, turn by turn; nothing of a text."""
    return "\n".join(turn["content"] for turn in messages(row) if turn["role"] == "user")


def texts(row: Row) -> Iterator[tuple[str, str]]:
    """Yield where each text of a row stands and what it says: ("messages[0].content", "Hi")."""
    if kind(row) == "text":
        yield "text", row["text"]
    for name in TURNS:
        for index, turn in enumerate(row.get(name) or ()):
            yield f"{name}[{index}].content", turn["content"]


def with_texts(row: Row, change: Callable[[str], str]) -> Row:
    """Return a row with each of its texts changed."""
    if kind(row) == "text":
        return {**row, "text": change(row["text"])}
    new = {
        name: [{**turn, "content": change(turn["content"])} for turn in row[name]]
        for name in TURNS
        if name in row
    }
    return {**row, **new}


def shown(row: Row) -> Iterator[tuple[str, str]]:
    """Yield who says what in a row; an answer is called what the row calls it."""
    if kind(row) == "text":
        yield "text", row["text"]
        return
    names = [name for name in TURNS if name in row]
    for name in names:
        for turn in row[name]:
            calls = turn.get("tool_calls")
            said = turn["content"] or (json.dumps(calls) if calls else "")
            is_answer = turn["role"] == "assistant" and name not in ("messages", "prompt")
            yield (name if is_answer else turn["role"]), said


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "user", "assistant"]
    content: str


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Turn]


_plain_chats = msgspec.json.Decoder(list[_Plain]).decode


def plain(block: bytes) -> Sequence[Any] | None:
    """Return the chats of a block of lines, if all are beyond doubt good and nothing else.

    Nearly all blocks are, and this reads them several times as fast as line by line. The chats are
    for an encoder: objects with the keys of the form, and no dicts.
    """
    lines = block.strip()
    # a line end stays where it was, so that none within a text goes unnoticed
    array = b"[" + lines.replace(b"\n", b"\n,") + b"]"
    n_lines = len(array) - len(lines) - 1
    try:
        rows = _plain_chats(array)
        if len(rows) != n_lines or may_repeat(array, ENCODE(rows)):
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


def is_good(row: Any) -> bool:
    """Return whether a row is beyond doubt a good chat, whatever else it holds: nearly all are."""
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
    """Yield what is wrong with a row that was brought to the form, the outermost first."""
    found = kind(row)
    if found == "text":
        yield from _text_faults("text", row["text"])
        return
    yield from _tools_faults(row)
    if found == "chat":
        yield from _chat_faults("messages", row["messages"])
        yield from _order_faults("messages", row["messages"])
        return
    names = ("prompt", "chosen", "rejected") if found == "preference" else ("prompt", "completion")
    for name in names:
        yield from _chat_faults(name, row[name])
    for name in names[1:]:
        yield from _order_faults(f"prompt + {name}", [*row["prompt"], *row[name]])
    if found == "preference" and row["chosen"] == row["rejected"]:
        cure = "Leave the row out: two equal answers teach nothing."
        yield Fault("rejected", "the same as chosen", "another answer", cure)
    if found == "label" and not isinstance(row["label"], bool):
        cure = "Say whether the answer is a good one: true or false."
        yield Fault("label", of_kind(row["label"]), "true or false", cure)


def of_kind(value: Any) -> str:
    """Return what a value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def _text_faults(field: str, value: Any) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield Fault(field, of_kind(value), "text", "Write what was said as one string.")
    elif not value.strip():
        cure = "Write what was said, or leave the row out."
        yield Fault(field, "empty", "text", cure)


def _chat_faults(field: str, turns: Any) -> Iterator[Fault]:
    if not isinstance(turns, list) or not turns:
        found = "an empty list" if turns == [] else of_kind(turns)
        yield Fault(field, found, "a list of turns", f"Write {FORM}.")
        return
    for index, turn in enumerate(turns):
        yield from _turn_faults(f"{field}[{index}]", turn)


def _turn_faults(field: str, turn: Any) -> Iterator[Fault]:
    if not isinstance(turn, dict):
        expected = "an object with role and content"
        yield Fault(field, of_kind(turn), expected, f"Write {FORM}.")
        return
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        yield Fault(
            f"{field}.role",
            "missing" if role is None else repr(role)[:80],
            "'system', 'user', 'assistant' or 'tool'",
            "Rename the role; a person is 'user', the model 'assistant'.",
        )
    if "content" not in turn:
        cure = "Write what was said as one string."
        yield Fault(f"{field}.content", "missing", "text", cure)
    elif not (content == "" and (turn.get("tool_calls") or role == "tool")):
        yield from _text_faults(f"{field}.content", content)
    if not isinstance(turn.get("train", True), bool):
        cure = "Write true or false, or leave it out."
        yield Fault(f"{field}.train", of_kind(turn["train"]), "true or false", cure)
    yield from _call_faults(f"{field}.tool_calls", role, turn.get("tool_calls"))


def _call_faults(field: str, role: Any, calls: Any) -> Iterator[Fault]:
    if calls is None:
        return
    form = '[{"type": "function", "function": {"name": "...", "arguments": {...}}}]'
    if role != "assistant" or not isinstance(calls, list):
        found = of_kind(calls) if role == "assistant" else f"in a turn of {role!r}"
        yield Fault(field, found, "a list in a turn of 'assistant'", f"Write {form}.")
        return
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not isinstance(function["arguments"], dict):  # type: ignore[index]
            expected = "a function with its name and its arguments as an object"
            yield Fault(f"{field}[{index}]", "another form", expected, f"Write {form}.")


def _tools_faults(row: Row) -> Iterator[Fault]:
    tools = row.get("tools")
    is_list = isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    if tools is not None and not is_list:
        cure = "Write the schema of each function as one object."
        yield Fault("tools", of_kind(tools), "a list of objects", cure)


def _order_faults(field: str, turns: Chat) -> Iterator[Fault]:
    """Yield what is wrong with who speaks after whom; the turns themselves are good."""
    roles = [turn["role"] for turn in turns]
    may_follow: tuple[str, ...] = ("system", "user")
    for index, turn in enumerate(turns):
        role = turn["role"]
        if role not in may_follow:
            due = " or ".join(repr(name) for name in may_follow if name != "system")
            cure = "Put the turns in order; join two turns in a row of one role."
            yield Fault(f"{field}[{index}].role", repr(role), due, cure)
            return
        after_call = ("tool",) if turn.get("tool_calls") else ("user",)
        follows = {"system": ("user",), "user": ("assistant",), "tool": ("tool", "assistant")}
        may_follow = follows.get(role, after_call)
    if roles[-1] != "assistant":
        yield Fault(
            f"{field}[{len(roles) - 1}].role",
            f"{roles[-1]!r} in the last turn",
            "'assistant' in the last turn",
            "A row ends with the answer to learn: add it, or leave the row out.",
        )
    elif not any(turn["role"] == "assistant" and turn.get("train", True) for turn in turns):
        cure = "Leave train out in one answer, or leave the row out: nothing is learnt from it."
        yield Fault(field, "no answer that is trained", "at least one", cure)

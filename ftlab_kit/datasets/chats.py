"""The one form of a row: {"messages": [{"role": "user", "content": "..."}, ...]}, and its rules.

A chat may begin with a system turn; then user and assistant take turns, and the assistant has the
last word. Other keys of a row are kept as they are.

A preference, for dpo, has the turns up to the question in `prompt` and one answer each in `chosen`
and `rejected`: {"prompt": [...], "chosen": [{"role": "assistant", ...}], "rejected": [...]}.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from ftlab_kit.records import Problem

ROLES = ("system", "user", "assistant")
FORM = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
PREFERENCE = (
    '{"prompt": [{"role": "user", "content": "..."}], '
    '"chosen": [{"role": "assistant", "content": "..."}], "rejected": [...]}'
)

Chat = list[dict[str, str]]


def parse(number: int, line: bytes) -> tuple[dict[str, Any] | None, Problem | None]:
    """Return the row of a line, or the problem that refuses it.

    Args:
        number: The line's number, from 1.
        line: Its bytes.
    """
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, Problem(
            line=number,
            field="line",
            found=f"no JSON ({error})",
            expected=f"one JSON object: {FORM}",
            cure="Check for unescaped quotes, a missing brace, or an object spread over lines.",
        )
    problem = next(_problems(number, row), None)
    return (None, problem) if problem else (row, None)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names[type(value)]


def _problems(number: int, row: Any) -> Iterator[Problem]:
    """Yield what is wrong with a row, the outermost first."""
    if not isinstance(row, dict):
        yield Problem(
            number, "line", _kind(row), f"an object: {FORM}", "Write one chat as one object."
        )
        return
    if "chosen" in row or "rejected" in row:
        yield from _preference_problems(number, row)
        return
    messages = row.get("messages")
    if "messages" not in row:
        keys = ", ".join(map(repr, list(row)[:5])) or "none"
        yield Problem(
            number, "messages", f"missing (keys: {keys})", "a list of turns", f"Write {FORM}."
        )
        return
    if not isinstance(messages, list) or not messages:
        found = "an empty list" if messages == [] else _kind(messages)
        yield Problem(number, "messages", found, "a list of turns", f"Write {FORM}.")
        return
    for index, turn in enumerate(messages):
        yield from _turn_problems(number, f"messages[{index}]", turn)
    yield from _order_problems(number, [turn["role"] for turn in messages])


def _preference_problems(number: int, row: dict[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with a row of a question and two answers."""
    for name in ("prompt", "chosen", "rejected"):
        turns = row.get(name)
        if not isinstance(turns, list) or not turns:
            found = "missing" if name not in row else _kind(turns)
            yield Problem(number, name, found, "a list of turns", f"Write {PREFERENCE}.")
            return
        for index, turn in enumerate(turns):
            yield from _turn_problems(number, f"{name}[{index}]", turn)
    for name in ("chosen", "rejected"):
        yield from _order_problems(
            number, [turn["role"] for turn in [*row["prompt"], *row[name]]], f"prompt + {name}"
        )


def _turn_problems(number: int, field: str, turn: Any) -> Iterator[Problem]:
    if not isinstance(turn, dict):
        expected = "an object with role and content"
        yield Problem(number, field, _kind(turn), expected, f"Write {FORM}.")
        return
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        yield Problem(
            number,
            f"{field}.role",
            "missing" if role is None else repr(role),
            "'system', 'user' or 'assistant'",
            "Rename the role; a person is 'user', the model 'assistant'.",
        )
    if not isinstance(content, str):
        found = "missing" if "content" not in turn else _kind(content)
        cure = "Write what was said as one string."
        yield Problem(number, f"{field}.content", found, "text", cure)
    elif not content.strip():
        cure = "Write what was said, or leave the row out."
        yield Problem(number, f"{field}.content", "empty", "text", cure)


def _order_problems(number: int, roles: list[str], field: str = "messages") -> Iterator[Problem]:
    start = 1 if roles[0] == "system" else 0
    for index, role in enumerate(roles[start:], start):
        due = "user" if (index - start) % 2 == 0 else "assistant"
        if role != due:
            cure = "Put the turns in order; join two turns in a row of one role."
            yield Problem(number, f"{field}[{index}].role", repr(role), repr(due), cure)
            return
    if roles[-1] != "assistant":
        yield Problem(
            number,
            f"{field}[{len(roles) - 1}].role",
            f"{roles[-1]!r} in the last turn",
            "'assistant' in the last turn",
            "A row ends with the answer to learn: add it, or leave the row out.",
        )


def kind(row: dict[str, Any]) -> str:
    """Return 'chat' or 'preference'."""
    return "preference" if "chosen" in row else "chat"


def messages(row: dict[str, Any]) -> Chat:
    """Return the turns of a row; those with the better answer of a preference."""
    found: Chat = row["messages"] if kind(row) == "chat" else [*row["prompt"], *row["chosen"]]
    return found


def sides(row: dict[str, Any]) -> list[Chat]:
    """Return the chats that a row teaches: itself, or one with each answer of a preference."""
    if kind(row) == "chat":
        return [row["messages"]]
    return [[*row["prompt"], *row[side]] for side in ("chosen", "rejected")]


def answers(row: dict[str, Any]) -> str:
    """Return what the assistant says in a row, turn by turn."""
    return "\n".join(turn["content"] for turn in messages(row) if turn["role"] == "assistant")

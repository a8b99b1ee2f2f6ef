"""The formats in which people store rows. Each is normalised by one function.

    preference  chosen, rejected; prompt, or both answers with the turns before them
    chat        messages, as OpenAI, TRL and this kit write them; tools
    sharegpt    conversations of {from, value}; system, tools
    kto         prompt, completion, label
    openorca    question, response; system_prompt
    dolly       instruction, response; context
    alpaca      instruction, output; input
    completion  prompt, completion
    text        text

A file has one format: the one that most of its first rows have. If its columns have other names, a
mapping tells them: from the format's field names to the file's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from ftlab_kit.datasets.json_strict import Fault
from ftlab_kit.datasets.schema import (
    CHAT_EXAMPLE,
    PREFERENCE_EXAMPLE,
    Chat,
    Row,
    describe_type,
)
from ftlab_kit.errors import InputError, nearest

ROW_KINDS = {"preference": "preference", "kto": "label", "text": "text"}  # all others: chat
ROLE_ALIASES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
LABELS = {"true": True, "false": False, "1": True, "0": False}


class RowError(Exception):
    """A row that can't be normalised, with its fault."""

    def __init__(self, fault: Fault) -> None:
        """Take the fault."""
        super().__init__(fault)
        self.fault = fault


class RowFormat(NamedTuple):
    """One format: the fields that identify it, those that are optional, and how to read a row."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Row], Row]
    example: str

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that the format reads."""
        return (*self.required, *self.optional)


def detect(rows: Iterable[Any]) -> str | None:
    """Return the format that most rows have; None if no row has one of FORMATS."""
    counts = Counter(name for row in rows if (name := _format_of(row)) is not None)
    return counts.most_common(1)[0][0] if counts else None


def _format_of(row: Any) -> str | None:
    if isinstance(row, list) and row and isinstance(row[0], dict) and "role" in row[0]:
        return "chat"  # turns without an object around them
    if not isinstance(row, dict):
        return None
    # a Parquet file has every column in every row, with null where a row has no value
    keys = {key for key, value in row.items() if value is not None}
    return next((name for name, fmt in FORMATS.items() if keys.issuperset(fmt.required)), None)


def check_columns(columns: Mapping[str, str]) -> None:
    """Check a mapping of columns before it is used.

    Raises:
        InputError: It names a field that no format has.
    """
    fields = sorted({name for fmt in FORMATS.values() for name in fmt.fields})
    for name in columns:
        if name not in fields:
            raise InputError(
                f"columns names the field {name!r}; expected fields of a format, such as prompt "
                f"and completion.{nearest(name, fields)} All of them: {', '.join(fields)}."
            )


def rename_columns(row: Any, columns: Mapping[str, str]) -> Any:
    """Return a row with the format's field names in place of the file's."""
    if not isinstance(row, dict) or not columns:
        return row
    field_of = {column: field for field, column in columns.items()}
    return {field_of.get(key, key): value for key, value in row.items()}


def read(name: str, row: Any) -> Row:
    """Return a row of a format, normalised; other keys stay as they are.

    Raises:
        RowError: It lacks a field that the format requires, or a field has the wrong type.
    """
    row_format = FORMATS[name]
    if name == "chat" and isinstance(row, list) and row and isinstance(row[0], dict):
        row = {"messages": row}
    if not isinstance(row, dict):
        expected = f"an object: {row_format.example}"
        fix = "Write each row as one object."
        raise RowError(Fault("line", describe_type(row), expected, fix))
    for field in row_format.required:
        if field not in row:
            raise RowError(_missing(field, row, name))
    normalised = row_format.read(row)
    extra = {
        key: value
        for key, value in row.items()
        if key not in row_format.fields and key not in normalised
    }
    return {**normalised, **extra}


def _missing(field: str, row: Row, name: str) -> Fault:
    keys = ", ".join(map(repr, [*row][:5])) or "none"
    fix = f"Write {FORMATS[name].example}, or name the fields' columns with columns=."
    if (other := _format_of(row)) is not None:
        fix = f"It looks like {other}, most rows like {name}: split them into two files."
    is_list = field in ("messages", "conversations")
    return Fault(field, f"missing (keys: {keys})", "a list of turns" if is_list else "a value", fix)


def _text(row: Row, field: str, *, may_be_empty: bool = False) -> str:
    value = row.get(field)
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str):
        raise RowError(Fault(field, describe_type(value), "text", "Write it as one string."))
    if not may_be_empty and not value.strip():
        raise RowError(Fault(field, "empty", "text", "Fill it in, or leave the row out."))
    return value


def _parsed(field: str, value: Any) -> Any:
    """Return a value that a table may hold as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            fix = "Write the list itself, or correct its text."
            fault = Fault(field, f"text that is not valid JSON ({error})", "a list", fix)
            raise RowError(fault) from None
    return value


def _with_tools(row: Row, normalised: Row) -> Row:
    tools = _parsed("tools", row.get("tools"))
    return {**normalised, "tools": tools} if tools else normalised


def _chat(row: Row) -> Row:
    return _with_tools(row, {"messages": _turns("messages", row["messages"])})


def _turns(field: str, value: Any, *, text_role: str | None = None) -> Any:
    """Return turns without their nulls.

    Args:
        text_role: Whose turn a plain text is; None where a text is not allowed.
    """
    if text_role is not None and isinstance(value, str) and value.lstrip()[:2] not in ("[{", "[]"):
        return [{"role": text_role, "content": value}]
    value = _parsed(field, value)
    if not isinstance(value, list):
        return value
    return [
        _turn(f"{field}[{index}]", turn) if isinstance(turn, dict) else turn
        for index, turn in enumerate(value)
    ]


def _turn(field: str, raw: Row) -> Row:
    turn = {key: value for key, value in raw.items() if value is not None}
    if turn.get("role") == "developer":
        turn["role"] = "system"
    if isinstance(turn.get("content"), list):
        turn["content"] = _joined_parts(f"{field}.content", turn["content"])
    if "weight" in turn:
        weight = turn.pop("weight")
        if weight not in (0, 1):
            fix = "Write 0 for a turn that is only context, 1 for one that is trained."
            raise RowError(Fault(f"{field}.weight", repr(weight)[:80], "0 or 1", fix))
        if not weight:
            turn["train"] = False
    if turn.get("train") is True:
        del turn["train"]  # the default
    if "tool_calls" in turn and not turn["tool_calls"]:
        del turn["tool_calls"]
    if isinstance(turn.get("tool_calls"), list):
        turn.setdefault("content", "")
        turn["tool_calls"] = [_tool_call(f"{field}.tool_calls", c) for c in turn["tool_calls"]]
    return turn


def _joined_parts(field: str, parts: list[Any]) -> Any:
    """Return the text of a content that is a list of parts, as in OpenAI's API."""
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type", "a part") if isinstance(part, dict) else describe_type(part)
            fix = "Leave the row out; a text model can't train on it."
            raise RowError(Fault(field, f"a part that is not text ({kind})", "text", fix))
    return "\n".join(part["text"] for part in parts)


def _tool_call(field: str, call: Any) -> Any:
    """Return a tool call with its arguments as an object, which is what chat templates expect."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    arguments = {} if arguments in (None, "") else arguments
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError) as error:
            fix = "Write the arguments as a JSON object."
            got = f"not valid JSON ({error})"
            raise RowError(Fault(f"{field}.arguments", got, "an object", fix)) from None
    return {**call, "type": "function", "function": {**function, "arguments": arguments}}


def _sharegpt(row: Row) -> Row:
    conversation = _parsed("conversations", row["conversations"])
    if not isinstance(conversation, list):
        fix = 'Write [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}].'
        got = describe_type(conversation)
        raise RowError(Fault("conversations", got, "a list of turns", fix))
    messages: Chat = []
    system = row.get("system") or row.get("system_prompt")
    if system:
        messages.append({"role": "system", "content": system})
    for index, turn in enumerate(conversation):
        field = f"conversations[{index}]"
        if not isinstance(turn, dict):
            fix = 'Write {"from": "human", "value": "..."}.'
            expected = "an object with from and value"
            raise RowError(Fault(field, describe_type(turn), expected, fix))
        messages.append(_turn(field, _sharegpt_turn(field, turn)))
    return _with_tools(row, {"messages": messages})


def _sharegpt_turn(field: str, turn: Row) -> Row:
    extra = {key: turn[key] for key in turn if key not in ("from", "value", "role", "content")}
    author, content = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if author == "function_call":
        call = _parsed(f"{field}.value", content)
        if not isinstance(call, dict) or "name" not in call:
            fix = 'Write {"name": "...", "arguments": {...}} as the value.'
            raise RowError(Fault(f"{field}.value", describe_type(call), "a tool call", fix))
        calls = [{"type": "function", "function": call}]
        return {"role": "assistant", "content": "", "tool_calls": calls, **extra}
    if not isinstance(author, str) or author not in ROLE_ALIASES:
        fix = "Rename the author: 'human' for a person, 'gpt' for the model."
        got = "missing" if author is None else repr(author)[:80]
        raise RowError(Fault(f"{field}.from", got, "'human', 'gpt', 'system' or 'tool'", fix))
    return {"role": ROLE_ALIASES[author], "content": content, **extra}


def _one_exchange(prompt: str, answer: str, system: str = "") -> Row:
    """Return a chat of one question and its answer."""
    first = [{"role": "system", "content": system}] if system.strip() else []
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": [*first, *turns]}


def _instruction(input_field: str, answer_field: str) -> Callable[[Row], Row]:
    """Return a reader of rows with an instruction, an optional input for it, and an answer."""

    def read(row: Row) -> Row:
        extra = _text(row, input_field, may_be_empty=True)
        prompt = _text(row, "instruction")
        prompt = f"{prompt}\n\n{extra}" if extra.strip() else prompt
        system = _text(row, "system", may_be_empty=True)
        return _one_exchange(prompt, _text(row, answer_field), system)

    return read


def _openorca(row: Row) -> Row:
    system = _text(row, "system_prompt", may_be_empty=True)
    return _one_exchange(_text(row, "question"), _text(row, "response"), system)


def _prompt_and_answers(row: Row, *answer_fields: str) -> list[Any]:
    """Return the turns of the prompt and of each answer, which may be texts or turns."""
    for field in answer_fields:
        if isinstance(row[field], str):
            _text(row, field)
    prompt = _turns("prompt", row["prompt"], text_role="user")
    return [prompt, *(_turns(name, row[name], text_role="assistant") for name in answer_fields)]


def _completion(row: Row) -> Row:
    prompt, answer = _prompt_and_answers(row, "completion")
    if not isinstance(prompt, list) or not isinstance(answer, list):
        field = "completion" if isinstance(prompt, list) else "prompt"
        got = describe_type(row[field])
        raise RowError(Fault(field, got, "text or turns", "Write it as one string."))
    return _with_tools(row, {"messages": [*prompt, *answer]})


def _kto(row: Row) -> Row:
    prompt, answer = _prompt_and_answers(row, "completion")
    label = row["label"]
    if isinstance(label, str):
        label = LABELS.get(label.strip().lower(), label)
    elif label in (0, 1):
        label = bool(label)
    return {"prompt": prompt, "completion": answer, "label": label}


def _preference(row: Row) -> Row:
    if row.get("prompt") is not None:
        prompt, chosen, rejected = _prompt_and_answers(row, "chosen", "rejected")
        if isinstance(prompt, list) and isinstance(row["prompt"], str):
            chosen, rejected = (_without_prompt(prompt, side) for side in (chosen, rejected))
        system = _text(row, "system", may_be_empty=True)
        if system and isinstance(prompt, list):
            prompt = [{"role": "system", "content": system}, *prompt]
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return _split_at_difference(*(_turns(name, row[name]) for name in ("chosen", "rejected")))


def _split_at_difference(chosen: Any, rejected: Any) -> Row:
    """Return a preference whose prompt is the turns that both chats begin with."""
    for field, side in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(side, list):
            got = f"missing, and {field} is not a chat"
            raise RowError(Fault("prompt", got, "the question", f"Write {PREFERENCE_EXAMPLE}."))
    n_shared = 0
    for ours, theirs in zip(chosen[:-1], rejected[:-1], strict=False):
        if ours != theirs:
            break
        n_shared += 1
    return {
        "prompt": chosen[:n_shared],
        "chosen": chosen[n_shared:],
        "rejected": rejected[n_shared:],
    }


def _without_prompt(prompt: Chat, answer: Any) -> Any:
    """Return an answer's turns without the prompt, which some files repeat before each answer."""
    repeats = isinstance(answer, list) and len(answer) > 1 and answer[: len(prompt)] == prompt
    return answer[len(prompt) :] if repeats else answer


def _plain_text(row: Row) -> Row:
    return {"text": _text(row, "text")}


# a row takes the first format whose required fields it has, so the more specific ones come first
FORMATS: dict[str, RowFormat] = {
    "preference": RowFormat(
        required=("chosen", "rejected"),
        optional=("prompt", "system", "tools"),
        read=_preference,
        example=PREFERENCE_EXAMPLE,
    ),
    "chat": RowFormat(
        required=("messages",), optional=("tools",), read=_chat, example=CHAT_EXAMPLE
    ),
    "sharegpt": RowFormat(
        required=("conversations",),
        optional=("system", "tools"),
        read=_sharegpt,
        example='{"conversations": [{"from": "human", "value": "..."}, '
        '{"from": "gpt", "value": "..."}]}',
    ),
    "kto": RowFormat(
        required=("prompt", "completion", "label"),
        optional=(),
        read=_kto,
        example='{"prompt": "...", "completion": "...", "label": true}',
    ),
    "openorca": RowFormat(
        required=("question", "response"),
        optional=("system_prompt",),
        read=_openorca,
        example='{"system_prompt": "...", "question": "...", "response": "..."}',
    ),
    "dolly": RowFormat(
        required=("instruction", "response"),
        optional=("context", "system"),
        read=_instruction("context", "response"),
        example='{"instruction": "...", "context": "...", "response": "..."}',
    ),
    "alpaca": RowFormat(
        required=("instruction", "output"),
        optional=("input", "system"),
        read=_instruction("input", "output"),
        example='{"instruction": "...", "input": "...", "output": "..."}',
    ),
    "completion": RowFormat(
        required=("prompt", "completion"),
        optional=("tools",),
        read=_completion,
        example='{"prompt": "...", "completion": "..."}',
    ),
    "text": RowFormat(required=("text",), optional=(), read=_plain_text, example='{"text": "..."}'),
}

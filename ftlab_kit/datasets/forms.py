"""The forms in which people keep rows, each brought to the one form by one function.

    preference  chosen, rejected; prompt, or both answers with the turns before them
    chat        messages, as OpenAI, TRL and this kit write them; tools
    sharegpt    conversations of {from, value}; system, tools
    kto         prompt, completion, label
    openorca    question, response; system_prompt
    dolly       instruction, response; context
    alpaca      instruction, output; input
    completion  prompt, completion
    text        text

A file has one form: the one that most of its first rows have. What its columns are called can be
said by a mapping, from a form's own names to the file's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from ftlab_kit.datasets.json_strict import Fault
from ftlab_kit.datasets.schema import FORM, PREFERENCE, Chat, Row, of_kind
from ftlab_kit.errors import InputError, nearest

KIND = {"preference": "preference", "kto": "label", "text": "text"}  # of a form's rows, else chats
SPEAKERS = {
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


class Misfit(Exception):
    """A row that can't be brought to the one form, with its fault."""

    def __init__(self, fault: Fault) -> None:
        """Take the fault."""
        super().__init__(fault)
        self.fault = fault


class Form(NamedTuple):
    """How a form is known and read: the fields it needs, those it may have, and its function."""

    needs: tuple[str, ...]
    may: tuple[str, ...]
    read: Callable[[Row], Row]
    shape: str

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that the form reads."""
        return (*self.needs, *self.may)


def detect(rows: Iterable[Any]) -> str | None:
    """Return the form that most rows have; None if none has a known one."""
    found = Counter(form for row in rows if (form := _of(row)) is not None)
    return found.most_common(1)[0][0] if found else None


def _of(row: Any) -> str | None:
    if isinstance(row, list) and row and isinstance(row[0], dict) and "role" in row[0]:
        return "chat"  # turns without an object around them
    if not isinstance(row, dict):
        return None
    # a parquet file has every column in every row, and null where there is nothing
    keys = {name for name, value in row.items() if value is not None}
    return next((name for name, form in FORMS.items() if keys.issuperset(form.needs)), None)


def check(columns: Mapping[str, str]) -> None:
    """Look at a mapping before it is used.

    Raises:
        InputError: It names a field that no form has.
    """
    known = sorted({name for form in FORMS.values() for name in form.fields})
    for name in columns:
        if name not in known:
            raise InputError(
                f"columns names the field {name!r}; expected fields of a form, such as prompt and "
                f"completion.{nearest(name, known)} All of them: {', '.join(known)}."
            )


def rename(row: Any, columns: Mapping[str, str]) -> Any:
    """Return a row with a form's own names in place of the file's."""
    if not isinstance(row, dict) or not columns:
        return row
    given = {source: name for name, source in columns.items()}
    return {given.get(name, name): value for name, value in row.items()}


def read(form: str, row: Any) -> Row:
    """Return a row in the one form.

    Raises:
        Misfit: It lacks what its file's form needs, or has it in another shape.
    """
    shape = FORMS[form]
    if form == "chat" and isinstance(row, list) and row and isinstance(row[0], dict):
        row = {"messages": row}
    if not isinstance(row, dict):
        expected = f"an object: {shape.shape}"
        raise Misfit(Fault("line", of_kind(row), expected, "Write one row as one object."))
    for name in shape.needs:
        if name not in row:
            keys = ", ".join(map(repr, [*row][:5])) or "none"
            cure = f"Write {shape.shape}, or say with columns what the fields are called."
            if (other := _of(row)) is not None:
                cure = f"It looks like {other}, most rows like {form}: part them into two files."
            fault = Fault(name, f"missing (keys: {keys})", _expected(name), cure)
            raise Misfit(fault)
    found = shape.read(row)
    rest = {
        name: value for name, value in row.items() if name not in shape.fields and name not in found
    }
    return {**found, **rest}


def _expected(name: str) -> str:
    return "a list of turns" if name in ("messages", "conversations") else "a value"


def _text(row: Row, name: str, *, may_be_empty: bool = False) -> str:
    value = row.get(name)
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str):
        cure = "Write it as one string."
        raise Misfit(Fault(name, of_kind(value), "text", cure))
    if not may_be_empty and not value.strip():
        raise Misfit(Fault(name, "empty", "text", "Write it, or leave the row out."))
    return value


def _parsed(field: str, value: Any) -> Any:
    """Return a value that a table keeps as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            cure = "Write the list itself, or mend its text."
            fault = Fault(field, f"text that is no JSON ({error})", "a list", cure)
            raise Misfit(fault) from None
    return value


def _with_tools(row: Row, found: Row) -> Row:
    tools = _parsed("tools", row.get("tools"))
    return {**found, "tools": tools} if tools else found


def _chat(row: Row) -> Row:
    return _with_tools(row, {"messages": _turns("messages", row["messages"])})


def _turns(field: str, value: Any, *, speaker: str | None = None) -> Any:
    """Return turns without what is null in them; one text is a turn of its speaker."""
    if speaker is not None and isinstance(value, str) and value.lstrip()[:2] not in ("[{", "[]"):
        return [{"role": speaker, "content": value}]
    value = _parsed(field, value)
    if not isinstance(value, list):
        return value
    return [
        _turn(f"{field}[{index}]", turn) if isinstance(turn, dict) else turn
        for index, turn in enumerate(value)
    ]


def _turn(field: str, turn: Row) -> Row:
    found = {name: value for name, value in turn.items() if value is not None}
    if found.get("role") == "developer":
        found["role"] = "system"
    if isinstance(found.get("content"), list):
        found["content"] = _joined(f"{field}.content", found["content"])
    if "weight" in found:
        weight = found.pop("weight")
        if weight not in (0, 1):
            cure = "Write 0 for a turn that is context only, 1 for one that is learnt."
            raise Misfit(Fault(f"{field}.weight", repr(weight)[:80], "0 or 1", cure))
        if not weight:
            found["train"] = False
    if found.get("train") is True:
        del found["train"]  # which is so anyway
    if "tool_calls" in found and not found["tool_calls"]:
        del found["tool_calls"]
    if isinstance(found.get("tool_calls"), list):
        found.setdefault("content", "")
        found["tool_calls"] = [_call(f"{field}.tool_calls", call) for call in found["tool_calls"]]
    return found


def _joined(field: str, parts: list[Any]) -> Any:
    """Return the text of a content in parts, as some vendors write it."""
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            what = part.get("type", "a part") if isinstance(part, dict) else of_kind(part)
            cure = "Leave the row out; a model of text can't learn from it."
            raise Misfit(Fault(field, f"a part that is no text ({what})", "text", cure))
    return "\n".join(part["text"] for part in parts)


def _call(field: str, call: Any) -> Any:
    """Return a call of a tool with its arguments as an object, which is what templates read."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    given = function.get("arguments")
    given = {} if given in (None, "") else given
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given)
        except (msgspec.DecodeError, RecursionError) as error:
            cure = "Write the arguments as a JSON object."
            fault = Fault(f"{field}.arguments", f"no JSON ({error})", "an object", cure)
            raise Misfit(fault) from None
    return {**call, "type": "function", "function": {**function, "arguments": given}}


def _sharegpt(row: Row) -> Row:
    turns = _parsed("conversations", row["conversations"])
    if not isinstance(turns, list):
        cure = 'Write [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}].'
        raise Misfit(Fault("conversations", of_kind(turns), "a list of turns", cure))
    found: Chat = []
    system = row.get("system") or row.get("system_prompt")
    if system:
        found.append({"role": "system", "content": system})
    for index, turn in enumerate(turns):
        field = f"conversations[{index}]"
        if not isinstance(turn, dict):
            raise Misfit(Fault(field, of_kind(turn), "an object with from and value", ""))
        found.append(_turn(field, _spoken(field, turn)))
    return _with_tools(row, {"messages": found})


def _spoken(field: str, turn: Row) -> Row:
    rest = {name: turn[name] for name in turn if name not in ("from", "value", "role", "content")}
    who, said = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if who == "function_call":
        call = _parsed(f"{field}.value", said)
        if not isinstance(call, dict) or "name" not in call:
            cure = 'Write {"name": "...", "arguments": {...}} as the value.'
            raise Misfit(Fault(f"{field}.value", of_kind(call), "a call of a tool", cure))
        calls = [{"type": "function", "function": call}]
        return {"role": "assistant", "content": "", "tool_calls": calls, **rest}
    if not isinstance(who, str) or who not in SPEAKERS:
        cure = "Rename the speaker; a person is 'human', the model 'gpt'."
        found = "missing" if who is None else repr(who)[:80]
        raise Misfit(Fault(f"{field}.from", found, "'human', 'gpt', 'system' or 'tool'", cure))
    return {"role": SPEAKERS[who], "content": said, **rest}


def _exchange(asked: str, said: str, system: str = "") -> Row:
    """Return a chat of one question and its answer."""
    first = [{"role": "system", "content": system}] if system.strip() else []
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return {"messages": [*first, *turns]}


def _instruction(more: str, answer: str) -> Callable[[Row], Row]:
    def read(row: Row) -> Row:
        given = _text(row, more, may_be_empty=True)
        asked = _text(row, "instruction")
        asked = f"{asked}\n\n{given}" if given.strip() else asked
        return _exchange(asked, _text(row, answer), _text(row, "system", may_be_empty=True))

    return read


def _openorca(row: Row) -> Row:
    system = _text(row, "system_prompt", may_be_empty=True)
    return _exchange(_text(row, "question"), _text(row, "response"), system)


def _pieces(row: Row, *names: str) -> list[Any]:
    """Return the prompt's turns and each answer's, whether they are texts or turns."""
    for name in names:
        if isinstance(row[name], str):
            _text(row, name)
    prompt = _turns("prompt", row["prompt"], speaker="user")
    return [prompt, *(_turns(name, row[name], speaker="assistant") for name in names)]


def _completion(row: Row) -> Row:
    prompt, answer = _pieces(row, "completion")
    if not isinstance(prompt, list) or not isinstance(answer, list):
        wrong = "completion" if isinstance(prompt, list) else "prompt"
        raise Misfit(Fault(wrong, of_kind(row[wrong]), "text or turns", "Write it as one string."))
    return _with_tools(row, {"messages": [*prompt, *answer]})


def _kto(row: Row) -> Row:
    prompt, answer = _pieces(row, "completion")
    words = {"true": True, "false": False, "1": True, "0": False}
    label = row["label"]
    if isinstance(label, str):
        label = words.get(label.strip().lower(), label)
    elif label in (0, 1):
        label = bool(label)
    return {"prompt": prompt, "completion": answer, "label": label}


def _preference(row: Row) -> Row:
    if row.get("prompt") is not None:
        prompt, chosen, rejected = _pieces(row, "chosen", "rejected")
        if isinstance(prompt, list) and isinstance(row["prompt"], str):
            chosen, rejected = (_after(prompt, side) for side in (chosen, rejected))
        system = _text(row, "system", may_be_empty=True)
        if system and isinstance(prompt, list):
            prompt = [{"role": "system", "content": system}, *prompt]
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    chosen, rejected = (_turns(name, row[name]) for name in ("chosen", "rejected"))
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(side, list):
            cure = f"Write {PREFERENCE}."
            raise Misfit(Fault("prompt", f"missing, and {name} is no chat", "the question", cure))
    n_alike = 0
    for ours, theirs in zip(chosen[:-1], rejected[:-1], strict=False):
        if ours != theirs:
            break
        n_alike += 1
    return {
        "prompt": chosen[:n_alike],
        "chosen": chosen[n_alike:],
        "rejected": rejected[n_alike:],
    }


def _after(prompt: Chat, side: Any) -> Any:
    """Return the turns after a question that some files say again before each answer."""
    is_again = isinstance(side, list) and len(side) > 1 and side[: len(prompt)] == prompt
    return side[len(prompt) :] if is_again else side


def _plain(row: Row) -> Row:
    return {"text": _text(row, "text")}


FORMS: dict[str, Form] = {
    "preference": Form(
        ("chosen", "rejected"), ("prompt", "system", "tools"), _preference, PREFERENCE
    ),
    "chat": Form(("messages",), ("tools",), _chat, FORM),
    "sharegpt": Form(
        ("conversations",),
        ("system", "tools"),
        _sharegpt,
        '{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
    ),
    "kto": Form(
        ("prompt", "completion", "label"),
        (),
        _kto,
        '{"prompt": "...", "completion": "...", "label": true}',
    ),
    "openorca": Form(
        ("question", "response"),
        ("system_prompt",),
        _openorca,
        '{"system_prompt": "...", "question": "...", "response": "..."}',
    ),
    "dolly": Form(
        ("instruction", "response"),
        ("context", "system"),
        _instruction("context", "response"),
        '{"instruction": "...", "context": "...", "response": "..."}',
    ),
    "alpaca": Form(
        ("instruction", "output"),
        ("input", "system"),
        _instruction("input", "output"),
        '{"instruction": "...", "input": "...", "output": "..."}',
    ),
    "completion": Form(
        ("prompt", "completion"), ("tools",), _completion, '{"prompt": "...", "completion": "..."}'
    ),
    "text": Form(("text",), (), _plain, '{"text": "..."}'),
}

"""JSON, read strictly: UTF-8, no key twice, no NaN, no nesting without end."""

import json
import re
from typing import Any, NamedTuple

import msgspec

DEEPEST = 64  # levels of nesting of a row
CODED = (b"\\u0022", b"\\u003a", b"\\u003A")
DECODE = msgspec.json.Decoder().decode
ENCODE = msgspec.json.Encoder().encode


class Fault(NamedTuple):
    """What is wrong with a row, before it is known in which line it stands."""

    field: str
    got: str
    expected: str
    fix: str


def decode(raw: bytes) -> tuple[Any, Fault | None]:
    """Return the value of a JSON text, or its fault."""
    try:
        value = DECODE(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, _no_json(raw, error)
    if may_repeat(raw, ENCODE(value)):
        key = _twice(raw)
        if key is not None:
            cure = "Keep one of them: which one counts is for no one to guess."
            return None, Fault(key or "line", "a key that is there twice", "every key once", cure)
    return value, None


def may_repeat(raw: bytes, same: bytes) -> bool:
    """Return whether a key may stand twice in a JSON text.

    Without its blanks a text is that of its value, or else it says something twice, or otherwise. A
    quote before a colon is a key, or stands within a text, and so in both, if it is not in code.

    Args:
        same: What its value is encoded to.
    """
    tight = msgspec.json.format(raw, indent=-1)
    if tight == same:
        return False
    coded = b"\\u00" in tight and any(part in tight for part in CODED)
    return coded or tight.count(b'":') != same.count(b'":')


def is_too_deep(raw: bytes, value: Any) -> bool:
    """Return whether a value is nested deeper than any row need be."""
    return raw.count(b"[") + raw.count(b"{") > DEEPEST and _depth(value) > DEEPEST


def _no_json(raw: bytes, error: Exception) -> Fault:
    form, cure = "one JSON object a line", "Check for unescaped quotes, a missing brace, or an"
    if isinstance(error, RecursionError):
        return too_deep()
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        found = f"no UTF-8 (byte {raw[wrong.start]:#04x} at place {wrong.start})"
        return Fault("line", found, "text in UTF-8", "Save the file as UTF-8.")
    if re.search(rb"[:\[,]\s*-?(NaN|Infinity)\b", raw):
        cure = "Write null, or leave the field out."
        return Fault("line", "NaN or Infinity, which JSON does not have", "a number", cure)
    return Fault("line", f"no JSON ({error})", form, f"{cure} object spread over lines.")


def too_deep() -> Fault:
    """Return the fault of a row that is nested too deep."""
    cure = "Leave the row out, or unfold what is nested."
    return Fault("line", "nested without end", f"at most {DEEPEST} levels", cure)


def _depth(value: Any) -> int:
    """Return how many levels a value has, no more than one beyond the deepest."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        inner: list[Any] = []
        for item in level:
            inner += item.values() if isinstance(item, dict) else item
        level = [item for item in inner if isinstance(item, dict | list)]
        depth += 1
    return depth


def _twice(raw: bytes) -> str | None:
    """Return a key that stands twice in one object."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            found.extend(key for key in keys if keys.count(key) > 1)

    json.loads(raw, object_pairs_hook=look, parse_int=str, parse_float=str)
    return found[0] if found else None

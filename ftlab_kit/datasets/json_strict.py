"""JSON, read strictly: UTF-8, no duplicate keys, no NaN, no unbounded nesting."""

import json
import re
from typing import Any, NamedTuple

import msgspec

MAX_DEPTH = 64  # levels of nesting in a row
ESCAPED_QUOTE_OR_COLON = (b"\\u0022", b"\\u003a", b"\\u003A")
DECODE = msgspec.json.Decoder().decode
ENCODE = msgspec.json.Encoder().encode


class Fault(NamedTuple):
    """What is wrong with a row, before its line number is known."""

    field: str
    got: str
    expected: str
    fix: str


def decode(raw: bytes) -> tuple[Any, Fault | None]:
    """Return the value of a JSON text, or its fault."""
    try:
        value = DECODE(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, _decoding_fault(raw, error)
    if may_have_duplicate_keys(raw, ENCODE(value)):
        key = _duplicate_key(raw)
        if key is not None:
            fix = "Keep one of them; the kit does not guess which one counts."
            return None, Fault(key or "line", "a duplicate key", "every key once", fix)
    return value, None


def may_have_duplicate_keys(raw: bytes, encoded: bytes) -> bool:
    """Return whether a JSON text may hold a key twice; False is certain.

    A text without duplicate keys, stripped of blanks, equals its re-encoded value unless it escapes
    characters differently. A quote before a colon ends a key or stands inside a string, and in
    either case occurs in both texts equally often, unless it is escaped as \\u0022.

    Args:
        encoded: The text's value, encoded again.
    """
    compact = msgspec.json.format(raw, indent=-1)
    if compact == encoded:
        return False
    is_escaped = b"\\u00" in compact and any(part in compact for part in ESCAPED_QUOTE_OR_COLON)
    return is_escaped or compact.count(b'":') != encoded.count(b'":')


def is_too_deep(raw: bytes, value: Any) -> bool:
    """Return whether a value is nested deeper than MAX_DEPTH."""
    return raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH


def _decoding_fault(raw: bytes, error: Exception) -> Fault:
    if isinstance(error, RecursionError):
        return too_deep()
    try:
        raw.decode()
    except UnicodeDecodeError as decoding:
        got = f"not UTF-8 (byte {raw[decoding.start]:#04x} at position {decoding.start})"
        return Fault("line", got, "text in UTF-8", "Save the file as UTF-8.")
    if re.search(rb"[:\[,]\s*-?(NaN|Infinity)\b", raw):
        fix = "Write null, or leave the field out."
        return Fault("line", "NaN or Infinity, which JSON does not have", "a number", fix)
    fix = "Check for unescaped quotes, a missing brace, or an object spread over lines."
    return Fault("line", f"not valid JSON ({error})", "one JSON object a line", fix)


def too_deep() -> Fault:
    """Return the fault of a row that is nested too deeply."""
    fix = "Flatten the row, or leave it out."
    return Fault("line", "nested too deeply", f"at most {MAX_DEPTH} levels", fix)


def _depth(value: Any) -> int:
    """Return how many levels a value has; counting stops one above MAX_DEPTH."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        children: list[Any] = []
        for container in level:
            children += container.values() if isinstance(container, dict) else container
        level = [child for child in children if isinstance(child, dict | list)]
        depth += 1
    return depth


def _duplicate_key(raw: bytes) -> str | None:
    """Return a key that occurs twice in one object."""
    duplicates: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            duplicates.extend(key for key in keys if keys.count(key) > 1)

    json.loads(raw, object_pairs_hook=collect, parse_int=str, parse_float=str)
    return duplicates[0] if duplicates else None

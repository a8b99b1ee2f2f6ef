"""JSON: whether the whole answer is JSON and, where a schema is set, whether it fits the schema.

JSON inside a fence or a sentence does not count: a program that reads the answer would fail too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ftlab_kit.errors import ConfigError
from ftlab_kit.evaluators.measures import (
    Counts,
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    means,
    ratio,
)

REQUIRES = frozenset({"answers"})
REQUIRED_SETTINGS = ()
MEASURES = (Measure("json_valid", True, ratio), Measure("json_schema", True, ratio))
INVALID = object()  # None is JSON's null


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return 1 for each answer that is JSON (that fits the schema), 0 for any other.

    Raises:
        ConfigError: The schema is not a JSON Schema.
    """
    counts: dict[str, list[Counts | None]] = {
        **means("json_valid", examples, lambda example: float(_value(example) is not INVALID))
    }
    if context.config.json_schema is None:
        counts["json_schema"] = [None] * len(examples)
        return EvaluatorResult(counts, {"schema": None})
    checker = validator(context.config.json_schema)

    def fits(example: Example) -> float:
        value = _value(example)
        return float(value is not INVALID and checker.is_valid(value))

    counts |= means("json_schema", examples, fits)
    return EvaluatorResult(counts, {"schema": checker.schema})


def _value(example: Example) -> Any:
    try:
        return msgspec.json.decode((example.answer or "").encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return INVALID


def validator(text_or_path: str) -> Any:
    """Return a validator for a schema, given as JSON or as the path of its file.

    Raises:
        ConfigError: It is neither.
    """
    from jsonschema import SchemaError, validators

    stripped = text_or_path.strip()
    is_text = stripped.startswith("{") or stripped in ("true", "false")
    try:
        text = stripped.encode() if is_text else Path(text_or_path).expanduser().read_bytes()
        schema = msgspec.json.decode(text)
        kind = validators.validator_for(schema)
        kind.check_schema(schema)
    except (OSError, msgspec.DecodeError, SchemaError) as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(
            f"json_schema is {text_or_path[:80]!r}; expected a JSON Schema as text or the path of "
            f"its file ({problem}). See https://json-schema.org for the format."
        ) from error
    return kind(schema)

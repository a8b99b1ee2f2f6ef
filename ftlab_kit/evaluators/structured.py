"""JSON: whether an answer as a whole is JSON, and, where a schema is set, what the schema asks for.

A fence or a word around it is no JSON: whoever reads the answer by program would fail too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ftlab_kit.errors import ConfigError
from ftlab_kit.evaluators.measures import Ask, Case, Counts, Measure, Scored, means, ratio

NEEDS = frozenset({"answers"})
WANTS = ()
MEASURES = (Measure("json_valid", True, ratio), Measure("json_schema", True, ratio))
BROKEN = object()


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return 1 for each answer that is JSON (of the schema), 0 for another.

    Raises:
        ConfigError: The schema is none.
    """
    counts: dict[str, list[Counts | None]] = {
        **means("json_valid", cases, lambda case: float(_value(case) is not BROKEN))
    }
    if ask.config.json_schema is None:
        return Scored({**counts, "json_schema": [None] * len(cases)}, {"schema": None})
    judge = validator(ask.config.json_schema)

    def fits(case: Case) -> float:
        value = _value(case)
        return float(value is not BROKEN and judge.is_valid(value))

    return Scored({**counts, **means("json_schema", cases, fits)}, {"schema": judge.schema})


def _value(case: Case) -> Any:
    try:
        return msgspec.json.decode((case.answer or "").encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return BROKEN


def validator(given: str) -> Any:
    """Return a validator for a schema, given as JSON or as the path of its file.

    Raises:
        ConfigError: It is neither.
    """
    from jsonschema import SchemaError, validators

    is_text = given.lstrip().startswith("{") or given.strip() in ("true", "false")
    try:
        text = given.encode() if is_text else Path(given).expanduser().read_bytes()
        schema = msgspec.json.decode(text)
        kind = validators.validator_for(schema)
        kind.check_schema(schema)
    except (OSError, msgspec.DecodeError, SchemaError) as error:
        words = str(error).splitlines()[0]
        raise ConfigError(
            f"json_schema is {given[:80]!r}; expected a JSON Schema as text or the path of its "
            f"file ({words}). See https://json-schema.org for the form."
        ) from error
    return kind(schema)

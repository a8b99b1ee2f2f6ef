"""Regex: whether a regular expression (Python's) is found in the answer."""

import re
from collections.abc import Sequence

from ftlab_kit.errors import ConfigError
from ftlab_kit.evaluators.measures import Ask, Case, Measure, Scored, means, ratio

NEEDS = frozenset({"answers"})
WANTS = ("pattern",)
MEASURES = (Measure("regex", True, ratio),)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return 1 for each answer in which the pattern is found, 0 for another.

    Raises:
        ConfigError: The pattern is no regular expression.
    """
    pattern = compiled(ask.config.pattern or "")
    found = means("regex", cases, lambda case: float(bool(pattern.search(case.answer or ""))))
    return Scored(found, {"pattern": pattern.pattern})


def compiled(text: str) -> re.Pattern[str]:
    """Return a pattern, compiled.

    Raises:
        ConfigError: It is no regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"pattern is {text!r}; expected a regular expression ({error}). Escape what is meant "
            "as it stands with a backslash."
        ) from error

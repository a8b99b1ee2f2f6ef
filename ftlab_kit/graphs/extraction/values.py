"""Values as documents write them: Markdown marks off, numbers with their units, yes and no."""

import re
from typing import Any, NamedTuple

MARKS = re.compile(r"\*\*|__|`")
MONEY = re.compile(r"(US\$|\$|€|£)\s?(\d[\d,]*(?:\.\d+)?)\s*(.*)$")
# after a space a lower-case letter is a unit (62 m), not a multiplier (62m, 62 M, 62 kB)
NUMBER = re.compile(
    r"(-?\d[\d,]*(?:\.\d+)?)(?:\s?([KMGT]|[kmgt](?=B))|([kmgt])|\s?)(B?|%)(?:\s+(\S.*))?$"
)
MULTIPLIERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
CURRENCIES = {"US$": "USD", "$": "USD", "€": "EUR", "£": "GBP"}
BOOLEANS = {"yes": True, "true": True, "no": False, "false": False}
MAX_UNIT_WORDS = 3  # with more, the text is a sentence that begins with a number


class Value(NamedTuple):
    """A value: its text, the number or boolean it stands for (else the text), and its unit."""

    text: str
    value: Any
    unit: str


def strip_markdown(text: str) -> str:
    """Return a text without Markdown's marks, its spaces single."""
    return re.sub(r"\s+", " ", MARKS.sub("", text)).strip()


def parse_value(text: str) -> Value:
    """Return a text as a value: '$1.25 per 1M tokens' is 1.25 USD per 1M tokens, 'Yes' is True."""
    text = strip_markdown(text)
    if text.lower() in BOOLEANS:
        return Value(text, BOOLEANS[text.lower()], "")
    if money := MONEY.fullmatch(text):
        unit = " ".join([CURRENCIES[money[1]], money[3].strip()]).strip()
        return Value(text, float(money[2].replace(",", "")), unit)
    if (match := NUMBER.fullmatch(text)) and len((match[5] or "").split()) <= MAX_UNIT_WORDS:
        multiplier = (match[2] or match[3] or "").lower()
        number = float(match[1].replace(",", "")) * MULTIPLIERS[multiplier]
        exact = int(number) if number.is_integer() else number
        return Value(text, exact, f"{match[4]} {match[5] or ''}".strip().lower())
    return Value(text, text, "")

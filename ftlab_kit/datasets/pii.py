"""Personal data (PII) and keys in text, recognised by their pattern: hints to check, not proof.

key     vendors' key prefixes, private keys, JSON web tokens
e-mail  name@host.tld
iban    with valid check digits
card    13 to 19 digits with a valid Luhn sum
phone   +49 30 1234567, (555) 123-4567, 030/12345
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

PHONE_DIGITS = range(8, 16)  # E.164 allows no more than fifteen


class Match(NamedTuple):
    """Personal data or a key in a text: its kind, and where it starts and ends."""

    kind: str
    start: int
    end: int


def _is_card(text: str) -> bool:
    """Return whether the digits of a text have a valid Luhn sum (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Return whether the check digits of an account number are valid (ISO 13616)."""
    plain = re.sub(r"\W", "", text)
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    count = sum(letter.isdigit() for letter in text)
    return count in PHONE_DIGITS and (count > 8 or text[0] == "+")


def _always(text: str) -> bool:
    return True


def _is_address(text: str) -> bool:
    """Return whether an address may be real: some domains are reserved for examples (RFC 2606)."""
    return not re.search(r"(^|[@.])(example(\.(com|net|org))?|test|invalid)$", text.lower())


KEY_HINTS = (
    *("sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA"),
    *("AIza", "hf_", "rpa_", "xox", "k_live_", "k_test_", "SG.", "npm_", "eyJ", "PRIVATE KEY"),
)
LONG_NUMBER = re.compile(r"\d(?:[ ()./-]{0,2}[\dA-Z]){7}")
# in order of precedence: text that one kind has matched can't be matched by a later one
KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "key": (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.{1,10000}?)-----END [A-Z ]*PRIVATE KEY-----"
            r"|\bsk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,200}"
            r"|\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{50,100}"
            r"|\bglpat-[A-Za-z0-9_-]{20}\b|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{35}"
            r"|\bhf_[A-Za-z0-9]{30,40}\b|\brpa_[A-Z0-9]{30,60}[a-z0-9]{0,8}\b"
            r"|\bxox[abprs]-[A-Za-z0-9-]{10,100}|\b[rsp]k_(?:live|test)_[A-Za-z0-9]{16,100}"
            r"|\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}|\bnpm_[A-Za-z0-9]{36}\b"
            r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}"
        ),
        _always,
    ),
    "e-mail": (
        re.compile(
            r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}\b"
        ),
        _is_address,
    ),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _is_iban),
    "card": (
        re.compile(
            r"(?<![\d.,-])[2-6]\d{3}(?:(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?P=gap)\d{1,7}"
            r"|(?P<by>[ -])\d{6}(?P=by)\d{5}|\d{9,15})(?![\d.,-]*\d)"
        ),
        _is_card,
    ),
    "phone": (
        re.compile(
            r"(?<![\w+.,-])(?:\+\d{1,3}(?:[ ./-]?\(?\d{1,5}\)?){2,6}"
            r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}|0\d{2,4}[ /-]\d{4,9})(?![\w-])"
        ),
        _is_phone,
    ),
}


def find(text: str) -> Iterator[Match]:
    """Yield the matches in a text, kind by kind."""
    matches: list[Match] = []
    # a cheap test first, because most texts hold nothing of the kind
    has_number = LONG_NUMBER.search(text) is not None
    may_have = dict.fromkeys(("iban", "card", "phone"), has_number)
    may_have |= {"e-mail": "@" in text, "key": any(hint in text for hint in KEY_HINTS)}
    for kind, (pattern, is_valid) in KINDS.items():
        if not may_have[kind]:
            continue
        for hit in pattern.finditer(text):
            start, end = hit.span()
            is_free = all(end <= match.start or start >= match.end for match in matches)
            if is_free and is_valid(hit[0]):
                matches.append(Match(kind, start, end))
                yield matches[-1]


def masked(text: str) -> str:
    """Return a match shortened so that it can be recognised but not used."""
    return text if len(text) < 5 else f"{text[:3]}…{text[-1]}"


def redact(text: str, kinds: frozenset[str]) -> str:
    """Return a text with [E-MAIL] and the like in place of matches of these kinds."""
    matches = [match for match in find(text) if match.kind in kinds]
    for match in sorted(matches, key=lambda match: -match.start):
        text = f"{text[: match.start]}[{match.kind.upper()}]{text[match.end :]}"
    return text

"""Personal data and keys in text, by their form: found to be looked at, never proof.

e-mail  name@host.tld                              card      13 to 19 digits, Luhn's sum right
phone   +49 30 1234567, (555) 123-4567, 030/12345  iban      its check digits right
key     what vendors' keys begin with, private keys, JSON web tokens
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

PHONE_DIGITS = range(8, 16)  # E.164 allows no more than fifteen


class Sight(NamedTuple):
    """What was found in a text, and from where to where."""

    kind: str
    start: int
    end: int


def _is_card(text: str) -> bool:
    """Return whether the digits of a text pass Luhn's test (ISO/IEC 7812-1)."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Return whether the check digits of an account number are right (ISO 13616)."""
    plain = re.sub(r"\W", "", text)
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    count = sum(letter.isdigit() for letter in text)
    return count in PHONE_DIGITS and (count > 8 or text[0] == "+")


def _is_so(text: str) -> bool:
    return True


def _is_address(text: str) -> bool:
    """Return whether an address may be someone's: some names are kept for examples (RFC 2606)."""
    return not re.search(r"(^|[@.])(example(\.(com|net|org))?|test|invalid)$", text.lower())


KEY_MARKS = (
    *("sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA"),
    *("AIza", "hf_", "rpa_", "xox", "k_live_", "k_test_", "SG.", "npm_", "eyJ", "PRIVATE KEY"),
)
LONG_NUMBER = re.compile(r"\d(?:[ ()./-]{0,2}[\dA-Z]){7}")
# in the order in which they are looked for; what one has found is no longer another's
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
        _is_so,
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


def find(text: str) -> Iterator[Sight]:
    """Yield what a text holds, kind by kind."""
    taken: list[Sight] = []
    # a quick look first: most texts hold nothing of the kind
    has_number = LONG_NUMBER.search(text) is not None
    may_have = dict.fromkeys(("iban", "card", "phone"), has_number)
    may_have |= {"e-mail": "@" in text, "key": any(mark in text for mark in KEY_MARKS)}
    for kind, (pattern, is_one) in KINDS.items():
        if not may_have[kind]:
            continue
        for match in pattern.finditer(text):
            start, end = match.span()
            is_free = all(end <= sight.start or start >= sight.end for sight in taken)
            if is_free and is_one(match[0]):
                taken.append(Sight(kind, start, end))
                yield taken[-1]


def masked(text: str) -> str:
    """Return a find so that it can be recognised and no longer used."""
    return text if len(text) < 5 else f"{text[:3]}…{text[-1]}"


def redact(text: str, kinds: frozenset[str]) -> str:
    """Return a text with [E-MAIL] and so on in place of what it holds."""
    sights = sorted((sight for sight in find(text) if sight.kind in kinds), key=lambda s: -s.start)
    for sight in sights:
        text = f"{text[: sight.start]}[{sight.kind.upper()}]{text[sight.end :]}"
    return text

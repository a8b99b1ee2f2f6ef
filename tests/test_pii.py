"""Personal data and keys are recognised by their pattern, and little else is."""

import json
import time
from pathlib import Path

import pytest

from ftlab_kit.datasets import pii

GSM8K = Path(__file__).parent / "data" / "gsm8k.jsonl"  # with every row that could be mistaken
# made up, like all of them here
KEY = "sk-proj-" + "a1B2" * 6


@pytest.mark.parametrize(
    ("text", "kind", "excerpt"),
    [
        ("Write to ann.o-b+c@firm.co.uk.", "e-mail", "ann.o-b+c@firm.co.uk"),
        ("Card 4111 1111 1111 1111, please", "card", "4111 1111 1111 1111"),
        ("Card 378282246310005", "card", "378282246310005"),
        ("call +49 30 1234567 now", "phone", "+49 30 1234567"),
        ("call (555) 123-4567 now", "phone", "(555) 123-4567"),
        ("call 0170 1234567 now", "phone", "0170 1234567"),
        ("to DE89 3704 0044 0532 0130 00 today", "iban", "DE89 3704 0044 0532 0130 00"),
        (f"key={KEY} ", "key", KEY),
        ("AKIAABCDEFGHIJKLMNOP", "key", "AKIAABCDEFGHIJKLMNOP"),
        ("hf_" + "a" * 34, "key", "hf_" + "a" * 34),
    ],
)
def test_personal_data_is_found(text: str, kind: str, excerpt: str):
    (match,) = pii.find(text)
    assert match.kind == kind
    assert text[match.start : match.end] == excerpt


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn's sum is wrong
        "0000 0000 0000 0000",
        "DE88 3704 0044 0532 0130 00",  # check digits are wrong
        "order 12345678, 2026-11-25 12:30:00, version 1.2.3.4",
        "3.14159265358979, 1,000,000,000 and 12-34-56",
        "from 0900-0130 we spent $14000-3920-1000",
        "a@b, @home, x@y.",
        "ann@firm.example, ann@example.com, ann@mail.example.org, root@host.test",
        "sk-short",
    ],
)
def test_other_numbers_and_words_are_not_personal_data(text: str):
    assert [*pii.find(text)] == []


def test_school_mathematics_is_not_personal():
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    texts = [row["question"] + "\n" + row["answer"] for row in rows]
    assert not [text for text in texts if any(pii.find(text))]


def test_redact_replaces_the_given_kinds():
    text = f"ann@firm.com, {KEY}, +49 30 1234567"
    assert pii.redact(text, frozenset(pii.KINDS)) == "[E-MAIL], [KEY], [PHONE]"
    assert pii.redact(text, frozenset({"key"})) == "ann@firm.com, [KEY], +49 30 1234567"


def test_a_masked_key_cannot_be_used():
    assert pii.masked(KEY) == "sk-…2"


def test_no_text_takes_more_than_linear_time():
    began = time.process_time()  # not the clock: other work may take the processor
    for part in ("a@", "+1 ", "1 ", "0123-", "-----BEGIN PRIVATE KEY-----", "eyJ.", "A1 "):
        assert len([*pii.find(part * 20_000)]) < 20_000
    assert time.process_time() - began < 20

"""Rows that say nearly the same are found, and no others."""

import random

from ftlab_kit.datasets import near_duplicates
from ftlab_kit.datasets.near_duplicates import Sets

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "en", "ick", "o")]


def essay(seed: int, n_words: int = 80) -> list[str]:
    return random.Random(seed).choices(WORDS, k=n_words)


def jaccard(one: str, other: str) -> float:
    runs = [
        {*zip(text.split(), text.split()[1:], text.split()[2:], strict=False)}
        for text in (one, other)
    ]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_a_row_with_a_word_changed_is_found_with_its_share():
    texts = [" ".join(essay(seed)) for seed in range(300)]
    changed = essay(7)
    changed[40] = "else"
    texts.append(" ".join(changed))
    (pair,) = near_duplicates.near(texts)
    assert (pair.row, pair.of) == (300, 7)
    assert abs(pair.share - jaccard(texts[300], texts[7])) < 1e-9


def test_pairs_below_the_threshold_are_left_alone():
    texts = [" ".join(essay(1)), " ".join(essay(1)[:40] + essay(2)[:40])]
    assert jaccard(*texts) < 0.5
    assert near_duplicates.near(texts) == []


def test_nearly_all_near_rows_are_found():
    """At 0.8 one pair in 400 is missed; here every one shares more."""
    texts = [" ".join(essay(seed)) for seed in range(500)]
    for seed in range(500):
        words = essay(seed)
        words[seed % 80] = "else"
        texts.append(" ".join(words))
    sets = Sets(len(texts))
    for pair in near_duplicates.near(texts):
        sets.unite(pair.row, pair.of)
    assert sum(sets.first(500 + seed) == seed for seed in range(500)) >= 498


def test_case_and_punctuation_do_not_matter():
    assert near_duplicates.near(["My coat leaks!", "my  COAT, leaks"])[0].share == 1.0


def test_scripts_without_spaces_are_read_letter_by_letter():
    text = "私のコートは肩のところから水が漏れていて困っています"
    assert near_duplicates.near([text, text[:-1] + "ね", "靴が欲しい"])[0].of == 0


def test_few_or_no_rows_have_no_pairs():
    assert (
        near_duplicates.near([])
        == near_duplicates.near(["a"])
        == near_duplicates.near(["", "a b"])
        == []
    )


def test_sets_are_known_by_their_first_row_in_whatever_order_they_are_made():
    for order in ([(4, 2), (2, 0), (3, 1)], [(2, 0), (3, 1), (4, 2)]):
        sets = Sets(5)
        for pair in order:
            sets.unite(*pair)
        assert [sets.first(row) for row in range(5)] == [0, 1, 0, 1, 0]


def test_equal_keys_are_one_set_and_none_is_no_key():
    sets = Sets(4)
    sets.unite_equal(["a", None, "a", None])
    assert [sets.first(row) for row in range(4)] == [0, 1, 0, 3]

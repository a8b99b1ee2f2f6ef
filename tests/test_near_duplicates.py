"""Near duplicates are found, and no other rows."""

import random

from ftlab_kit.datasets import near_duplicates
from ftlab_kit.datasets.near_duplicates import DisjointSets

VOCABULARY = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "en", "ick", "o")]


def essay(seed: int, n_words: int = 80) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=n_words)


def jaccard(one: str, other: str) -> float:
    shingles = [
        {*zip(text.split(), text.split()[1:], text.split()[2:], strict=False)}
        for text in (one, other)
    ]
    return len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])


def test_a_row_with_one_word_changed_is_found_with_its_similarity():
    texts = [" ".join(essay(seed)) for seed in range(300)]
    changed = essay(7)
    changed[40] = "else"
    texts.append(" ".join(changed))
    (pair,) = near_duplicates.find_pairs(texts)
    assert (pair.row, pair.of) == (300, 7)
    assert abs(pair.share - jaccard(texts[300], texts[7])) < 1e-9


def test_pairs_below_the_threshold_are_not_reported():
    texts = [" ".join(essay(1)), " ".join(essay(1)[:40] + essay(2)[:40])]
    assert jaccard(*texts) < 0.5
    assert near_duplicates.find_pairs(texts) == []


def test_nearly_all_near_duplicates_are_found():
    """At 0.8 one pair in 400 is missed; here every one shares more."""
    texts = [" ".join(essay(seed)) for seed in range(500)]
    for seed in range(500):
        changed = essay(seed)
        changed[seed % 80] = "else"
        texts.append(" ".join(changed))
    sets = DisjointSets(len(texts))
    for pair in near_duplicates.find_pairs(texts):
        sets.unite(pair.row, pair.of)
    assert sum(sets.first(500 + seed) == seed for seed in range(500)) >= 498


def test_case_and_punctuation_do_not_matter():
    assert near_duplicates.find_pairs(["My coat leaks!", "my  COAT, leaks"])[0].share == 1.0


def test_scripts_without_spaces_are_compared_by_character():
    text = "私のコートは肩のところから水が漏れていて困っています"
    assert near_duplicates.find_pairs([text, text[:-1] + "ね", "靴が欲しい"])[0].of == 0


def test_few_or_no_rows_have_no_pairs():
    assert (
        near_duplicates.find_pairs([])
        == near_duplicates.find_pairs(["a"])
        == near_duplicates.find_pairs(["", "a b"])
        == []
    )


def test_sets_are_named_by_their_first_row_whatever_the_order():
    for order in ([(4, 2), (2, 0), (3, 1)], [(2, 0), (3, 1), (4, 2)]):
        sets = DisjointSets(5)
        for pair in order:
            sets.unite(*pair)
        assert [sets.first(row) for row in range(5)] == [0, 1, 0, 1, 0]


def test_equal_keys_are_one_set_and_none_is_not_a_key():
    sets = DisjointSets(4)
    sets.unite_equal(["a", None, "a", None])
    assert [sets.first(row) for row in range(4)] == [0, 1, 0, 3]

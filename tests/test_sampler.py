from itertools import islice

import pytest

from ftlab_kit.trainers.run.sampler import ShuffledSampler

LENGTHS = [(7 * number) % 50 + 10 for number in range(203)]


def take(count: int, **options: int) -> list[int]:
    options = {"batch": 4, "seed": 1, **options}
    return [*islice(ShuffledSampler(LENGTHS, **options), count)]


def test_each_pass_has_each_row_once():
    seen = take(4 * 203)  # whole batches and whole passes
    assert sorted(seen) == sorted([*range(203)] * 4)
    assert {*take(200)} <= {*range(203)} and len({*take(200)}) == 200


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    assert take(500) == take(500)
    assert take(500) != take(500, seed=2)


def test_a_later_pass_has_another_order():
    seen = take(406)
    assert seen[:203] != seen[203:]


def test_the_stream_can_be_entered_at_any_batch():
    whole = take(4 * 300)
    for start in (0, 1, 7, 8, 50, 51, 123):
        assert take(4 * 20, start=start) == whole[4 * start : 4 * (start + 20)]


def test_a_batch_is_a_random_sample_sorted_by_length():
    seen = take(4 * 200)
    batches = [[LENGTHS[row] for row in seen[at : at + 4]] for at in range(0, len(seen), 4)]
    assert all(batch == sorted(batch) for batch in batches)
    spread = sum(max(batch) - min(batch) for batch in batches) / len(batches)
    assert spread == pytest.approx(50 * 3 / 5, rel=0.1)  # of four drawn evenly from 50 lengths


def test_processes_share_the_long_rows():
    alone, shared = take(4), take(4, processes=2)
    assert shared == [alone[0], alone[2], alone[1], alone[3]]


def test_a_batch_is_repeated_as_often_as_set():
    stream = ShuffledSampler(LENGTHS, 4, 1)
    stream.repeats = 2
    once, twice = take(40), [*islice(stream, 80)]
    assert twice[:4] == twice[4:8] == once[:4]
    assert twice[8:12] == twice[12:16] == once[4:8]


def test_a_batch_larger_than_the_rows_repeats_them():
    assert sorted(islice(ShuffledSampler([5, 6, 7], 8, 0), 8 * 3)) == sorted([0, 1, 2] * 8)

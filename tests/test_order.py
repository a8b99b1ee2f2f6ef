from itertools import islice

from ftlab_kit.trainers.order import WINDOW, RowStream

LENGTHS = [(7 * number) % 50 + 10 for number in range(203)]


def take(count: int, **how: int) -> list[int]:
    how = {"batch": 4, "seed": 1, **how}
    return [*islice(RowStream(LENGTHS, **how), count)]


def test_each_pass_sees_each_row_once():
    # a window that two passes share holds rows of both
    seen = take(WINDOW * 4 * 203)
    assert sorted(seen) == sorted([*range(203)] * (WINDOW * 4))


def test_rows_come_back_no_sooner_than_a_fair_shuffle_brings_them():
    seen = take(203 * 3)
    for row in range(203):
        first, second, *_ = [at for at, found in enumerate(seen) if found == row]
        assert second < 203 * 2 + WINDOW * 4 and first < 203 + WINDOW * 4


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


def test_batches_hold_rows_of_like_length():
    seen = take(4 * 200)
    batches = [[LENGTHS[row] for row in seen[at : at + 4]] for at in range(0, len(seen), 4)]
    spread = [max(batch) - min(batch) for batch in batches]
    assert sum(spread) / len(spread) < 8  # 50 lengths, eight batches of four to sort


def test_a_batch_is_given_as_often_as_asked():
    once, twice = take(40), take(80, repeats=2)
    assert twice[:4] == twice[4:8] == once[:4]
    assert twice[8:12] == twice[12:16] == once[4:8]


def test_fewer_rows_than_a_batch_are_seen_again_and_again():
    window = 8 * WINDOW * 3
    assert sorted(islice(RowStream([5, 6, 7], 8, 0), window)) == sorted([0, 1, 2] * 8 * WINDOW)

import torch

from ftlab_kit.trainers.order import LengthOrder

LENGTHS = torch.randint(20, 400, (203,), generator=torch.Generator().manual_seed(0)).tolist()


def epoch(number: int, seed: int = 0) -> list[int]:
    order = LengthOrder(LENGTHS, 8, seed)
    order.set_epoch(number)
    return [*order]


def padding(order: list[int]) -> float:
    batches = [[LENGTHS[i] for i in order[at : at + 8]] for at in range(0, len(order), 8)]
    return 1 - sum(LENGTHS) / sum(max(batch) * len(batch) for batch in batches)


def test_every_row_comes_once_an_epoch():
    assert sorted(epoch(0)) == [*range(203)]
    assert len(LengthOrder(LENGTHS, 8, 0)) == 203


def test_the_order_follows_from_seed_and_epoch():
    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    assert epoch(1, seed=1) != epoch(1, seed=2)


def test_batches_are_not_always_the_same_rows():
    first, second = ({frozenset(epoch(n)[at : at + 8]) for at in range(0, 200, 8)} for n in (0, 1))
    assert len(first & second) <= 1


def test_padding_is_less_than_a_third_of_that_of_a_plain_shuffle():
    shuffled = torch.randperm(203, generator=torch.Generator().manual_seed(1)).tolist()
    assert padding(epoch(0)) < padding(shuffled) / 3

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftlab_kit import Workspace, datasets, models
from ftlab_kit.configs import Config
from ftlab_kit.models import likelihood, tokens, weights
from ftlab_kit.models.tokens import IGNORED, Encoded
from ftlab_kit.trainers import rows, sft


@pytest.fixture(scope="module")
def folder(lab: Workspace) -> Path:
    return models.get(lab, "tiny").path or Path()


def encoded(lab: Workspace, folder: Path) -> list[Encoded]:
    tokenizer = weights.tokenizer(folder)
    return [tokens.encode(tokenizer, row["messages"]) for row in datasets.rows(lab, "hues")]


def test_rows_without_a_trained_token_are_left_out_and_the_lines_stay():
    some, none = Encoded([1, 2], [IGNORED, 2], 0, True), Encoded([1], [IGNORED], 0, True)
    found = rows.at_once([none, some, none, some])
    assert (len(found), found.lines, found.lengths) == (2, [[2], [4]], [2, 2])


def test_a_row_that_is_encoded_when_needed_is_the_same(lab: Workspace, folder: Path):
    tokenizer = weights.tokenizer(folder)
    path = datasets.get(lab, "hues").path
    lazy = rows.when_needed(path, lambda row: tokens.encode(tokenizer, row["messages"]))
    assert [*lazy.encoded] == encoded(lab, folder)
    assert lazy.encoded[7] == encoded(lab, folder)[7]
    assert sum(lazy.lengths) == path.stat().st_size


@pytest.mark.parametrize(
    ("micro_batch", "shapes"),
    [(None, [(4, 40), (4, 200)]), (8, [(8, 200)]), (2, [(2, 40), (2, 40), (2, 200), (2, 200)])],
)
def test_a_processor_takes_a_batch_in_pieces_unless_it_is_told(
    micro_batch: int | None, shapes: list[tuple[int, int]]
):
    config = Config(micro_batch=micro_batch)
    trainer = SimpleNamespace(live=SimpleNamespace(config=config))
    trainer.count_rows = lambda inputs: len(inputs["input_ids"])
    lengths = torch.tensor([40] * 4 + [200] * 4)
    batch = {"input_ids": torch.ones(8, 200), "n_real": lengths}
    parts = sft.AnswerTrainer.pieces(trainer, batch, micro_batch or 8)
    assert [tuple(part["input_ids"].shape) for part in parts] == shapes


@pytest.mark.parametrize(
    ("lengths", "most", "ends"),
    [
        ([100] * 8, 8, [8]),  # one piece costs less than two
        ([100] * 16, 8, [8, 16]),
        ([300] * 5, 8, [3, 5]),  # a thousand tokens at a time
        ([2000, 2000], 8, [1, 2]),  # a row is never cut
        ([50, 50, 50, 250], 8, [3, 4]),
        ([100] * 4, 1, [1, 2, 3, 4]),
        ([7], 8, [1]),
    ],
)
def test_rows_are_cut_where_it_costs_least(lengths: list[int], most: int, ends: list[int]):
    assert sft.cut(lengths, most) == ends


def test_packs_hold_every_row_once_and_no_more_than_their_length(lab: Workspace, folder: Path):
    plain = rows.at_once(encoded(lab, folder))
    packs = rows.packed(plain, 128)
    assert sorted(line for lines in packs.lines for line in lines) == [*range(1, 21)]
    assert max(packs.lengths) <= 128 and len(packs) <= len(plain) / 2
    assert sum(packs.lengths) == sum(plain.lengths)
    trained = [sum(row.n_trained for row in side.encoded) for side in (plain, packs)]
    assert trained[0] == trained[1]


def test_rows_of_a_pack_do_not_see_each_other(lab: Workspace, folder: Path):
    model = weights.load(folder)
    plain = rows.at_once(encoded(lab, folder)[:4])
    alone = likelihood.nll(model, plain.encoded, pad_token_id=0)
    packs = rows.packed(plain, 256)
    assert len(packs) == 1
    assert together(model, packs) == pytest.approx(sum(alone), rel=1e-5)
    spoilt = Encoded([*range(50, 50 + plain.lengths[0])], plain.encoded[0].labels, 0, True)
    others = rows.at_once([spoilt, *plain.encoded[1:]])
    own = likelihood.nll(model, [spoilt], pad_token_id=0)[0]
    changed = together(model, rows.packed(others, 256))
    assert changed - own == pytest.approx(sum(alone[1:]), rel=1e-5)


def together(model: Any, packs: rows.Rows) -> float:
    """The loss of packs as the trainer computes it, filled up with a short row beside them."""
    batch = sft._collate(0)(
        [
            {
                "input_ids": packs.encoded[0].input_ids,
                "labels": packs.encoded[0].labels,
                "position_ids": sft._positions((packs.parts or [])[0]),
            },
            {"input_ids": [5, 6, 7], "labels": [IGNORED] * 3, "position_ids": [0, 1, 2]},
        ]
    )
    batch.pop("n_real")
    with torch.no_grad():
        total, _ = likelihood.answer_loss(
            model, batch["input_ids"], batch["labels"], position_ids=batch["position_ids"]
        )
    return float(total)

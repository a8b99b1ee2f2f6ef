from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftlab_kit import Workspace, datasets, models
from ftlab_kit.configs import Config
from ftlab_kit.lm import likelihood, loading, tokens
from ftlab_kit.lm.tokens import IGNORED, Encoded
from ftlab_kit.trainers.run import rows, sft


@pytest.fixture(scope="module")
def folder(lab: Workspace) -> Path:
    return models.get(lab, "tiny").path or Path()


def encoded(lab: Workspace, folder: Path) -> list[Encoded]:
    tokenizer = loading.tokenizer(folder)
    return [tokens.encode(tokenizer, row["messages"]) for row in datasets.rows(lab, "hues")]


def test_rows_without_a_trained_token_are_left_out_and_lines_stay():
    some, none = Encoded([1, 2], [IGNORED, 2], 0, True), Encoded([1], [IGNORED], 0, True)
    eager = rows.eager([none, some, none, some])
    assert (len(eager), eager.lines, eager.lengths) == (2, [[2], [4]], [2, 2])


def test_a_lazy_row_is_encoded_like_an_eager_one(lab: Workspace, folder: Path):
    tokenizer = loading.tokenizer(folder)
    path = datasets.get(lab, "hues").path
    lazy = rows.lazy(path, lambda row: tokens.encode(tokenizer, row["messages"]))
    assert [*lazy.encoded] == encoded(lab, folder)
    assert lazy.encoded[7] == encoded(lab, folder)[7]
    assert sum(lazy.lengths) == path.stat().st_size


@pytest.mark.parametrize(
    ("micro_batch", "is_packed", "shapes"),
    [
        (None, True, [(1, 960)]),
        (2, True, [(1, 80), (1, 80), (1, 400), (1, 400)]),
        (None, False, [(4, 40), (4, 200)]),
        (8, False, [(8, 200)]),
        (2, False, [(2, 40), (2, 40), (2, 200), (2, 200)]),
    ],
)
def test_micro_batches_are_packed_where_the_model_can(
    folder: Path,
    micro_batch: int | None,
    is_packed: bool,
    shapes: list[tuple[int, int]],
):
    model = loading.load(folder)
    if not is_packed:
        model.set_attn_implementation("sdpa")
    trainer = SimpleNamespace(run_state=SimpleNamespace(config=Config(micro_batch=micro_batch)))
    trainer.count_rows, trainer.model = lambda inputs: len(inputs["n_real"]), model
    ids = [[*range(length)] for length in [40] * 4 + [200] * 4]
    parts = [
        *sft.ExactSFTTrainer.micro_batches(trainer, likelihood.pad(ids, ids, 0), micro_batch or 8)
    ]
    assert [tuple(part["input_ids"].shape) for part in parts] == shapes
    assert [row for part in parts for row in part["n_real"].tolist()] == [40] * 4 + [200] * 4
    assert sum(int((part["labels"][:, 1:] != IGNORED).sum()) for part in parts) == 960 - 8


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (1, 16 + 3 * 4)),
        ({"adapter_dropout": 0.1}, (1, 4 * 16)),
        ({"neftune_alpha": 5.0}, (4, 16)),
    ],
)
def test_rows_with_noise_of_their_own_share_no_prefix(
    folder: Path, changes: dict[str, Any], shape: tuple[int, int]
):
    trainer = SimpleNamespace(
        run_state=SimpleNamespace(config=Config(**changes)),
        count_rows=lambda inputs: len(inputs["n_real"]),
        model=loading.load(folder),
    )
    ids = [[*range(12), number, 5, 6, 7] for number in range(20, 24)]
    batch = likelihood.pad(ids, [[*[IGNORED] * 13, *row[13:]] for row in ids], 0)
    (part,) = sft.ExactSFTTrainer.micro_batches(trainer, batch, 8)
    assert tuple(part["input_ids"].shape) == shape
    assert int((part["labels"][:, 1:] != IGNORED).sum()) == 4 * 3


@pytest.mark.parametrize(
    ("lengths", "max_rows", "padded", "packed"),
    [
        ([100] * 8, 8, [8], [8]),  # one micro-batch costs less than two
        ([100] * 16, 8, [8, 16], [8, 16]),
        ([600] * 5, 8, [3, 5], [3, 5]),  # at most MAX_TOKENS
        ([4000, 4000], 8, [1, 2], [1, 2]),  # a row is never split
        ([50, 50, 50, 250], 8, [3, 4], [4]),
        ([100] * 4, 1, [1, 2, 3, 4], [1, 2, 3, 4]),
        ([7], 8, [1], [1]),
    ],
)
def test_micro_batches_end_where_it_costs_least(
    lengths: list[int], max_rows: int, padded: list[int], packed: list[int]
):
    assert sft.split_by_cost(lengths, max_rows, is_padded=True) == padded
    assert sft.split_by_cost(lengths, max_rows, is_padded=False) == packed


def test_packs_hold_every_row_once_within_the_length(lab: Workspace, folder: Path):
    plain = rows.eager(encoded(lab, folder))
    packs = rows.packed(plain, 128)
    assert sorted(line for lines in packs.lines for line in lines) == [*range(1, 21)]
    assert max(packs.lengths) <= 128 and len(packs) <= len(plain) / 2
    assert sum(packs.lengths) == sum(plain.lengths)
    trained = [sum(row.n_trained for row in side.encoded) for side in (plain, packs)]
    assert trained[0] == trained[1]


def test_rows_of_a_pack_do_not_attend_to_each_other(lab: Workspace, folder: Path):
    model = loading.load(folder)
    plain = rows.eager(encoded(lab, folder)[:4])
    alone = likelihood.nll(model, plain.encoded, pad_token_id=0)
    packs = rows.packed(plain, 256)
    assert len(packs) == 1
    assert together(model, packs) == pytest.approx(sum(alone), rel=1e-5)
    spoilt = Encoded([*range(50, 50 + plain.lengths[0])], plain.encoded[0].labels, 0, True)
    others = rows.eager([spoilt, *plain.encoded[1:]])
    own = likelihood.nll(model, [spoilt], pad_token_id=0)[0]
    changed = together(model, rows.packed(others, 256))
    assert changed - own == pytest.approx(sum(alone[1:]), rel=1e-5)


def together(model: Any, packs: rows.Rows) -> float:
    """The loss of a pack and a short row, packed as in training; checked against padding."""
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
    inputs = likelihood.pack(**batch)
    del batch["n_real"], inputs["rows"]
    with torch.no_grad():
        padded, packed = (likelihood.summed_loss(model, **each)[0] for each in (batch, inputs))
    assert torch.allclose(padded, packed, rtol=1e-5)
    return float(packed)

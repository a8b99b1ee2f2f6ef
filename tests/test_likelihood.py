import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from ftlab_kit import Workspace, models
from ftlab_kit.lm import likelihood, loading, tokens
from ftlab_kit.lm.tokens import IGNORED, Encoded


@pytest.fixture(scope="module")
def model(lab: Workspace) -> Any:
    path = models.get(lab, "tiny").path
    assert path is not None
    return loading.load(path).eval()


def rows() -> list[Encoded]:
    generator = torch.Generator().manual_seed(0)
    encoded = []
    for length in (5, 12, 9, 30):
        ids = torch.randint(20, 49000, (length,), generator=generator).tolist()
        encoded.append(Encoded(ids, [*[IGNORED] * (length // 2), *ids[length // 2 :]], 0, True))
    return encoded


def from_full_logits(model: Any, row: Encoded) -> float:
    """The same loss from the model's own full logits."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
    targets = torch.tensor(row.labels[1:])
    return float(functional.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED))


def test_nll_equals_that_of_the_full_logits_in_any_batching(model: Any):
    sums = likelihood.nll(model, rows(), pad_token_id=0)
    assert sums == pytest.approx([from_full_logits(model, row) for row in rows()], rel=1e-5)


def test_chunking_changes_neither_loss_nor_gradient(model: Any, monkeypatch: pytest.MonkeyPatch):
    batch = [Encoded(row.input_ids * 20, row.labels * 20, 0, True) for row in rows()]
    ids, labels, _ = likelihood.pad(
        [row.input_ids for row in batch], [row.labels for row in batch], 0
    ).values()
    mask = likelihood.pad_right([[1] * len(row.input_ids) for row in batch], 0)
    weight = model.model.layers[0].mlp.up_proj.weight

    def loss_and_gradient() -> tuple[float, torch.Tensor]:
        model.zero_grad()
        total, _ = likelihood.summed_loss(model, ids, labels, attention_mask=mask)
        total.backward()
        return total.item(), weight.grad.clone()

    whole, gradient = loss_and_gradient()
    monkeypatch.setattr(likelihood, "CHUNK_CPU", 64 * 49152)
    parts, again = loss_and_gradient()
    assert parts == pytest.approx(whole, rel=1e-6)
    assert torch.allclose(gradient, again, rtol=1e-4, atol=1e-7)


def test_a_soft_cap_is_applied(model: Any):
    row = rows()[1]
    before = likelihood.nll(model, [row], pad_token_id=0)
    model.config.final_logit_softcapping = 0.01
    try:
        (capped,) = likelihood.nll(model, [row], pad_token_id=0)
    finally:
        del model.config.final_logit_softcapping
    assert capped == pytest.approx(row.n_trained * math.log(49152), rel=1e-3)
    assert before != [capped]


def test_batches_take_every_row_once_within_the_budget():
    lengths = [3, 50, 7, 7, 120, 1]
    batches = [*likelihood.batches(lengths, budget_tokens=60)]
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3, 4, 5]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 60


def test_prefixes_are_shared_in_the_groups_that_leave_the_fewest_tokens():
    prefix, more = [*range(100, 110)], [*range(200, 240)]
    ids = [[*prefix, 1, 2, 3], [*prefix, *more, 4, 5], [*prefix, *more, 6, 7], [*prefix, 8, 9]]
    padded = likelihood.pad(ids, [[*[IGNORED] * (len(row) - 1), row[-1]] for row in ids], 0)
    packed = likelihood.pack(**padded)
    assert packed["rows"].unique_consecutive().tolist() == [3, 0, 1, 2]
    # ten tokens of three rows in one group would be fewer than ten of two, and fifty of two
    assert [int((packed["rows"] == number).sum()) for number in range(4)] == [3, 52, 2, 12]
    assert packed["input_ids"][0, :15].tolist() == [*prefix, 8, 9, 1, 2, 3]


def test_encode_and_nll_count_the_same_tokens(lab: Workspace, model: Any):
    tokenizer = loading.tokenizer(models.get(lab, "tiny").path)
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    row = tokens.encode(tokenizer, chat)
    (nll,) = likelihood.nll(model, [row], pad_token_id=0)
    assert nll / row.n_trained == pytest.approx(math.log(49152), rel=0.05)

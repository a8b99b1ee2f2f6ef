"""The fast layers give the numbers and gradients of torch's, transformers' and PEFT's own."""

import copy
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners import lora as peft_lora
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from ftlab_kit import Workspace
from ftlab_kit.lm import likelihood, loading
from ftlab_kit.lm.fast import attention, fused, linear, lora, speed_up
from ftlab_kit.lm.tokens import IGNORED

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)
IDS = torch.arange(3, 43).reshape(2, 20)


def fresh(lab: Workspace, *, dropout: float = 0.0, adapter: bool = True) -> Any:
    """The tiny model as transformers and PEFT make it, with adapters that are not zero."""
    folder = lab.root / "models" / "tiny"
    with loading.quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if not adapter:
        return model
    config = LoraConfig(
        r=4, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    torch.manual_seed(0)
    with loading.quiet():
        model = get_peft_model(model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.05)
    return model


def learn(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a step and the gradients of all trained weights."""
    torch.manual_seed(7)
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss.detach(), {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_lora_layers_give_pefts_loss_and_gradients(lab: Workspace, dropout: float):
    model = fresh(lab, dropout=dropout).train()
    fast = speed_up(copy.deepcopy(model))
    assert sum(type(module) is lora.FastLoraLinear for module in fast.modules()) == 14
    (loss, grads), (fast_loss, fast_grads) = learn(model), learn(fast)
    assert torch.allclose(loss, fast_loss, rtol=1e-5)
    assert grads.keys() == fast_grads.keys()
    for name, grad in grads.items():
        assert torch.allclose(grad, fast_grads[name], rtol=1e-3, atol=1e-6), name


def test_full_training_gives_torchs_loss_and_gradients(lab: Workspace):
    model = fresh(lab, adapter=False).train()
    fast = speed_up(copy.deepcopy(model))
    (loss, grads), (fast_loss, fast_grads) = learn(model), learn(fast)
    assert torch.allclose(loss, fast_loss, rtol=1e-5)
    assert grads.keys() == fast_grads.keys() == dict(model.named_parameters()).keys()
    for name, grad in grads.items():
        assert torch.allclose(grad, fast_grads[name], rtol=1e-3, atol=1e-6), name


def test_a_layer_with_a_bias_gives_torchs_gradients():
    layer, x = nn.Linear(6, 4), torch.randn(3, 5, 6, requires_grad=True)
    fast = copy.deepcopy(layer)
    speed_up(fast)
    assert type(fast) is linear.FastLinear
    upstream = torch.randn(3, 5, 4)
    expected = torch.autograd.grad((layer(x) * upstream).sum(), [x, *layer.parameters()])
    grads = torch.autograd.grad((fast(x) * upstream).sum(), [x, *fast.parameters()])
    for one, other in zip(expected, grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_disabled_or_merged_adapter_gives_pefts_logits(lab: Workspace):
    model = fresh(lab).eval()
    fast = speed_up(copy.deepcopy(model))
    with torch.no_grad():
        with model.disable_adapter(), fast.disable_adapter():
            assert torch.allclose(model(IDS).logits, fast(IDS).logits, atol=1e-4)
        model.merge_adapter()
        fast.merge_adapter()
        assert torch.allclose(model(IDS).logits, fast(IDS).logits, atol=1e-4)


def test_two_active_adapters_are_left_to_peft(lab: Workspace):
    model = fresh(lab)
    model.add_adapter("other", model.peft_config["default"])
    fast = speed_up(copy.deepcopy(model))
    for one in (model, fast):
        one.base_model.set_adapter(["default", "other"])
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, fast(IDS).logits, atol=1e-4)


def test_a_deep_copy_of_a_fast_model_is_independent(lab: Workspace):
    fast = speed_up(fresh(lab)).eval()
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        before = fast(IDS).logits
        for weight in twin.parameters():
            weight.zero_()
        assert torch.equal(fast(IDS).logits, before)
        assert not torch.equal(twin(IDS).logits, before)


def test_a_fast_model_is_saved_and_loaded_like_any_other(lab: Workspace, tmp_path: Path):
    fast = speed_up(fresh(lab)).eval()
    fast.save_pretrained(tmp_path)
    again = loading.load(lab.root / "models" / "tiny", adapter=tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(fast(IDS).logits, again(IDS).logits)


def test_bf16_under_autocast_gives_nearly_the_gradients_of_fp32(lab: Workspace):
    model = fresh(lab).train()
    loss, grads = learn(speed_up(copy.deepcopy(model)))
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        small, small_grads = learn(speed_up(model))
    assert torch.allclose(loss, small, rtol=1e-2)
    for name, grad in grads.items():
        assert small_grads[name].dtype == torch.float32
        assert torch.cosine_similarity(grad.flatten(), small_grads[name].flatten(), 0) > 0.98


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor has no bf16 product in oneDNN, so PEFT's own layer computes",
)
def test_bf16_keeps_even_a_tiny_contribution_of_the_adapter(lab: Workspace):
    """PEFT rounds the layer's output before it adds the adapter's, and so loses most of it."""
    layer = layer_with_an_adapter(lab)
    x = torch.randn(4096, layer.in_features)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        b *= layer.base_layer(x).std() / (x @ a.t() @ b.t()).std() / 2000
        added = (x @ a.t() @ b.t()) * layer.scaling["default"]
        layer.base_layer.bfloat16()
        without = layer.base_layer(x.bfloat16()).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = [layer(x), peft_lora.Linear.forward(layer, x)]
    # the mean share of the contribution that is in the output
    ours, pefts = (
        float(((output.float() - without) * added).sum() / added.pow(2).sum()) for output in outputs
    )
    assert ours == pytest.approx(1.0, abs=0.1)
    assert pefts < 0.8


def layer_with_an_adapter(lab: Workspace) -> Any:
    model = speed_up(fresh(lab)).eval()
    return next(item for item in model.modules() if isinstance(item, lora.FastLoraLinear))


@pytest.mark.parametrize("lengths", [[2], [20], [400], [7, 1, 30, 2]])
def test_short_attention_gives_torchs_output_and_gradients(lengths: list[int]):
    n_tokens, is_packed = sum(lengths), len(lengths) > 1
    shapes = [(1 if is_packed else 2, heads, n_tokens, 8) for heads in (6, 2, 2)]
    heads = [torch.randn(shape, dtype=torch.float32, requires_grad=True) for shape in shapes]
    ends = [*accumulate(lengths)]
    spans = [attention.Span(end - own, end) for own, end in zip(lengths, ends, strict=True)]
    output = attention.ShortAttention.apply(*heads, 0.3, spans)
    repeated = [heads[0], *(each.repeat_interleave(3, dim=1) for each in heads[1:])]
    rows = zip(*(each.split(lengths, 2) for each in repeated), strict=True)
    expected = torch.cat(
        [functional.scaled_dot_product_attention(*row, is_causal=True, scale=0.3) for row in rows],
        2,
    ).transpose(1, 2)
    assert torch.allclose(output, expected, atol=1e-5)
    upstream = torch.randn_like(expected)
    grads = [torch.autograd.grad((each * upstream).sum(), heads) for each in (output, expected)]
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_no_token_attends_to_a_later_one(lab: Workspace):
    fast = speed_up(fresh(lab, adapter=False)).eval()
    assert fast.config._attn_implementation == attention.NAME
    other = IDS.clone()
    other[:, 12:] = 5
    with torch.no_grad():
        before, after = fast(IDS).logits, fast(other).logits
    assert torch.allclose(before[:, :12], after[:, :12], atol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-2)


FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 6},
    "gemma3_text": {
        "head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"],
    },
    "olmo2": {},
    "phi3": {"pad_token_id": 0},
    "gpt_neox": {},
}  # fmt: skip


@pytest.mark.parametrize("lengths", [[9, 3, 1, 14], [14]])
@pytest.mark.parametrize("longest", [attention.MAX_LENGTH[torch.float32], 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_sequences_are_computed_as_each_alone(
    monkeypatch: pytest.MonkeyPatch, family: str, longest: int, lengths: list[int]
):
    """At MAX_LENGTH 8 longer sequences go through torch's own attention."""
    monkeypatch.setitem(attention.MAX_LENGTH, torch.float32, longest)
    model = small(family, **FAMILIES[family])
    assert attention.can_pack(model)
    ids = torch.randint(1, 60, (sum(lengths),))
    places = torch.cat([torch.arange(length) for length in lengths])[None]
    with torch.no_grad():
        alone = [model(row[None], use_cache=False).logits for row in ids.split(lengths)]
        packed = model(
            ids[None],
            position_ids=places,
            attention_mask=attention.cu_seqlens(places),
            use_cache=False,
        ).logits
    assert torch.allclose(packed, torch.cat(alone, 1), atol=1e-4)


@pytest.mark.parametrize("longest", [attention.MAX_LENGTH[torch.float32], 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prefix_gives_the_gradients_of_separate_rows(
    monkeypatch: pytest.MonkeyPatch, family: str, longest: int
):
    monkeypatch.setitem(attention.MAX_LENGTH, torch.float32, longest)
    model = small(family, **FAMILIES[family])
    prefix = [*range(10, 19)]
    ids = [[*prefix, *own] for own in ([20, 21, 22, 23], [30, 31], [*range(40, 55)])]
    ids.insert(1, [5, 6, 7])  # a row without the prefix
    labels = [[*[IGNORED] * 10, *row[10:]] for row in ids]
    labels[1] = [IGNORED, 6, 7]
    padded = likelihood.pad(ids, labels, 0)
    packed = likelihood.pack(**padded)
    rows = packed.pop("rows")
    assert packed["input_ids"].tolist() == [[*ids[1], *ids[0], *ids[2][9:], *ids[3][9:]]]
    assert rows.tolist() == [[1] * 3 + [0] * 13 + [2] * 2 + [3] * 15]

    def learn(**inputs: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        total, _ = likelihood.summed_loss(model, **inputs)
        total.backward()
        return total.detach(), [weight.grad.clone() for weight in model.parameters()]

    del padded["n_real"]
    (expected, grads), (total, packed_grads) = learn(**padded), learn(**packed)
    assert torch.allclose(total, expected, rtol=1e-5)
    for one, other in zip(grads, packed_grads, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
        ("mamba", {}),
        ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"]}),
    ],
)
def test_models_with_recurrent_state_or_convolution_cannot_pack(family: str, more: dict[str, Any]):
    assert not attention.can_pack(small(family, **more))


def small(family: str, **more: Any) -> Any:
    """A model of a family with random weights and two layers."""
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
            **more,
        },
    )  # fmt: skip
    torch.manual_seed(0)
    return speed_up(AutoModelForCausalLM.from_config(config).eval())


class ShiftedRMSNorm(nn.Module):
    """A norm of another family, which adds one to its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.full((8,), 0.5)), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


def test_a_norm_with_another_formula_stays_as_it_is(lab: Workspace):
    shifted, plain = ShiftedRMSNorm(), fresh(lab, adapter=False)
    fused.use_fused_layers(shifted)
    assert "forward" not in vars(shifted)
    fused.use_fused_layers(plain)
    assert sum("forward" in vars(module) for module in plain.modules()) == 2 + 2 * 2 + 1


def test_fused_norm_and_gate_pass_gradcheck():
    x, y = (torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *args: fused.FusedRMSNorm.apply(*args, 1e-5), (x, weight)
    )
    assert torch.autograd.gradcheck(fused.FusedSwiGLU.apply, (x, y))

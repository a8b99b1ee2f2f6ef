"""The token mask shows what the trainer sees: it reads the trainer's own tokens."""

from pathlib import Path
from typing import Any

import pytest

from ftlab_kit import Workspace, datasets, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import DataError, InputError
from ftlab_kit.lm.tokens import IGNORED
from ftlab_kit.records import Mask
from tests.conftest import TINY, add_pairs, chats_file
from tests.test_formats import CALLING, HI, HO, RESULT, TOOLS
from tests.test_versions import add, chat

TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def model(ws: Workspace) -> Path:
    return models.pull(ws, "tiny").path or Path()


def text(mask: Mask, *roles: str) -> str:
    return "".join(token.text for token in mask.tokens if token.role in roles)


def test_the_answer_and_its_end_are_trained_and_the_rest_is_context(ws: Workspace):
    mask = datasets.mask(ws, add(ws, [chat("Hi", "Ho")]), "tiny")
    assert text(mask, "trained") == "Ho"
    assert text(mask, "end") == "<|im_end|>"
    assert text(mask, "context").endswith("<|im_start|>assistant\n\n")
    assert (mask.n_trained, mask.n_cut, text(mask, "cut")) == (2, 0, "")


def test_tokens_beyond_max_length_are_shown_as_cut(ws: Workspace):
    version = add(ws, [chat("Hi", "one two three four five six")])
    whole = datasets.mask(ws, version, "tiny")
    mask = datasets.mask(ws, version, "tiny", max_length=len(whole.tokens) - 3)
    assert [token.role for token in mask.tokens[-3:]] == ["cut"] * 3
    assert mask.n_cut + mask.n_trained == whole.n_trained
    assert text(mask, "context", "trained", "end", "cut") == text(
        whole, "context", "trained", "end"
    )


def test_the_mask_shows_what_the_trainer_reads(ws: Workspace, model: Path):
    version = datasets.add(ws, chats_file(ws.root / "hues.jsonl"))
    trained = tokenized.read(ws, version, model, 24)
    for row in range(version.n_rows):
        mask = datasets.mask(ws, version, "tiny", row=row, max_length=24)
        seen = [token for token in mask.tokens if token.role != "cut"]
        assert [token.id for token in seen] == trained[row].input_ids
        is_trained = [label != IGNORED for label in trained[row].labels]
        assert [token.role in ("trained", "end") for token in seen] == is_trained


def test_each_side_of_a_preference_has_a_mask(ws: Workspace):
    datasets.add(ws, chats_file(ws.root / "hues.jsonl"))
    pairs = add_pairs(ws)
    assert text(datasets.mask(ws, pairs, "tiny", row=1, side="rejected"), "trained") == "no idea"
    assert "green" in text(datasets.mask(ws, pairs, "tiny", row=1), "trained")
    with pytest.raises(InputError, match="side is 'other'; expected one of chosen, rejected"):
        datasets.mask(ws, pairs, "tiny", side="other")


def test_a_turn_with_train_false_is_context(ws: Workspace):
    first = {**HO, "content": "Nothing to learn", "train": False}
    mask = datasets.mask(ws, add(ws, [{"messages": [HI, first, HI, HO]}]), "tiny")
    assert text(mask, "trained", "end") == "Ho<|im_end|>"
    assert "Nothing to learn<|im_end|>" in text(mask, "context")


def test_all_tokens_of_a_text_are_trained(ws: Workspace):
    mask = datasets.mask(ws, add(ws, [{"text": "Once upon a time."}]), "tiny")
    assert text(mask, "trained") == "Once upon a time."
    assert text(mask, "end") == "<|im_end|>"
    assert mask.n_trained == len(mask.tokens)


def tool_rows() -> list[dict[str, Any]]:
    return [{"messages": [HI, CALLING, RESULT, HO], "tools": TOOLS}]


def test_a_tool_call_is_trained_and_its_result_is_not(ws: Workspace, model: Path):
    (model / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    mask = datasets.mask(ws, add(ws, tool_rows()), "tiny")
    trained = text(mask, "trained", "end")
    assert trained.startswith("<call>") and trained.endswith("</call><|im_end|>Ho<|im_end|>")
    assert '"town": "Bath"' in trained
    assert "Rain" in text(mask, "context") and "parameters" in text(mask, "context")


def test_a_template_without_tools_is_refused(ws: Workspace):
    with pytest.raises(DataError, match=r"leaves out the tools of a row \(weather\)"):
        datasets.mask(ws, add(ws, tool_rows()), "tiny")
    without = [{"messages": row["messages"]} for row in tool_rows()]
    with pytest.raises(DataError, match="does not write the call of weather at turn 1"):
        datasets.mask(ws, add(ws, without), "tiny")


def test_a_row_out_of_range_is_refused(ws: Workspace):
    with pytest.raises(InputError, match="row is 1; expected 0 to 0"):
        datasets.mask(ws, add(ws, [chat("Hi", "Ho")]), "tiny", row=1)


def test_preflight_and_the_mask_agree(ws: Workspace):
    version = add(ws, [chat("Hi", f"one two three {n}") for n in range(9)])
    checks = {
        check.name: check for check in trainers.preflight(ws, TINY.but(max_length=36), version)
    }
    masks = [datasets.mask(ws, version, "tiny", row=n, max_length=36) for n in range(9)]
    n_cut = sum(mask.n_cut > 0 for mask in masks)
    assert checks["whole answers"].got == f"{n_cut} of 9 rows are cut at 36 tokens"
    total = sum(len(mask.tokens) for mask in masks if not mask.n_cut)
    assert n_cut in (0, 9) and (n_cut or f"all rows {total}" in checks["length"].got)


def test_preflight_refuses_rows_of_the_wrong_kind_for_a_method(ws: Workspace):
    version = add(ws, [{"text": "Once."}])
    kind = {check.name: check for check in trainers.preflight(ws, TINY.but(method="dpo"), version)}
    assert kind["kind of rows"].got == "rows of kind text"
    assert not kind["kind of rows"].is_ok
    assert Config().max_length == datasets.mask(ws, version, "tiny").max_length

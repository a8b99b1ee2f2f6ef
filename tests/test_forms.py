"""The forms in which people keep rows, and what each becomes."""

from typing import Any

import pytest

from ftlab_kit.datasets import forms, schema
from ftlab_kit.errors import InputError

Row = dict[str, Any]
HI = {"role": "user", "content": "Hi"}
HO = {"role": "assistant", "content": "Ho"}
BE = {"role": "system", "content": "Be short."}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Bath"}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOLD = {"role": "tool", "content": "Rain"}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


@pytest.mark.parametrize(
    ("form", "row", "wanted"),
    [
        ("chat", {"messages": [BE, HI, HO], "id": 3}, {"messages": [BE, HI, HO], "id": 3}),
        ("chat", {"messages": [HI, HO], "tools": TOOLS}, {"messages": [HI, HO], "tools": TOOLS}),
        (
            "chat",
            {"messages": [HI, {**CALLS, "content": None}, TOLD, HO]},
            {"messages": [HI, CALLS, TOLD, HO]},
        ),
        (
            "chat",
            {"messages": [HI, {**HO, "weight": 0}, HI, {**HO, "weight": 1, "name": None}]},
            {"messages": [HI, {**HO, "train": False}, HI, HO]},
        ),
        (
            "chat",
            {"messages": [{**HI, "content": [{"type": "text", "text": "Hi"}]}, HO]},
            {"messages": [HI, HO]},
        ),
        ("chat", {"messages": '[{"role": "user", "content": "Hi"}]'}, {"messages": [HI]}),
        ("chat", [HI, HO], {"messages": [HI, HO]}),
        (
            "sharegpt",
            {
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "function_call", "value": '{"name": "weather", "arguments": "{}"}'},
                    {"from": "observation", "value": "Rain"},
                    {"from": "gpt", "value": "Ho", "weight": 0},
                ],
                "system": "Be short.",
                "source": "x",
            },
            {
                "messages": [
                    BE,
                    HI,
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [
                            {
                                "type": "function",
                                "function": {"name": "weather", "arguments": {}},
                            }
                        ],
                    },
                    TOLD,
                    {**HO, "train": False},
                ],
                "source": "x",
            },
        ),
        ("alpaca", {"instruction": "Hi", "input": "", "output": "Ho"}, {"messages": [HI, HO]}),
        (
            "alpaca",
            {"instruction": "Add", "input": "1, 2", "output": "Ho"},
            {"messages": [{**HI, "content": "Add\n\n1, 2"}, HO]},
        ),
        ("dolly", {"instruction": "Hi", "context": "", "response": "Ho"}, {"messages": [HI, HO]}),
        (
            "openorca",
            {"id": "a", "system_prompt": "Be short.", "question": "Hi", "response": "Ho"},
            {"messages": [BE, HI, HO], "id": "a"},
        ),
        ("completion", {"prompt": "Hi", "completion": "Ho"}, {"messages": [HI, HO]}),
        ("completion", {"prompt": [BE, HI], "completion": [HO]}, {"messages": [BE, HI, HO]}),
        (
            "preference",
            {"prompt": "Hi", "chosen": "Ho", "rejected": "No"},
            {"prompt": [HI], "chosen": [HO], "rejected": [{**HO, "content": "No"}]},
        ),
        (
            "preference",
            {"chosen": [HI, HO], "rejected": [HI, {**HO, "content": "No"}]},
            {"prompt": [HI], "chosen": [HO], "rejected": [{**HO, "content": "No"}]},
        ),
        (
            "preference",
            {"prompt": "Hi", "chosen": [HI, HO], "rejected": [HI, {**HO, "content": "No"}]},
            {"prompt": [HI], "chosen": [HO], "rejected": [{**HO, "content": "No"}]},
        ),
        (
            "kto",
            {"prompt": "Hi", "completion": "Ho", "label": "True"},
            {"prompt": [HI], "completion": [HO], "label": True},
        ),
        ("text", {"text": "Once.", "url": "x"}, {"text": "Once.", "url": "x"}),
    ],
)
def test_a_form_becomes_the_one_form(form: str, row: Row, wanted: Row):
    assert forms.detect([row]) == form
    assert forms.read(form, row) == wanted
    assert next(schema.faults({**wanted, **_ended(wanted)}), None) is None


def _ended(row: Row) -> Row:
    """A chat that a table cut off after its question is no good row, whatever its form."""
    is_cut = schema.kind(row) == "chat" and row["messages"][-1]["role"] == "user"
    return {"messages": [*row["messages"], HO]} if is_cut else {}


@pytest.mark.parametrize(
    ("form", "row", "field", "found"),
    [
        ("alpaca", {"instruction": "Hi", "output": 3}, "output", "a number"),
        ("alpaca", {"instruction": " ", "output": "Ho"}, "instruction", "empty"),
        ("alpaca", {"instruction": "Hi"}, "output", "missing"),
        ("sharegpt", {"conversations": "Hi"}, "conversations", "text"),
        ("sharegpt", {"conversations": [{"from": "cat"}]}, "conversations[0].from", "'cat'"),
        ("chat", {"messages": "[{"}, "messages", "text that is no JSON"),
        ("chat", {"messages": [{**HO, "weight": 0.5}]}, "messages[0].weight", "0.5"),
        (
            "chat",
            {"messages": [{**HI, "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            "image_url",
        ),
        ("preference", {"chosen": "Ho", "rejected": "No"}, "prompt", "missing"),
        ("completion", {"prompt": 3, "completion": "Ho"}, "prompt", "a number"),
    ],
)
def test_what_does_not_fit_its_form_is_named(form: str, row: Row, field: str, found: str):
    with pytest.raises(forms.Misfit) as caught:
        forms.read(form, row)
    assert caught.value.fault.field == field
    assert found in caught.value.fault.got


@pytest.mark.parametrize(
    ("row", "field", "found"),
    [
        ({"messages": [HI, CALLS, HO]}, "messages[2].role", "'assistant'"),
        ({"messages": [HI, TOLD, HO]}, "messages[1].role", "'tool'"),
        ({"messages": [HI, {**HO, "train": False}]}, "messages", "no answer that is trained"),
        ({"messages": [HI, {**HO, "train": "no"}]}, "messages[1].train", "text"),
        ({"messages": [{**HI, "tool_calls": []}, HO]}, "messages[0].tool_calls", "of 'user'"),
        ({"messages": [HI, HO], "tools": "weather"}, "tools", "text"),
        ({"prompt": [HI], "chosen": [HO], "rejected": [HO]}, "rejected", "the same as chosen"),
        ({"prompt": [HI], "completion": [HO], "label": 2}, "label", "a number"),
        ({"prompt": [], "completion": [HO], "label": True}, "prompt", "an empty list"),
    ],
)
def test_what_a_good_row_must_not_have_is_named(row: Row, field: str, found: str):
    fault = next(schema.faults(row))
    assert fault.field == field
    assert found in fault.got


def test_the_form_is_that_of_most_rows_not_of_the_first():
    rows = [{"text": "a"}, *[{"prompt": "a", "completion": "b"}] * 3, 7]
    assert forms.detect(rows) == "completion"
    assert forms.detect([{"a": 1}]) is None


def test_a_mapping_that_names_no_field_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'prompt'"):
        forms.check({"prompts": "question"})


def test_a_call_may_be_the_last_turn():
    assert next(schema.faults({"messages": [HI, CALLS], "tools": TOOLS}), None) is None

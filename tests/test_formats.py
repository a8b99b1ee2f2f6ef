"""The formats in which people store rows, and what each is normalised to."""

from typing import Any

import pytest

from ftlab_kit.datasets import formats, schema
from ftlab_kit.errors import InputError

Row = dict[str, Any]
HI = {"role": "user", "content": "Hi"}
HO = {"role": "assistant", "content": "Ho"}
BE = {"role": "system", "content": "Be short."}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Bath"}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "Rain"}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


@pytest.mark.parametrize(
    ("name", "row", "normalised"),
    [
        ("chat", {"messages": [BE, HI, HO], "id": 3}, {"messages": [BE, HI, HO], "id": 3}),
        ("chat", {"messages": [HI, HO], "tools": TOOLS}, {"messages": [HI, HO], "tools": TOOLS}),
        (
            "chat",
            {"messages": [HI, {**CALLING, "content": None}, RESULT, HO]},
            {"messages": [HI, CALLING, RESULT, HO]},
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
                    RESULT,
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
def test_a_row_of_each_format_is_detected_and_normalised(name: str, row: Row, normalised: Row):
    assert formats.detect([row]) == name
    assert formats.read(name, row) == normalised
    assert next(schema.faults({**normalised, **_answered(normalised)}), None) is None


def _answered(row: Row) -> Row:
    """Return the answer that a chat lacks: without one it is not a good row in any format."""
    is_cut = schema.kind(row) == "chat" and row["messages"][-1]["role"] == "user"
    return {"messages": [*row["messages"], HO]} if is_cut else {}


@pytest.mark.parametrize(
    ("name", "row", "field", "got"),
    [
        ("alpaca", {"instruction": "Hi", "output": 3}, "output", "a number"),
        ("alpaca", {"instruction": " ", "output": "Ho"}, "instruction", "empty"),
        ("alpaca", {"instruction": "Hi"}, "output", "missing"),
        ("sharegpt", {"conversations": "Hi"}, "conversations", "text"),
        ("sharegpt", {"conversations": [{"from": "cat"}]}, "conversations[0].from", "'cat'"),
        ("chat", {"messages": "[{"}, "messages", "text that is not valid JSON"),
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
def test_a_row_that_does_not_fit_its_format_is_refused(name: str, row: Row, field: str, got: str):
    with pytest.raises(formats.RowError) as caught:
        formats.read(name, row)
    assert caught.value.fault.field == field
    assert got in caught.value.fault.got


@pytest.mark.parametrize(
    ("row", "field", "got"),
    [
        ({"messages": [HI, CALLING, HO]}, "messages[2].role", "'assistant'"),
        ({"messages": [HI, RESULT, HO]}, "messages[1].role", "'tool'"),
        ({"messages": [HI, {**HO, "train": False}]}, "messages", "no answer that is trained"),
        ({"messages": [HI, {**HO, "train": "no"}]}, "messages[1].train", "text"),
        ({"messages": [{**HI, "tool_calls": []}, HO]}, "messages[0].tool_calls", "of 'user'"),
        ({"messages": [HI, HO], "tools": "weather"}, "tools", "text"),
        ({"prompt": [HI], "chosen": [HO], "rejected": [HO]}, "rejected", "the same as chosen"),
        ({"prompt": [HI], "completion": [HO], "label": 2}, "label", "a number"),
        ({"prompt": [], "completion": [HO], "label": True}, "prompt", "an empty list"),
    ],
)
def test_a_fault_of_a_normalised_row_is_reported(row: Row, field: str, got: str):
    fault = next(schema.faults(row))
    assert fault.field == field
    assert got in fault.got


def test_the_format_is_that_of_most_rows_not_of_the_first():
    rows = [{"text": "a"}, *[{"prompt": "a", "completion": "b"}] * 3, 7]
    assert formats.detect(rows) == "completion"
    assert formats.detect([{"a": 1}]) is None


def test_a_mapping_with_an_unknown_field_suggests_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'prompt'"):
        formats.check_columns({"prompts": "question"})


def test_a_tool_call_may_be_the_last_turn():
    assert next(schema.faults({"messages": [HI, CALLING], "tools": TOOLS}), None) is None


@pytest.mark.parametrize(
    ("alias", "role"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("chatgpt", "assistant"),
        ("bing", "assistant"),
        ("bard", "assistant"),
        ("model", "assistant"),
        ("assistant", "assistant"),
        ("system", "system"),
        ("tool", "tool"),
        ("observation", "tool"),
    ],
)
def test_each_alias_of_sharegpt_stands_for_its_role(alias: str, role: str):
    row = {"conversations": [{"from": alias, "value": "Hi"}]}
    assert formats.read("sharegpt", row) == {"messages": [{"role": role, "content": "Hi"}]}


def test_every_alias_has_its_row_above():
    assert len(formats.ROLE_ALIASES) == 11


def test_the_role_developer_is_a_system_turn():
    row = {"messages": [{"role": "developer", "content": "Be short."}, HI, HO]}
    assert formats.read("chat", row)["messages"][0] == BE


@pytest.mark.parametrize(
    ("label", "is_good"),
    [("true", True), (" False ", False), ("1", True), ("0", False), (1, True), (0, False)],
)
def test_a_label_may_be_text_or_a_number(label: object, is_good: bool):
    row = {"prompt": "Hi", "completion": "Ho", "label": label}
    assert formats.read("kto", row)["label"] is is_good


@pytest.mark.parametrize("label", ["yes", 2, 0.5, None])
def test_another_label_is_refused(label: object):
    row = formats.read("kto", {"prompt": "Hi", "completion": "Ho", "label": label})
    assert next(schema.faults(row)).field == "label"

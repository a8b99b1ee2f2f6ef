import dataclasses
import json
from datetime import UTC, datetime

import pytest

from ftlab_kit.records import (
    Dataset,
    Metric,
    Rows,
    Sample,
    display_width,
    percent,
    show,
    text_table,
)

SAMPLE = Sample(prompt="<b>hi</b>", reference="yes", answer="")


def test_a_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAMPLE.answer = "no"  # type: ignore[misc]


def test_a_record_shows_itself_as_html_without_running_what_it_holds():
    shown = SAMPLE._repr_html_()
    assert "&lt;b&gt;hi&lt;/b&gt;" in shown
    assert "<b>hi" not in shown


def test_unknown_is_a_dash_and_never_zero():
    assert show(None) == "–"
    assert show(0.0) == "0"


def test_rows_show_as_a_table_with_a_head():
    shown = Rows([SAMPLE, SAMPLE])._repr_html_()
    assert shown.count("<tr>") == 3
    assert "<th" in shown


def test_no_rows_say_so():
    assert Rows()._repr_html_() == "<p>none</p>"


def test_a_record_survives_json():
    at = datetime(2026, 1, 2, tzinfo=UTC)
    record = Dataset(name="hues", n_versions=2, created_at=at)
    assert json.loads(json.dumps(record.as_dict()))["created_at"] == "2026-01-02T00:00:00+00:00"


def test_a_metric_that_was_not_measured_is_none():
    assert Metric(step=1).loss is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (1234567, "1234567"),
        (0.123456, "0.1235"),
        (-0.25, "-0.25"),
        (1234.5678, "1235"),
        (9999.0, "9999"),
        (12345678.9, "12,345,679"),
        (2e-4, "0.0002"),
        (3.14159e-7, "3.142e-07"),
        ("", "–"),
        ((), "–"),
        ([0.1234567, 2], "0.1235, 2"),
        ({"a": 1.5, "b": None}, "a 1.5, b –"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05 UTC"),
    ],
)
def test_values_are_shown_with_four_digits(value: object, text: str):
    assert show(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0, "0%"), (0.004, "0.4%"), (0.123, "12%"), (0.9972, "99.7%"), (1, "100%")],
)
def test_a_share_is_shown_in_percent(share: float | None, text: str):
    assert percent(share) == text


def test_wide_letters_and_accents_keep_the_columns_of_a_text_table_aligned():
    rows = [("雪は白い", "3", "white"), ("ne\u0301ige", "12", "白"), ("🙂 ok", "4", "\x1b[31mred")]
    table = text_table(rows, width=80, names=("prompt", "tokens", "answer"))
    lines = table.splitlines()
    starts = [
        display_width(line[: line.index(cell)])
        for line, cell in zip(lines, ["answer", "------", "white", "白", " [31mred"], strict=True)
        if cell != "------"
    ]
    assert starts == [18, 18, 18, 18]
    assert lines[1] == "--------  ------  --------"
    assert "\x1b" not in table


def test_a_long_cell_is_wrapped_between_words_and_keeps_every_letter():
    text = "the snow is white and the coal is black\n" + "雪" * 20
    table = text_table([("1", text)], width=21, names=("row", "text"))
    assert max(map(display_width, table.splitlines())) <= 21
    assert table.splitlines()[2:4] == ["1    the snow is", "     white and the"]
    assert table.count("雪") == 20


def test_a_row_with_more_columns_than_fit_is_shown_one_name_a_line():
    names = [f"name_{number}" for number in range(9)]
    table = text_table([["a value of some length"] * 9, ["b"] * 9], width=60, names=names)
    first, second = table.split("\n\n")
    assert first.splitlines()[0] == "name_0  a value of some length"
    assert second.splitlines()[8] == "name_8  b"


def test_a_text_table_without_rows_is_empty():
    assert text_table([], width=80) == ""

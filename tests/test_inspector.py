"""The token mask and the inspector: live in front of a person, pictures and tables in a report."""

import html
import re
from pathlib import Path

import pytest

from ftlab_kit import Workspace, datasets, widgets
from ftlab_kit.pictures import token_mask
from ftlab_kit.records import DatasetVersion
from ftlab_kit.widgets import display
from ftlab_kit.widgets.inspector_view import InspectorView
from ftlab_kit.widgets.mask_view import MaskView
from tests.conftest import add_pairs, chats_file, text_of
from tests.test_versions import add, chat


@pytest.fixture
def spoilt(ws: Workspace) -> DatasetVersion:
    return datasets.add(ws, datasets.TWELVE_FAULTS, name="support", strict=False)


def test_a_report_has_the_token_mask_as_a_picture_with_alt_text_and_table(ws: Workspace):
    shown = widgets.mask(ws, add(ws, [chat("Hi <b>", "Ho & no")]), "tiny", max_length=32)
    assert isinstance(shown, display.Html)
    label = re.search(r'<img alt="([^"]*)"', shown.markup)
    assert label is not None
    assert re.match(
        r"row 0 in \d+ tokens of tiny: \d+ trained, 0 end, \d+ context, \d+ cut", label[1]
    )
    assert "Ho &amp; no" in shown.markup and "Hi &lt;b&gt;" in shown.markup


def test_every_role_has_an_outline_besides_its_colour(ws: Workspace):
    mask = datasets.mask(ws, add(ws, [chat("Hi", "Ho"), chat("Hi", "Ho " * 9)]), "tiny", row=1)
    picture = token_mask.picture(mask)
    outlines = {style.outline for style in token_mask.STYLES.values()}
    assert len(outlines) == len(token_mask.STYLES)
    assert picture.count("<path") >= 2 * len(token_mask.STYLES)
    assert html.escape(token_mask.alt_text(mask)) in picture


def test_the_picture_holds_every_letter_of_the_row(ws: Workspace):
    answer = "Zwei\nZeilen, 日本語 und\tTab\u0007. " + "lang " * 40 + "x" * 300
    mask = datasets.mask(ws, add(ws, [chat("Hi", answer)]), "tiny")
    text = "".join(
        re.findall(r"<text [^>]*textLength[^>]*>([^<]*)</text>", token_mask.picture(mask))
    )
    shown = html.unescape(text).replace("\xa0", " ")
    expected = "".join(token.text for token in mask.tokens)
    for old, new in (("\n", "↵"), ("\t", "→"), ("\u0007", "�")):
        expected = expected.replace(old, new)
    assert expected in shown


def test_a_long_row_says_what_it_leaves_out(ws: Workspace):
    mask = datasets.mask(ws, add(ws, [chat("Hi", "word " * 2000)]), "tiny")
    more = len(mask.tokens) - token_mask.MAX_TOKENS
    assert f"… and {more:,} more tokens" in token_mask.picture(mask)


def test_the_token_mask_follows_its_fields(seated: None, ws: Workspace):
    datasets.add(ws, chats_file(ws.root / "hues.jsonl"))
    view = widgets.mask(ws, add_pairs(ws), "tiny")
    assert isinstance(view, MaskView)
    assert "row 0 (chosen)" in text_of(view)
    view.row.value = 3
    view.side.value = "rejected"
    assert "row 3 (rejected)" in text_of(view)
    view.length.value = 20
    assert "cut at 20 tokens" in text_of(view)


def test_a_report_of_the_inspector_shows_all_its_parts(ws: Workspace, spoilt: DatasetVersion):
    shown = widgets.inspector(ws, spoilt, model="tiny", max_length=160)
    assert isinstance(shown, display.Html)
    assert shown.markup.count("<summary>5</summary>") == 1 and "… and 7 more" in shown.markup
    assert shown.markup.count("<img alt=") == 2
    assert 'alt="quality 9' in shown.markup and 'alt="length: 63 from' in shown.markup
    assert "[E-MAIL]" not in shown.markup and "ann…m" in shown.markup
    assert "row 1" in shown.markup
    assert "63 rows, quality" in repr(shown)


def test_rows_can_be_searched_and_turned(seated: None, ws: Workspace, spoilt: DatasetVersion):
    view = widgets.inspector(ws, spoilt)
    assert isinstance(view, InspectorView)
    assert "row 0" in view._rows.value and "row 5 " not in view._rows.value
    view.more.click()
    assert "row 5 " in view._rows.value
    view.back.click()
    assert "row 0" in view._rows.value and view.back.disabled
    view.row.value = 40
    assert "row 40" in view._rows.value and "row 39" not in view._rows.value
    view.search.value = "two left boots"
    shown = re.findall(r"row (\d+)", view._rows.value)
    expected = [
        str(index)
        for index, row in enumerate(datasets.rows(ws, spoilt))
        if "two left boots" in str(row)
    ]
    assert shown == expected and len(expected) == 2
    view.search.value = "("
    assert "is not a valid regular expression" in view._rows.value


def test_a_chosen_problem_shows_its_line(seated: None, ws: Workspace, spoilt: DatasetVersion):
    view = widgets.inspector(ws, spoilt)
    assert isinstance(view, InspectorView)
    labels = [label for label, _ in view.problem.options]
    assert len(labels) == 12 and labels[1] == "line 9: messages[0].role is 'customer'"
    view.problem.index = 1
    assert "Do you mend zips?" in text_of(view)
    view.problem.index = 3
    assert "Which boots are the lightest?" in text_of(view)


def test_changes_since_another_version_are_marked(
    seated: None, ws: Workspace, spoilt: DatasetVersion
):
    view = widgets.inspector(ws, datasets.redact(ws, spoilt))
    assert isinstance(view, InspectorView)
    assert view._changes.value == ""
    view.other.value = spoilt.id
    assert "<del>ann.mallow@firm-post.com,</del><ins>[E-MAIL],</ins>" in view._changes.value


def test_a_clean_dataset_without_other_versions_says_so(seated: None, ws: Workspace):
    shown = text_of(widgets.inspector(ws, add(ws, [chat("Hi", "Ho")])))
    assert "no line was refused" in shown and "there is no other version" in shown


def test_texts_of_rows_are_escaped(ws: Workspace, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"<b>": 1}\n')
    shown = widgets.problems(datasets.validate(tmp_path / "rows.jsonl"))
    assert "<b>" not in shown.markup and "&lt;b&gt;" in shown.markup
    page = widgets.inspector(ws, add(ws, [chat("<script>", "<i>")])).markup  # type: ignore[union-attr]
    assert "<script>" not in page and "<i>" not in page


def test_a_file_without_problems_says_so(tmp_path: Path):
    chats_file(tmp_path / "rows.jsonl")
    report = datasets.validate(tmp_path / "rows.jsonl")
    assert widgets.problems(report).markup == "<p>no line is refused</p>"

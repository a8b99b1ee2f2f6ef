"""Versions made from versions: split, append, filter, sample, merge, redact; diff and card."""

import json
from collections import Counter
from typing import Any

import pytest

from ftlab_kit import Workspace, datasets
from ftlab_kit.datasets import schema
from ftlab_kit.errors import DataError, InputError
from ftlab_kit.records import DatasetVersion
from tests.conftest import chats_file


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def add(ws: Workspace, rows: list[dict[str, Any]], name: str = "rows") -> DatasetVersion:
    path = ws.root / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return datasets.add(ws, path)


@pytest.fixture
def hues(ws: Workspace) -> DatasetVersion:
    return datasets.add(ws, chats_file(ws.root / "hues.jsonl"))


def answers(ws: Workspace, version: DatasetVersion) -> list[str]:
    return [schema.answers(row) for row in datasets.rows(ws, version)]


ESSAY = [f"word{n}" for n in range(60)]


def test_near_duplicates_are_never_on_both_sides(ws: Workspace):
    rows = []
    for topic in range(30):
        essay = [f"{word}of{topic}" for word in ESSAY]
        for place in range(4):
            essay[place * 10] = "else"
            rows.append(chat(f"Topic {topic}", " ".join(essay)))
    sides = datasets.split(ws, add(ws, rows), held_out=0.3)
    topics = [{schema.question(row) for row in datasets.rows(ws, side)} for side in sides]
    assert topics[0] | topics[1] == {f"Topic {topic}" for topic in range(30)}
    assert not topics[0] & topics[1]


def test_a_group_stays_together_and_keeps_its_side_when_rows_are_added(ws: Workspace):
    rows = [chat(f"q{n}", f"a{n}", author=n % 9) for n in range(90)]
    before = datasets.split(ws, add(ws, rows[:45]), held_out=0.3, groups="author")
    after = datasets.split(ws, add(ws, rows[::-1]), held_out=0.3, groups="author")
    for old, new in zip(before, after, strict=True):
        authors = [{row["author"] for row in datasets.rows(ws, side)} for side in (old, new)]
        assert authors[0] == authors[1]
        assert new.n_rows == 10 * len(authors[1])


def test_the_held_out_share_is_met_in_every_stratum(ws: Workspace):
    rows = [chat(f"q{n}", f"a{n}", topic=["rare", *["often"] * 9][n % 10]) for n in range(200)]
    version = add(ws, rows)
    for seed in range(3):
        _, out = datasets.split(ws, version, held_out=0.2, seed=seed, strata="topic")
        counts = Counter(row["topic"] for row in datasets.rows(ws, out))
        assert counts == {"rare": 4, "often": 36}


def test_rows_keep_their_side_in_strata_when_rows_are_added(ws: Workspace):
    rows = [chat(f"q{n}", f"a{n}", topic="ab"[n % 2]) for n in range(200)]
    args = {"held_out": 0.2, "strata": "topic"}
    before = datasets.split(ws, add(ws, rows[:100]), **args)
    after = datasets.split(ws, add(ws, rows), **args)
    for old, new in zip(before, after, strict=True):
        assert {*answers(ws, old)} < {*answers(ws, new)}
    assert after[1].n_rows == 40


def test_a_row_without_the_field_to_split_by_is_reported(ws: Workspace):
    version = add(ws, [chat("q", "a", topics=1), chat("r", "b", topics=2)])
    with pytest.raises(DataError, match=r"Row 0 has no field 'topic'.*Did you mean 'topics'"):
        datasets.split(ws, version, groups="topic")


def test_a_split_records_its_arguments(ws: Workspace, hues: DatasetVersion):
    train, _ = datasets.split(ws, hues, held_out=0.3, seed=4)
    assert train.derivation == {"verb": "split", "held_out": 0.3, "seed": 4}
    assert (train.parent_id, train.kind) == (hues.id, "chat")


def test_appended_rows_come_after_the_others(ws: Workspace, hues: DatasetVersion):
    more = ws.root / "more.csv"
    more.write_text("ask,say\nWhat is tar?,black\n")
    columns = {"prompt": "ask", "completion": "say"}
    grown = datasets.append(ws, "hues", more, columns=columns)
    assert grown.n_rows == hues.n_rows + 1
    assert answers(ws, grown)[-1] == "black"
    assert (grown.parent_id, grown.derivation["verb"]) == (hues.id, "append")
    assert datasets.get(ws, "hues") == grown


def test_rows_of_another_kind_are_not_appended(ws: Workspace, hues: DatasetVersion):
    path = ws.root / "texts.jsonl"
    path.write_text('{"text": "Once."}')
    with pytest.raises(InputError, match="holds rows of kind text, version 1 of kind chat"):
        datasets.append(ws, hues, path)


def test_a_filter_keeps_rows_that_meet_every_condition(ws: Workspace, hues: DatasetVersion):
    blue = datasets.filter(ws, hues, matching="sky", without=[0])
    assert answers(ws, blue) == ["sky 1 is blue", "sky 2 is blue", "sky 3 is blue"]
    last = datasets.filter(ws, blue, lambda row: "3" in schema.answers(row), only=[1, 2])
    assert answers(ws, last) == ["sky 3 is blue"]
    assert blue.derivation == {"verb": "filter", "matching": "sky", "without": [0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matching": "sea"}, "leaves none of the 20 rows"),
        ({"matching": "("}, "expected a regular expression"),
        ({"only": [20]}, "There is no row 20; expected 0 to 19"),
    ],
)
def test_a_filter_that_leaves_nothing_is_refused(
    ws: Workspace, hues: DatasetVersion, arguments: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        datasets.filter(ws, hues, **arguments)
    assert len(datasets.versions(ws, "hues")) == 1


def test_a_sample_is_seeded_and_in_order(ws: Workspace, hues: DatasetVersion):
    one = datasets.sample(ws, hues, 7, seed=3)
    assert one == datasets.sample(ws, hues, 7, seed=3) != datasets.sample(ws, hues, 7, seed=4)
    whole = answers(ws, hues)
    places = [whole.index(answer) for answer in answers(ws, one)]
    assert len({*places}) == 7 and places == sorted(places)
    with pytest.raises(InputError, match="n_rows is 21; expected 1 to 20"):
        datasets.sample(ws, hues, 21)


def test_a_sample_of_a_side_is_of_that_side(ws: Workspace, hues: DatasetVersion):
    train, _ = datasets.split(ws, hues, held_out=0.3)
    assert datasets.sample(ws, train, 3).side == "train"
    assert datasets.get(ws, "hues") == hues


def test_a_merge_has_the_rows_of_all(ws: Workspace, hues: DatasetVersion):
    other = add(ws, [chat("q", "a")], "other")
    both = datasets.merge(ws, ["hues", other.id], name="both")
    assert answers(ws, both) == [*answers(ws, hues), "a"]
    assert [part["dataset"] for part in both.derivation["of"]] == ["hues", "other"]
    datasets.delete(ws, "hues")
    assert answers(ws, both)[-1] == "a"


def test_parts_of_different_kinds_are_not_merged(ws: Workspace, hues: DatasetVersion):
    text = add(ws, [{"text": "Once."}], "texts")
    with pytest.raises(InputError, match="of the kinds chat, text"):
        datasets.merge(ws, [hues, text], name="both")


def test_redacting_makes_a_version_without_personal_data(ws: Workspace):
    version = add(ws, [chat("I am ann@firm.com", "Hello, ann@firm.com", id=1), chat("Hi", "Ho")])
    clean = datasets.redact(ws, version)
    assert answers(ws, clean) == ["Hello, [E-MAIL]", "Ho"]
    assert datasets.quality(ws, clean).personal == ()
    with pytest.raises(InputError, match="There is no kind 'email'; there are key, e-mail"):
        datasets.redact(ws, version, kinds=["email"])


def test_a_diff_lists_added_removed_and_changed_rows(ws: Workspace):
    before = add(ws, [chat("a", "1"), chat("b", "2"), chat("c", "3"), chat("c", "3")])
    after = add(ws, [chat("c", "3"), chat("a", "1"), chat("b", "two"), chat("d", "4")])
    diff = datasets.diff(ws, before, after)
    assert (diff.n_same, diff.n_added, diff.n_removed, diff.n_changed) == (2, 1, 1, 1)
    assert [(item.change, item.before, item.after) for item in diff.changes] == [
        ("changed", 1, 2),
        ("removed", 3, None),
        ("added", None, 3),
    ]
    assert (diff.changes[0].text_before, diff.changes[0].text) == ("b\n2", "b\ntwo")


def test_a_row_with_the_same_id_and_another_question_is_changed(ws: Workspace):
    before, after = add(ws, [chat("a", "1", id=5)]), add(ws, [chat("b", "2", id=5)])
    assert datasets.diff(ws, before, after).n_changed == 1
    same = datasets.diff(ws, before, before)
    assert (same.n_same, same.changes) == (1, ())


def test_a_card_shows_where_rows_come_from(ws: Workspace, hues: DatasetVersion):
    train, _ = datasets.split(ws, hues, held_out=0.3)
    card = str(datasets.card(ws, datasets.sample(ws, train, 5, seed=2)))
    assert card.startswith("# hues, train\n")
    assert "sample (n_rows 5, seed 2)" in card
    assert "split (held_out 0.3, seed 0)" in card
    assert f"all, {hues.n_rows} rows: add (source" in card
    assert "5 rows are few" in card


def test_a_version_of_an_older_kit_has_a_card(ws: Workspace, hues: DatasetVersion):
    ws.store.update("dataset_versions", {"id": hues.id}, derivation={})
    assert "added by an older kit" in str(datasets.card(ws, hues.id))
    ws.store.update("dataset_versions", {"id": hues.id}, derivation={"verb": "add", "form": "chat"})
    assert "add (form chat)" in str(datasets.card(ws, hues.id))


def test_a_sample_does_not_change_what_the_name_stands_for(lab: Workspace):
    whole = datasets.get(lab, "hues")
    part = datasets.sample(lab, whole, 7, seed=3)
    assert (part.n_rows, part.side, part.dataset) == (7, "sample", "hues")
    assert datasets.get(lab, "hues") == whole

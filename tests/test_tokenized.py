"""Rows as tokens, made once and cached."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from ftlab_kit import Workspace, datasets, models
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import DataError
from ftlab_kit.lm import loading, tokens
from ftlab_kit.lm.tokens import Encoded
from tests.conftest import add_pairs, chats_file
from tests.test_formats import BE, HI, HO


@pytest.fixture
def model(ws: Workspace) -> Path:
    datasets.add(ws, chats_file(ws.root / "hues.jsonl"))
    return models.pull(ws, "tiny").path or Path()


def cached(ws: Workspace) -> list[Path]:
    return sorted(ws.tokens.iterdir())


def encode_all(ws: Workspace, model: Path, max_length: int | None = None) -> list[Encoded]:
    tokenizer = loading.tokenizer(model)
    rows = datasets.rows(ws, "hues")
    return [tokens.encode(tokenizer, row["messages"], max_length) for row in rows]


@pytest.mark.parametrize("max_length", [None, 200, 32, 20, 8])
def test_the_cache_gives_the_same_as_encoding_anew(
    ws: Workspace, model: Path, max_length: int | None
):
    expected = encode_all(ws, model, max_length)
    rows = tokenized.read(ws, datasets.get(ws, "hues"), model, max_length)
    assert [*rows] == expected and rows[-1] == expected[-1] and rows[2:5] == expected[2:5]
    assert rows.lengths.tolist() == [len(row.input_ids) for row in expected]
    assert rows.n_trained.tolist() == [row.n_trained for row in expected]
    assert rows.n_cut.tolist() == [row.n_cut for row in expected]
    assert rows.has_end.tolist() == [row.has_end for row in expected]


def test_a_second_reader_tokenises_nothing(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    tokenized.read(ws, version, model)
    (folder,) = cached(ws)
    (folder / tokenized.IDS).touch()
    written_at = (folder / tokenized.IDS).stat().st_mtime_ns
    for max_length in (None, 16, 1024):
        tokenized.read(ws, version, model, max_length)
    assert cached(ws) == [folder]
    assert (folder / tokenized.IDS).stat().st_mtime_ns == written_at


def test_another_chat_template_is_another_cache(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    plain = tokenized.read(ws, version, model)[0]
    template = model / "chat_template.jinja"
    template.write_text("Hello. " + template.read_text())
    other = tokenized.read(ws, version, model)[0]
    assert len(cached(ws)) == 2
    assert other.input_ids != plain.input_ids


def test_rows_edited_on_disk_are_tokenised_again(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    before = tokenized.read(ws, version, model)[0]
    version.path.write_bytes(version.path.read_bytes().replace(b"sky", b"sea"))
    assert tokenized.read(ws, version, model)[0] != before


def test_a_preference_has_a_row_for_each_answer(ws: Workspace, model: Path):
    pairs = add_pairs(ws)
    rows = tokenized.read(ws, pairs, model)
    assert len(rows) == 2 * pairs.n_rows
    assert rows[0] == encode_all(ws, model)[0] != rows[1]


def test_rows_that_a_template_refuses_leave_nothing_behind(ws: Workspace, model: Path):
    (model / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(DataError, match="chat template refuses a row"):
        tokenized.read(ws, datasets.get(ws, "hues"), model)
    assert cached(ws) == []


def test_an_incomplete_cache_is_made_again(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    tokenized.read(ws, version, model)
    (folder,) = cached(ws)
    shutil.move(folder / tokenized.FACTS, ws.root)
    assert [*tokenized.read(ws, version, model)] == encode_all(ws, model)


def test_the_cache_is_deleted_with_its_dataset(ws: Workspace, model: Path):
    tokenized.read(ws, datasets.get(ws, "hues"), model)
    datasets.delete(ws, "hues")
    assert cached(ws) == []


GOLDEN = [
    {"messages": [BE, HI, HO]},
    {"messages": [HI, {**HO, "train": False}, HI, HO]},
    {"prompt": [HI], "chosen": [HO], "rejected": [{**HO, "content": "No"}]},
    {"prompt": [HI], "completion": [HO], "label": True},
    {"text": "Once upon a time."},
]


def test_the_rules_of_tokens_have_the_version_number_of_these_golden_tokens(
    ws: Workspace, model: Path
):
    """If this fails on purpose, raise tokenized.RULES and write the new digest here.

    Without a new number, old workspaces would go on reading tokens of the old rules.
    """
    tokenizer = loading.tokenizer(model)
    rows = [asdict(encoded) for row in GOLDEN for encoded in tokenized.encode(tokenizer, row, 24)]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    assert (tokenized.RULES, digest) == (1, "d345171e4c0eef37")


def test_other_rules_are_another_cache(ws: Workspace, model: Path, monkeypatch: pytest.MonkeyPatch):
    version = datasets.get(ws, "hues")
    name = tokenized.cache_name(version, model)
    monkeypatch.setattr(tokenized, "RULES", tokenized.RULES + 1)
    assert tokenized.cache_name(version, model) != name

"""Rows as tokens, made once and read by whoever needs them."""

import shutil
from pathlib import Path

import pytest

from ftlab_kit import Workspace, datasets, models
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import DataError
from ftlab_kit.lm import loading, tokens
from ftlab_kit.lm.tokens import Encoded
from tests.conftest import add_pairs, chats_file


@pytest.fixture
def model(ws: Workspace) -> Path:
    datasets.add(ws, chats_file(ws.root / "hues.jsonl"))
    return models.pull(ws, "tiny").path or Path()


def made(ws: Workspace) -> list[Path]:
    return sorted(ws.tokens.iterdir())


def afresh(ws: Workspace, model: Path, max_length: int | None = None) -> list[Encoded]:
    tokenizer = loading.tokenizer(model)
    rows = datasets.rows(ws, "hues")
    return [tokens.encode(tokenizer, row["messages"], max_length) for row in rows]


@pytest.mark.parametrize("max_length", [None, 200, 32, 20, 8])
def test_what_is_kept_is_what_is_encoded(ws: Workspace, model: Path, max_length: int | None):
    wanted = afresh(ws, model, max_length)
    found = tokenized.read(ws, datasets.get(ws, "hues"), model, max_length)
    assert [*found] == wanted and found[-1] == wanted[-1] and found[2:5] == wanted[2:5]
    assert found.lengths.tolist() == [len(row.input_ids) for row in wanted]
    assert found.n_trained.tolist() == [row.n_trained for row in wanted]
    assert found.n_cut.tolist() == [row.n_cut for row in wanted]
    assert found.has_end.tolist() == [row.has_end for row in wanted]


def test_a_second_reader_tokenises_nothing(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    tokenized.read(ws, version, model)
    (folder,) = made(ws)
    (folder / tokenized.IDS).touch()
    before = (folder / tokenized.IDS).stat()
    for max_length in (None, 16, 1024):
        tokenized.read(ws, version, model, max_length)
    assert made(ws) == [folder]
    assert (folder / tokenized.IDS).stat() == before


def test_another_template_is_another_encoding(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    plain = tokenized.read(ws, version, model)[0]
    template = model / "chat_template.jinja"
    template.write_text("Hello. " + template.read_text())
    other = tokenized.read(ws, version, model)[0]
    assert len(made(ws)) == 2
    assert other.input_ids != plain.input_ids


def test_rows_that_were_changed_on_the_disk_are_read_anew(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    before = tokenized.read(ws, version, model)[0]
    version.path.write_bytes(version.path.read_bytes().replace(b"sky", b"sea"))
    assert tokenized.read(ws, version, model)[0] != before


def test_a_preference_has_both_sides(ws: Workspace, model: Path):
    pairs = add_pairs(ws)
    found = tokenized.read(ws, pairs, model)
    assert len(found) == 2 * pairs.n_rows
    assert found[0] == afresh(ws, model)[0] != found[1]


def test_rows_that_a_template_refuses_leave_nothing_behind(ws: Workspace, model: Path):
    (model / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(DataError, match="chat template refuses a row"):
        tokenized.read(ws, datasets.get(ws, "hues"), model)
    assert made(ws) == []


def test_one_that_was_cut_off_is_made_again(ws: Workspace, model: Path):
    version = datasets.get(ws, "hues")
    tokenized.read(ws, version, model)
    (folder,) = made(ws)
    shutil.move(folder / tokenized.FACTS, ws.root)
    assert [*tokenized.read(ws, version, model)] == afresh(ws, model)


def test_they_go_with_their_dataset(ws: Workspace, model: Path):
    tokenized.read(ws, datasets.get(ws, "hues"), model)
    datasets.delete(ws, "hues")
    assert made(ws) == []

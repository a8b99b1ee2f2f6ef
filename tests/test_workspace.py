from pathlib import Path

import pytest

from ftlab_kit import Workspace
from ftlab_kit.errors import InputError, OutOfRoom
from tests.conftest import fill


def test_a_workspace_is_made_with_its_folders(tmp_path: Path):
    workspace = Workspace(tmp_path / "new" / "lab")
    names = {path.name for path in workspace.root.iterdir()}
    assert {"datasets", "models", "jobs", "notebooks", "ftlab.db"} <= names
    workspace.close()


def test_opening_it_again_finds_what_was_there(tmp_path: Path):
    from ftlab_kit import configs

    first = Workspace(tmp_path)
    configs.save(first, "mine", configs.Config(epochs=2))
    first.close()
    again = Workspace(tmp_path)
    assert configs.get(again, "mine").epochs == 2
    again.close()


def test_a_file_is_not_a_workspace(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match="is a file; a workspace is a folder"):
        Workspace(path)
    assert path.read_text() == ""


def test_a_full_disk_is_reported(small_disk: Path):
    fill(small_disk, but_bytes=40_000)
    with pytest.raises(OutOfRoom, match="The disk is full"):
        Workspace(small_disk / "lab")


def test_a_folder_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be created or written"):
        Workspace(tmp_path / "file" / "lab")

from pathlib import Path

import pytest

from ftlab_kit import Workspace, checkpoints, datasets
from ftlab_kit.checkpoints import integrity
from ftlab_kit.errors import NotFound
from ftlab_kit.workspace import now
from tests.conftest import chats_file


@pytest.fixture
def owner(ws: Workspace, tmp_path: Path) -> int:
    version = datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    return ws.store.insert(
        "jobs",
        state="running",
        model="tiny",
        step=0,
        dataset_version_id=version.id,
        config={},
        created_at=now(),
    )


def commit(ws: Workspace, job: int, step: int, eval_loss: float | None = None):
    partial = ws.root / "partial"
    partial.mkdir()
    (partial / "weights.safetensors").write_bytes(bytes([step]) * 1000)
    losses = {"loss": 1.0, "eval_loss": eval_loss}
    return integrity.commit(ws, job, step, partial, losses=losses, facts={"threads": 2})


def test_a_committed_checkpoint_verifies(ws: Workspace, owner: int):
    checkpoint = commit(ws, owner, 3)
    assert checkpoint.path.name == "step-000003"
    assert checkpoint.size_bytes == 1000
    assert integrity.verify(checkpoint) is None


@pytest.mark.parametrize("bit", [0, 4321, 7999])
def test_one_flipped_bit_is_found(ws: Workspace, owner: int, bit: int):
    checkpoint = commit(ws, owner, 3)
    path = checkpoint.path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    assert "has other bytes" in (integrity.verify(checkpoint) or "")


@pytest.mark.parametrize(
    ("name", "message"),
    [("weights.safetensors", "is missing"), ("MANIFEST.json", "MANIFEST.json is missing")],
)
def test_a_missing_file_is_found(ws: Workspace, owner: int, name: str, message: str):
    checkpoint = commit(ws, owner, 3)
    (checkpoint.path / name).unlink()
    assert message in (integrity.verify(checkpoint) or "")


def test_a_cut_manifest_is_found(ws: Workspace, owner: int):
    checkpoint = commit(ws, owner, 3)
    (checkpoint.path / "MANIFEST.json").write_text("{")
    assert "other bytes than were written" in (integrity.verify(checkpoint) or "")


def test_pruning_keeps_the_newest_and_the_best(ws: Workspace, owner: int):
    for step, loss in ((1, 0.9), (2, 0.1), (3, 0.8), (4, 0.7)):
        commit(ws, owner, step, loss)
    integrity.prune(ws, owner, keep=1)
    left = integrity.list(ws, owner)
    assert [item.step for item in left] == [2, 4]
    assert checkpoints.best(ws, owner).step == 2
    assert all(item.path.exists() for item in left)
    assert len([*(ws.job_folder(owner) / "checkpoints").iterdir()]) == 2


def test_committing_a_step_again_replaces_it(ws: Workspace, owner: int):
    commit(ws, owner, 3, 0.5)
    assert commit(ws, owner, 3, 0.4).eval_loss == 0.4
    assert len(integrity.list(ws, owner)) == 1


def test_a_job_without_checkpoints_is_reported(ws: Workspace, owner: int):
    with pytest.raises(NotFound, match="has no checkpoint yet"):
        integrity.get(ws, owner)

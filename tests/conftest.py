"""Fixtures: a workspace of its own for each test, and one trained job that many tests look at."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# no test asks a hub; what needs one names it itself
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from ftlab_kit import Workspace, datasets, models, trainers
from ftlab_kit.configs import Config
from ftlab_kit.records import DatasetVersion, Job

HUES = {"sky": "blue", "grass": "green", "snow": "white", "coal": "black", "rust": "red"}
pytest_plugins = ["tests.graph_servers"]  # a real Neo4j
TINY = Config(model="tiny", max_steps=4, learning_rate=1e-2, effective_batch=4, threads=1)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace."""
    workspace = Workspace(tmp_path / "lab")
    yield workspace
    workspace.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace that many tests share: the tiny model is here, and rows with a split."""
    workspace = Workspace(tmp_path_factory.mktemp("shared") / "lab")
    models.pull(workspace, "tiny")
    datasets.split(
        workspace, datasets.add(workspace, chats_file(workspace.root / "hues.jsonl")), held_out=0.3
    )
    yield workspace
    workspace.close()


@pytest.fixture(scope="session")
def job(lab: Workspace) -> Job:
    """A completed job of four steps on the tiny model, with a held-out side."""
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    started = trainers.start(lab, TINY.but(eval_every_steps=2), train, held_out=held_out)
    return trainers.wait(lab, started, timeout_s=180)


@pytest.fixture
def seated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sits in front."""
    monkeypatch.setenv("FTLAB_INTERACTIVE", "1")


def every(widget: Any) -> Iterator[Any]:
    """A widget and all that stands in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every(child)


def text_of(view: Any) -> str:
    """All the HTML that a widget shows."""
    kinds = (item for item in every(view) if type(item).__name__ == "HTML")
    return "".join(item.value for item in kinds)


def until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def chats_file(path: Path, *, copies: int = 4) -> Path:
    """Write chats about the colours of things, each answer another."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What colour is {thing} number {number}?"},
                {"role": "assistant", "content": f"{thing} {number} is {hue}"},
            ]
        }
        for number in range(copies)
        for thing, hue in HUES.items()
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def add_pairs(ws: Workspace) -> DatasetVersion:
    """Add preferences: for each chat its own answer, and one that is none."""
    path = ws.root / "pairs.jsonl"
    chats = [row["messages"] for row in datasets.rows(ws, "hues")]
    rows = [
        {"prompt": chat[:-1], "chosen": chat[-1:], "rejected": [{**chat[-1], "content": "no idea"}]}
        for chat in chats
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return datasets.add(ws, path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 72 MB that can really be full."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=72m", "tmpfs", str(tmp_path)], check=False
    )
    if done.returncode:
        pytest.skip("a disk of its own can be mounted by root only")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(disk: Path, *, but_bytes: int) -> None:
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(max(0, free - but_bytes)))

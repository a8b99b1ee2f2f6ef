from pathlib import Path

import pytest

from ftlab_kit import Workspace, datasets
from ftlab_kit.errors import Conflict, NotFound
from ftlab_kit.jobs import states
from ftlab_kit.workspace import now
from tests.conftest import chats_file


@pytest.fixture
def queued(ws: Workspace, tmp_path: Path) -> int:
    version = datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    values = {"model": "tiny", "step": 0, "config": {}, "created_at": now()}
    return ws.store.insert("jobs", state="queued", dataset_version_id=version.id, **values)


@pytest.mark.parametrize("state", states.STATES)
@pytest.mark.parametrize("target", states.STATES)
def test_only_the_moves_of_the_table_are_allowed(
    ws: Workspace, queued: int, state: str, target: str
):
    ws.store.update("jobs", {"id": queued}, state=state)
    allowed = target in states.NEXT.get(state, ())
    assert states.move(ws, queued, target) is allowed
    assert states.read(ws, queued).state == (target if allowed else state)


def test_the_second_of_two_moves_is_refused(ws: Workspace, queued: int):
    assert states.move(ws, queued, "cancelled")
    assert not states.move(ws, queued, "running")


def test_a_job_that_is_over_has_its_end_time(ws: Workspace, queued: int):
    states.move(ws, queued, "failed", error="x")
    assert states.read(ws, queued).finished_at is not None


def test_a_command_waits_in_the_mailbox_until_it_is_settled(ws: Workspace, queued: int):
    event = states.send(ws, queued, "cancel")
    assert states.events(ws, queued, state="pending") == (event,)
    states.settle(ws, event, "applied", 3)
    (settled,) = states.events(ws, queued)
    assert (settled.state, settled.step) == ("applied", 3)


@pytest.mark.parametrize(("end", "outcome"), [("cancelled", "applied"), ("completed", "refused")])
def test_a_command_that_comes_too_late_is_settled_with_the_job(
    ws: Workspace, queued: int, end: str, outcome: str
):
    states.move(ws, queued, "running")
    states.send(ws, queued, "cancel")
    states.move(ws, queued, end)
    (event,) = states.events(ws, queued)
    assert (event.state, event.note) == (outcome, f"the job is {end}")


@pytest.mark.parametrize("state", states.OVER)
def test_a_job_that_is_over_takes_no_command(ws: Workspace, queued: int, state: str):
    ws.store.update("jobs", {"id": queued}, state=state)
    with pytest.raises(Conflict, match=f"is {state}; only a queued or running or paused job"):
        states.send(ws, queued, "cancel")
    assert states.events(ws, queued) == ()


def test_an_unknown_job_is_not_found(ws: Workspace):
    with pytest.raises(NotFound, match="There is no job 7"):
        states.read(ws, 7)

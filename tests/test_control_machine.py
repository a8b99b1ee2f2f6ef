"""Two lab sides and one worker, in every order that Hypothesis finds, on a real store.

The lab sides and the supervisor are the kit's own verbs. The worker is a stand-in: it does to the
store what jobs/worker.py and trainers/run/callback.py do at step borders, and trains nothing.
"""

import tempfile
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ftlab_kit import Workspace
from ftlab_kit.errors import Conflict
from ftlab_kit.jobs import processes, states, supervisor
from ftlab_kit.records import Event, Job
from ftlab_kit.workspace import now

STEPS = 6
SAVE_EVERY = 3
ENDINGS = {"pause": "paused", "cancel": "cancelled"}
MADE_AGAIN = ("adjust", "evaluate")
VERSION = {"key": "k", "dataset": "hues", "side": "all", "n_rows": 1, "n_refused": 0}
CONFIG = {"model": "tiny", "max_restarts": 1}

SIDES = st.sampled_from([0, 1])
ORDERS = st.sampled_from([(0, 1), (1, 0)])
TURNS = st.sampled_from([2, 1, 3])  # two bring a job from the queue to its first step


@dataclass
class Checkpoint:
    """What a worker finds on the disk when it begins."""

    step: int = 0
    applied: frozenset[int] = frozenset()


@dataclass
class Worker:
    """One life of a worker; what it holds here is gone when it vanishes."""

    ws: Workspace
    job_id: int
    pid: int
    checkpoint: Checkpoint
    step: int = 0
    ending: str | None = None
    is_saving: bool = False
    applied: set[int] = field(default_factory=set)
    held: list[Event] = field(default_factory=list)
    again: list[Event] = field(default_factory=list)

    def begin(self) -> bool:
        """Take the job and what was asked of it meanwhile; return whether it was there to take."""
        mine = {"started_at": now(), "worker_pid": self.pid, "error": None}
        if not states.move(self.ws, self.job_id, "running", **mine):
            return False
        self.step, self.applied = self.checkpoint.step, set(self.checkpoint.applied)
        done = states.events(self.ws, self.job_id, state="applied", command=[*MADE_AGAIN])
        self.again = [event for event in done if event.id not in self.applied]
        for event in states.events(self.ws, self.job_id, state="pending"):
            if event.at_step is not None and event.at_step < self.step:
                states.settle(self.ws, event, "refused", self.step, note="its step is past")
        self._take(only=("adjust",))
        return True

    def border(self) -> bool:
        """Do a step and take what is due; return whether the job is still this worker's."""
        self.step += 1
        held = {"id": self.job_id, "state": "running", "worker_pid": self.pid}
        if not self.ws.store.update("jobs", held, step=self.step, heartbeat_at=now()):
            return False
        self._take()
        if self.step >= STEPS:
            self.ending = "cancelled" if self.ending == "cancelled" else "completed"
        self.is_saving = True
        return True

    def _take(self, only: tuple[str, ...] = ()) -> None:
        pending = [
            event
            for event in states.events(self.ws, self.job_id, state="pending")
            if event.at_step is None or event.at_step <= self.step
        ]
        again = [event for event in self.again if event.step == self.step]
        for event in sorted([*again, *pending], key=lambda event: event.id):
            if only and event.command not in only:
                continue
            if event.command in ENDINGS:
                is_cancelled = self.ending == "cancelled"
                self.ending = self.ending if is_cancelled else ENDINGS[event.command]
            elif event.command in ("adjust", "sample"):
                self._settle(event)
            else:
                self.held.append(event)

    def _settle(self, event: Event) -> None:
        is_bad = (event.arguments or {}).get("is_bad", False)
        states.settle(self.ws, event, "refused" if is_bad else "applied", self.step)
        if not is_bad:
            self.applied.add(event.id)

    def save(self) -> None:
        """Settle what waited for a checkpoint or an evaluation, and write the checkpoint."""
        is_due = self.ending or self.step % SAVE_EVERY == 0
        is_asked = any(event.command == "checkpoint" for event in self.held)
        for event in self.held:
            self._settle(event)
        if is_due or is_asked:
            self.checkpoint.step, self.checkpoint.applied = self.step, frozenset(self.applied)
        self.held, self.is_saving = [], False

    def end(self, state: str) -> bool:
        """Record the end of the run; return whether it was this worker's to record."""
        mine = {"worker_pid": self.pid}
        return states.move(self.ws, self.job_id, state, only_from="running", held_by=mine)


class Mailbox(RuleBasedStateMachine):
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.lab = [Workspace(self.folder.name) for _ in range(2)]
        self.ws = Workspace(self.folder.name)
        self.ws.store.upsert("settings", {"name": "slots"}, value=1)
        at = {"created_at": now(), "added_at": now()}
        row = {**VERSION, **at, "content_sha256": "", "path": ""}
        self.version_id = self.ws.store.insert("dataset_versions", **row)
        self.n_processes = 0
        self.seen: dict[int, Event] = {}
        self.final: dict[int, Job] = {}

    def teardown(self) -> None:
        for ws in (*self.lab, self.ws):
            ws.close()
        self.folder.cleanup()

    @property
    def state(self) -> str:
        """The job's state as it was seen after the last rule."""
        return self.history[-1]

    def events(self) -> dict[int, Event]:
        return {row["id"]: Event(**row) for row in self.ws.store.rows("events")}

    @initialize(turns=TURNS)
    def first_job(self, turns: int) -> None:
        self.a_job(turns)

    @precondition(lambda self: self.state in states.FINAL)
    @rule(turns=TURNS)
    def another_job(self, turns: int) -> None:
        self.a_job(turns)

    def a_job(self, turns: int) -> None:
        at = now()
        values = {"model": "tiny", "step": 0, "config": CONFIG, "created_at": at, "queued_at": at}
        self.job_id = self.ws.store.insert(
            "jobs", state="queued", dataset_version_id=self.version_id, **values
        )
        self.history = ["queued"]
        self.worker: Worker | None = None
        self.replaced: Worker | None = None
        self.checkpoint, self.is_claimed = Checkpoint(), False
        self.the_work_goes_on((0, 1), turns)

    # the lab sides

    @precondition(lambda self: self.state not in states.FINAL)
    @rule(
        target=sent,
        side=SIDES,
        choice=st.data(),
        at_step=st.none() | st.integers(0, STEPS + 1),
        is_bad=st.booleans(),
    )
    def ask(self, side: int, choice: st.DataObject, at_step: int | None, is_bad: bool):
        allowed = [name for name, states in states.COMMANDS.items() if self.state in states]
        command = choice.draw(st.sampled_from(allowed))
        if command == "resume":
            self.resume(side)
            return multiple()
        ws = self.lab[side]
        event = states.send(ws, self.job_id, command, {"is_bad": is_bad}, at_step=at_step)
        assert (event.state, event.command) == ("pending", command)
        self.seen[event.id] = event
        return event

    def resume(self, side: int) -> None:
        processes.requeue(self.lab[side], self.job_id)
        self.is_claimed = False
        if self.worker:  # it was silent for so long that it was taken for dead
            self.worker.checkpoint = Checkpoint()
            self.replaced, self.worker = self.worker, None

    def is_refused(self, side: int, command: str, state: str) -> None:
        """Assert that a command meets a conflict that names the state."""
        ws, job_id = self.lab[side], self.job_id
        message = f"Job {job_id} is {state}; only a .* job can take the command '{command}'"
        with pytest.raises(Conflict, match=message):
            if command == "resume":
                processes.requeue(ws, job_id)
            else:
                states.send(ws, job_id, command)

    @rule(order=ORDERS, new_state=st.sampled_from(states.STATES))
    def two_sides_see_the_same_and_move(self, order: tuple[int, int], new_state: str) -> None:
        is_allowed = new_state in states.NEXT.get(self.state, ())
        if is_allowed and new_state not in ("cancelled", "failed"):
            return  # no lab side does that
        moved = [
            states.move(self.lab[side], self.job_id, new_state, only_from=self.state)
            for side in order
        ]
        assert moved == [is_allowed, False]

    @precondition(lambda self: self.state != "queued")
    @rule(side=SIDES)
    def cancel_only_what_has_no_worker(self, side: int) -> None:
        resting = ("queued", "paused")
        moved = states.move(self.lab[side], self.job_id, "cancelled", only_from=resting)
        assert moved is (self.state == "paused")

    @precondition(lambda self: self.state in states.COMMANDS["resume"])
    @rule(order=ORDERS)
    def two_sides_resume(self, order: tuple[int, int]) -> None:
        self.resume(order[0])
        before = self.events()
        self.is_refused(order[1], "resume", "queued")
        assert self.events() == before

    @rule(event=sent, side=SIDES, outcome=st.sampled_from(["applied", "refused"]))
    def settle_what_is_settled(self, event: Event, side: int, outcome: str) -> None:
        if self.seen[event.id].state != "pending":
            states.settle(self.lab[side], event, outcome, STEPS, note="too late")

    # the worker and its supervisor

    @precondition(lambda self: self.worker or self.state in states.WORKING)
    @rule(order=ORDERS, turns=TURNS)
    def work(self, order: tuple[int, int], turns: int) -> None:
        self.the_work_goes_on(order, turns)

    def the_work_goes_on(self, order: tuple[int, int], turns: int) -> None:
        for _ in range(turns):
            if self.worker:
                self.worker_goes_on(self.worker)
            elif self.state == "running":
                supervisor.conclude(self.ws, self.job_id, -9, held_by={"pid": self.supervisor})
            elif self.state == "queued" and self.is_claimed:
                self.worker = self.new_worker()
                assert self.worker.begin()
            elif self.state == "queued":
                self.two_sides_fill_the_slot(order)
            self.look()

    def worker_goes_on(self, worker: Worker) -> None:
        if worker.is_saving:
            worker.save()
            if worker.ending:
                self.worker_ends(worker.ending)
        elif not worker.border():
            assert self.state != "running"
            self.worker_ends("failed")

    def new_worker(self) -> Worker:
        return Worker(self.ws, self.job_id, self.new_pid(), self.checkpoint)

    def new_pid(self) -> int:
        self.n_processes += 1
        return self.n_processes

    def two_sides_fill_the_slot(self, order: tuple[int, int]) -> None:
        claimed = [processes._claim(self.lab[side]) for side in order]
        assert [row and row["id"] for row in claimed] == [self.job_id, None]
        self.is_claimed, self.supervisor = True, self.new_pid()
        self.ws.store.update("jobs", {"id": self.job_id}, pid=self.supervisor)

    @precondition(lambda self: self.worker)
    @rule(state=st.sampled_from(["completed", "failed", "paused", None]))
    def worker_ends(self, state: str | None) -> None:
        worker, self.worker = self.worker, None
        if state is not None:  # or else it vanishes without a word
            assert worker.end(state) is (self.state == "running")

    @precondition(lambda self: self.replaced)
    @rule(state=st.sampled_from(["completed", "failed", "paused"]))
    def a_worker_that_was_replaced_wakes_up(self, state: str) -> None:
        if self.replaced.is_saving:
            self.replaced.save()
        assert not self.replaced.border()
        assert not self.replaced.end(state)
        assert self.events() == self.seen
        self.replaced = None

    @precondition(lambda self: self.state != "queued")
    @rule()
    def nothing_is_left_to_begin_or_to_conclude(self) -> None:
        assert not self.new_worker().begin()
        assert processes._claim(self.ws) is None
        supervisor.conclude(self.ws, self.job_id, -9, held_by={"pid": -1})
        assert self.events() == self.seen

    # what holds after every rule

    @invariant()
    def look(self) -> None:
        jobs = {row["id"]: states.record(row) for row in self.lab[0].store.rows("jobs")}
        events = self.events()
        self.every_change_of_state_is_in_the_table(jobs[self.job_id])
        self.what_is_final_stays_as_it_is(jobs)
        self.no_command_is_lost_or_settled_twice(events)
        for event in events.values():
            self.a_command_waits_only_where_it_can_be_taken(event, jobs[event.job_id].state)

    def every_change_of_state_is_in_the_table(self, job: Job) -> None:
        if job.state != self.state:
            assert job.state in states.NEXT.get(self.state, ())
            self.history.append(job.state)
            self.what_the_new_state_does_not_allow_is_refused()
        assert (job.finished_at is not None) is (job.state in states.OVER)
        assert (job.worker_pid is not None) is (job.state == "running")

    def what_the_new_state_does_not_allow_is_refused(self) -> None:
        before = self.events()
        for command, allowed in states.COMMANDS.items():
            if self.state not in allowed:
                self.is_refused(len(self.history) % 2, command, self.state)
        assert self.events() == before

    def what_is_final_stays_as_it_is(self, jobs: dict[int, Job]) -> None:
        assert {job_id: jobs[job_id] for job_id in self.final} == self.final
        if self.state in states.FINAL and self.job_id not in self.final:
            assert not any(states.move(self.ws, self.job_id, state) for state in states.STATES)
        self.final = {job.id: job for job in jobs.values() if job.state in states.FINAL}

    def no_command_is_lost_or_settled_twice(self, events: dict[int, Event]) -> None:
        for before in self.seen.values():
            event = events[before.id]
            if before.state == "pending" and event.state != "pending":
                assert event.state in ("applied", "refused")
                event = replace(event, state="pending", step=None, result=None, note=None)
            assert event == before
        self.seen = events

    def a_command_waits_only_where_it_can_be_taken(self, event: Event, state: str) -> None:
        if event.state == "pending":
            assert state not in states.FINAL
            assert state in states.WORKING or state in states.COMMANDS[event.command]


def test_two_lab_sides_and_a_worker_keep_the_table_and_lose_no_command():
    how = settings(max_examples=60, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Mailbox, settings=how)

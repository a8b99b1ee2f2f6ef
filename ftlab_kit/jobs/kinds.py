"""The kinds of jobs: what a kind must offer, and which module does its work.

A kind is a module with the functions of `Kind` and one entry in KINDS. A worker loads it by the
`kind` of its job's row, so that nothing here imports it. Its settings are the row's `config`, of
which this room reads `processes`, `threads` and `max_restarts`, with defaults for each.
"""

import importlib
from typing import Protocol, cast

from ftlab_kit.errors import NotFound
from ftlab_kit.workspace import Workspace

KINDS = {"train": "ftlab_kit.trainers.run.job"}


class Kind(Protocol):
    """A module that does one kind of work; importing it must stay light."""

    def run(self, ws: Workspace, job_id: int) -> str:
        """Do the work, and return the state that the job ends in.

        That is 'completed', or 'paused' or 'cancelled' where the job's mailbox holds such a
        command. An error of the kit fails the job; any other error is a crash, after which the
        supervisor may start the worker again. So `run` goes on from what an earlier one left.
        """
        ...

    def room_bytes(self, ws: Workspace, job_id: int) -> int:
        """Return the free disk space that a job needs before it goes on."""
        ...


def load(name: str) -> Kind:
    """Return the module of a kind of job.

    Raises:
        NotFound: There is no such kind.
    """
    if name not in KINDS:
        raise NotFound(
            f"There is no kind of job {name!r}; there are {', '.join(KINDS)}. "
            "Was the job queued by a newer version of the kit?"
        )
    return cast(Kind, importlib.import_module(KINDS[name]))

"""Training as a kind of job (`jobs.kinds`). What trains is in training.py, loaded when it runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftlab_kit.workspace import Workspace

if TYPE_CHECKING:
    from transformers import TrainerCallback


def run(ws: Workspace, job_id: int, callbacks: "Sequence[TrainerCallback]" = ()) -> str:
    """Train a job and return the state that it ends in: completed, paused or cancelled.

    Args:
        callbacks: More callbacks for the trainer; for tests and measurements.
    """
    from ftlab_kit.trainers.run import training

    return training.train(ws, job_id, callbacks)


def room_bytes(ws: Workspace, job_id: int) -> int:
    """Return the free disk space that a job's next checkpoints need."""
    from ftlab_kit.trainers import forks

    return forks.room_bytes(ws, job_id)

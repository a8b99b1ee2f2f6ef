"""The workspace: one folder that holds everything, passed to every verb as `ws`.

ftlab.db     the store             models/     base models as safetensors
datasets/    rows, by content      jobs/       a folder per job: log, checkpoints, adapter
tokens/      rows as tokens        notebooks/  executed copies
exports/     models for elsewhere  graph.db    the knowledge graph
ballast      4 MB that can be given up on a full disk
"""

import getpass
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar, cast

from ftlab_kit.errors import InputError, room_on_disk
from ftlab_kit.store import Store

BALLAST_BYTES = 4 * 2**20


class HasClose(Protocol):
    """Something that is closed when it is no longer needed."""

    def close(self) -> None:
        """Release its resources."""
        ...


Closable = TypeVar("Closable", bound=HasClose)


class Workspace:
    """A folder with its store. Opening one twice is safe, even in two processes.

    `owner` is the user, recorded with every command that goes through this workspace.
    """

    def __init__(self, root: str | Path = "~/ftlab") -> None:
        """Open the folder as a workspace; create it if missing.

        Raises:
            InputError: The path is a file, or can't be written.
            Conflict: A newer kit wrote this workspace.
        """
        self.root = Path(root).expanduser().absolute()
        self.owner = getpass.getuser()
        self._shared: dict[str, HasClose] = {}
        self._lock = threading.RLock()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(
                f"{self.root} is a file; a workspace is a folder. "
                "Give the path of a folder; it is created if missing."
            )
        try:
            with room_on_disk(str(self.root)):
                for name in ("datasets", "tokens", "models", "jobs", "notebooks"):
                    (self.root / name).mkdir(parents=True, exist_ok=True)
            self.store = Store(self.root / "ftlab.db")
            self._add_ballast()
        except (PermissionError, NotADirectoryError) as error:
            raise InputError(
                f"{self.root} can't be created or written ({error.strerror}). "
                "Give the path of a folder that you may write to."
            ) from error

    @property
    def datasets(self) -> Path:
        """The folder of dataset rows."""
        return self.root / "datasets"

    @property
    def tokens(self) -> Path:
        """The folder of tokenised rows; it can be emptied at any time."""
        return self.root / "tokens"

    @property
    def models(self) -> Path:
        """The folder of base models."""
        return self.root / "models"

    @property
    def notebooks(self) -> Path:
        """The folder of executed notebooks."""
        return self.root / "notebooks"

    @property
    def exports(self) -> Path:
        """The folder of models exported for use elsewhere."""
        return self.root / "exports"

    def job_folder(self, job_id: int) -> Path:
        """Return the folder of a job: its log, checkpoints and adapter."""
        return self.root / "jobs" / str(job_id)

    @property
    def _ballast(self) -> Path:
        return self.root / "ballast"

    def _add_ballast(self) -> None:
        """Write the ballast if there is plenty of room: on a full disk no row could be written."""
        disk = os.statvfs(self.root)
        if not self._ballast.exists() and disk.f_bavail * disk.f_frsize > 4 * BALLAST_BYTES:
            self._ballast.write_bytes(bytes(BALLAST_BYTES))

    def drop_ballast(self) -> None:
        """Delete the ballast, so that a few rows can still be written on a full disk."""
        self._ballast.unlink(missing_ok=True)

    @property
    def graph(self) -> Path:
        """The file of the workspace's own knowledge graph."""
        return self.root / "graph.db"

    def shared(self, name: str, make: Callable[[], Closable]) -> Closable:
        """Return an object that the workspace makes once and closes: a graph, an embedder."""
        with self._lock:
            if name not in self._shared:
                self._shared[name] = make()
            return cast(Closable, self._shared[name])

    def close(self) -> None:
        """Close the store and the shared objects."""
        while self._shared:
            self._shared.popitem()[1].close()
        self.store.close()

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)

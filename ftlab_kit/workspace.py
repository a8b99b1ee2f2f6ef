"""The workspace: one folder that holds everything, handed to every verb as `ws`.

ftlab.db     the store             models/     base models as safetensors
datasets/    rows, by content      jobs/       a folder a job: log, checkpoints, adapter
tokens/      rows as tokens        notebooks/  executed copies
exports/     models for elsewhere  graph.db   the knowledge graph
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
    """Something that is closed once it is not needed."""

    def close(self) -> None:
        """Give back what it holds."""
        ...


Closes = TypeVar("Closes", bound=HasClose)


class Workspace:
    """A folder with its store. Opening one twice, in two processes even, is safe.

    `owner` is who asks for what is asked through this workspace, kept with every command.
    """

    def __init__(self, root: str | Path = "~/ftlab") -> None:
        """Open the folder as a workspace; make it if missing.

        Raises:
            InputError: The path is a file, or can't be written.
            Conflict: A newer kit made this workspace.
        """
        self.root = Path(root).expanduser().absolute()
        self.owner = getpass.getuser()
        self._held: dict[str, HasClose] = {}
        self._lock = threading.RLock()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(
                f"{self.root} is a file; a workspace is a folder. "
                "Give the path of a folder; it is made if missing."
            )
        try:
            with room_on_disk(str(self.root)):
                for name in ("datasets", "tokens", "models", "jobs", "notebooks"):
                    (self.root / name).mkdir(parents=True, exist_ok=True)
            self.store = Store(self.root / "ftlab.db")
            self._stow()
        except (PermissionError, NotADirectoryError) as error:
            raise InputError(
                f"{self.root} can't be made or written ({error.strerror}). "
                "Give the path of a folder that you may write."
            ) from error

    @property
    def datasets(self) -> Path:
        """The folder of dataset rows."""
        return self.root / "datasets"

    @property
    def tokens(self) -> Path:
        """The folder of rows as tokens; it can be emptied at any time."""
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
        """The folder of models that were written for use elsewhere."""
        return self.root / "exports"

    def job_folder(self, job_id: int) -> Path:
        """Return the folder of a job: its log, checkpoints and adapter."""
        return self.root / "jobs" / str(job_id)

    @property
    def _ballast(self) -> Path:
        return self.root / "ballast"

    def _stow(self) -> None:
        """Lay ballast by where there is plenty of room: a full disk can't even say that it is."""
        room = os.statvfs(self.root)
        if not self._ballast.exists() and room.f_bavail * room.f_frsize > 4 * BALLAST_BYTES:
            self._ballast.write_bytes(bytes(BALLAST_BYTES))

    def drop_ballast(self) -> None:
        """Give the ballast up, so that a few rows can still be written on a full disk."""
        self._ballast.unlink(missing_ok=True)

    @property
    def graph(self) -> Path:
        """The file of the workspace's own knowledge graph."""
        return self.root / "graph.db"

    def hold(self, name: str, make: Callable[[], Closes]) -> Closes:
        """Return what is made once for this workspace, and closed with it: a graph, an embedder."""
        with self._lock:
            if name not in self._held:
                self._held[name] = make()
            return cast(Closes, self._held[name])

    def close(self) -> None:
        """Close the store, and what is held."""
        while self._held:
            self._held.popitem()[1].close()
        self.store.close()

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)

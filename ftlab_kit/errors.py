"""The errors that reach a user. Each says what is, what was expected, and what to do.

KitError 500            anything below; `except KitError` catches what the kit says on purpose
├── InputError 422      a value that can't be used as it stands
│   ├── ConfigError     a setting: unknown key, out of bounds, wrong type
│   └── DataError       a dataset row; the message starts with path:line
├── NotFound 404        no such job, model, dataset, checkpoint
├── Conflict 409        the thing exists, but not in a state that allows this
├── Unavailable 503     a hub, a registry or a device that can't be had now
├── BudgetSpent 402     the money or the tokens that were allowed are spent
├── OutOfRoom 507       disk or memory does not suffice
│   └── DiskFull        the disk: what was under way is dropped, all else is kept
└── JobFailed 500       a job ended without its result
"""

import difflib
import errno
from collections.abc import Iterable
from typing import ClassVar


class KitError(Exception):
    """What the kit says on purpose; `status` is the HTTP status that a door answers with."""

    status: ClassVar[int] = 500


class InputError(KitError):
    """A value that can't be used as it stands."""

    status = 422


class ConfigError(InputError):
    """A setting that is unknown, out of bounds or of the wrong type."""


class DataError(InputError):
    """A dataset that can't be used; the message names the path and the line."""


class NotFound(KitError):
    """There is no such thing in the workspace."""

    status = 404


class Conflict(KitError):
    """The thing is in a state that does not allow this."""

    status = 409


class Unavailable(KitError):
    """Something outside the kit can't be had now."""

    status = 503


class BudgetSpent(KitError):
    """The money or the tokens that were allowed are spent."""

    status = 402


class OutOfRoom(KitError):
    """The disk or the memory does not suffice."""

    status = 507


class DiskFull(OutOfRoom):
    """The disk is full: what was under way is dropped, all else is kept."""


class JobFailed(KitError):
    """A job ended without its result."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the known name closest to a wrong one, else ''."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class room_on_disk:
    """Turn 'no space left' into a DiskFull that names what was being written.

    Libraries that write files have errors of their own for it, with the system's words inside.
    """

    def __init__(self, what: str) -> None:
        """Name what is written inside the block."""
        self.what = what

    def __enter__(self) -> None:
        """Begin to write."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise DiskFull in place of an error that means it."""
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_full or "No space left on device" in str(error):
            raise DiskFull(
                f"The disk is full while writing {self.what}; nothing was kept of it. "
                "Free some space or open a workspace on another disk, then try again."
            ) from error

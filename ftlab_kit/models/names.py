"""Which names a model may have."""

import re

from ftlab_kit.errors import Conflict, InputError
from ftlab_kit.models.catalogue import CATALOGUE
from ftlab_kit.workspace import Workspace


def check_new(ws: Workspace, name: str) -> None:
    """Refuse a name that is not allowed or already taken.

    Raises:
        InputError: It has characters that a name can't have.
        Conflict: It is taken.
    """
    check(name)
    if name in CATALOGUE or ws.store.get("models", id=name):
        raise Conflict(f"There is a model {name!r} already. Take another name.")


def check(name: str) -> None:
    """Refuse a name that is not allowed.

    Raises:
        InputError: It has characters that a name can't have; the message lists those it can.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(
            f"A model can't be named {name!r}; expected letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit."
        )

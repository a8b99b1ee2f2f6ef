"""What a model may be called."""

import re

from ftlab_kit.errors import Conflict, InputError
from ftlab_kit.models.catalogue import CATALOGUE
from ftlab_kit.workspace import Workspace


def check_new(ws: Workspace, name: str) -> None:
    """Refuse a name that a model can't have, or that one has.

    Raises:
        InputError: It has other letters than a name may have.
        Conflict: It is taken.
    """
    check(name)
    if name in CATALOGUE or ws.store.get("models", id=name):
        raise Conflict(f"There is a model {name!r} already. Take another name.")


def check(name: str) -> None:
    """Refuse a name with other letters than one may have.

    Raises:
        InputError: Says which may stand in it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(
            f"The name {name!r} can't be a model's; expected letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit."
        )

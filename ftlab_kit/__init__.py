"""Fine-Tune Lab for notebooks.

Rooms are modules named for a noun, what they do are verbs that take a workspace first:

    from ftlab_kit import Workspace, datasets, models, trainers
    ws = Workspace("~/ftlab")
    chats = datasets.add(ws, datasets.PUDDLE_AND_PINE)

Importing the package loads nothing heavy; each room loads what it needs when it is used.
"""

import sys
from typing import TYPE_CHECKING, Any

from ftlab_kit.errors import ExtraFinder

if TYPE_CHECKING:
    from ftlab_kit.workspace import Workspace

__all__ = ["Workspace", "__version__"]
__version__ = "0.2.0"

# last in the line: it is reached only where a package is not installed
if ExtraFinder not in sys.meta_path:
    sys.meta_path.append(ExtraFinder)


def __getattr__(name: str) -> Any:
    if name == "Workspace":
        from ftlab_kit.workspace import Workspace

        return Workspace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

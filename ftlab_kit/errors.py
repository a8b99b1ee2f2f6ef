"""The errors that reach a user. Each says what is, what was expected, and what to do.

KitError 500            anything below; `except KitError` catches every error of the kit
├── InputError 422      a value that can't be used as it stands
│   ├── ConfigError     a setting: unknown key, out of bounds, wrong type
│   └── DataError       a dataset row; the message starts with path:line
├── NotFound 404        no such job, model, dataset, checkpoint
├── Conflict 409        it exists, but in a state that does not allow this
├── Unavailable 503     a hub, a registry or a device that can't be had now
│   └── MissingExtra    a package of an optional part of the kit that is not installed
├── BudgetSpent 402     the money or the tokens that were allowed are spent
├── OutOfRoom 507       disk or memory does not suffice
│   └── DiskFull        the disk: what was being written is dropped, all else stays
└── JobFailed 500       a job ended without its result
"""

import difflib
import errno
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, ClassVar

# the extra that brings each optional package, by the name that it is imported by
EXTRAS = {
    **dict.fromkeys(
        (
            "accelerate",
            "datasets",
            "gguf",
            "huggingface_hub",
            "jinja2",
            "numpy",
            "pandas",
            "peft",
            "py3langid",
            "pyarrow",
            "pynvml",
            "rensa",
            "sacrebleu",
            "safetensors",
            "scipy",
            "tokenizers",
            "torch",
            "tqdm",
            "transformers",
            "trl",
            "wandb",
        ),
        "train",
    ),
    **dict.fromkeys(
        (
            "IPython",
            "anywidget",
            "ipykernel",
            "ipywidgets",
            "jupyterlab",
            "nbclient",
            "nbformat",
            "papermill",
            "traitlets",
        ),
        "notebook",
    ),
    **dict.fromkeys(("docx", "graphiti_core", "lxml", "neo4j", "pypdf"), "graph"),
    **dict.fromkeys(("anthropic", "genai_prices", "openai"), "chat"),
    **dict.fromkeys(("jsonschema", "rouge_score", "sentence_transformers"), "evaluate"),
    "lm_eval": "suites",
    **dict.fromkeys(("fastapi", "uvicorn"), "serve"),
    "runpod": "deploy",
    **dict.fromkeys(("psycopg", "psycopg_pool"), "postgres"),
}
# packages that are installed under another name than they are imported by
DISTRIBUTIONS = {
    "docx": "python-docx",
    "genai_prices": "genai-prices",
    "graphiti_core": "graphiti-core",
    "huggingface_hub": "huggingface-hub",
    "lm_eval": "lm-eval",
    "pynvml": "nvidia-ml-py",
    "rouge_score": "rouge-score",
    "sentence_transformers": "sentence-transformers",
}


class KitError(Exception):
    """Every error of the kit; `status` is the HTTP status that a door answers with."""

    status: ClassVar[int] = 500


class InputError(KitError):
    """A value that can't be used as it stands."""

    status = 422


class ConfigError(InputError):
    """A setting that is unknown, out of bounds or of the wrong type."""


class DataError(InputError):
    """A dataset that can't be used; the message names the path and the line."""


class NotFound(KitError):
    """The workspace does not have what was named."""

    status = 404


class Conflict(KitError):
    """What was named is in a state that does not allow this."""

    status = 409


class Unavailable(KitError):
    """Something outside the kit can't be had now."""

    status = 503


class MissingExtra(Unavailable, ModuleNotFoundError):
    """A package of an optional part of the kit that is not installed.

    It is a ModuleNotFoundError too, so that code which can do without the package still can.
    """

    def __init__(self, room: str, package: str) -> None:
        """Name what needs the package.

        Args:
            room: The part of the kit, such as trainers.
            package: The package's import name, one of EXTRAS.
        """
        name = DISTRIBUTIONS.get(package, package)
        command = f"pip install 'ftlab-kit[{EXTRAS[package]}]'"
        super().__init__(f"{room} needs {name}, which is not installed: {command}")
        self.name = package


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


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the name closest to a wrong one, '' if none is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class ExtraFinder:
    """The last of the import system's finders: says which extra brings a package.

    It is reached only where a package is not installed, and speaks only where the kit itself
    imports one of EXTRAS. Other libraries that try an import, and every `find_spec`, get the usual
    answer.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Raise MissingExtra for an import statement of the kit; find nothing otherwise.

        Raises:
            MissingExtra: The kit imports a package of an extra that is not installed.
        """
        if name not in EXTRAS:
            return
        modules = _importing_modules()
        # importlib.util: someone asks whether the package is installed
        if not modules or modules[0] == "importlib.util" or not _is_ours(modules[0]):
            return
        rooms = [module.split(".")[1] for module in modules if _is_ours(module)]
        # what was imported from outside of the kit: the command line only hands on
        raise MissingExtra([room for room in rooms if room != "cli"][-1], name)


def _importing_modules() -> list[str]:
    """Return the names of the modules on the stack above the import system, the nearest first."""
    modules = []
    frame: FrameType | None = sys._getframe(2)
    while frame:
        # the spec knows a module's name also where it is run as __main__
        spec = frame.f_globals.get("__spec__")
        modules.append(str(spec.name if spec else frame.f_globals.get("__name__", "")))
        frame = frame.f_back
    machinery = ("importlib", "importlib._bootstrap", "_frozen_importlib")
    return [module for module in modules if module not in machinery]


def _is_ours(module: str) -> bool:
    return module.startswith("ftlab_kit.")


class room_on_disk:
    """Turn 'no space left' into a DiskFull that names what was being written.

    Libraries that write files raise errors of their own, with the system's message inside.
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
                f"The disk is full while writing {self.what}; nothing of it was kept. "
                "Free some space or open a workspace on another disk, then try again."
            ) from error

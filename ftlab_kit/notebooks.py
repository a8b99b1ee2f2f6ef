"""The curriculum's notebooks, run headless: parameters checked before a kernel starts.

papermill hands `false` on as text, reads 3e-5 as text, and only warns of unknown names. Here the
notebook's own parameters cell decides: names and types are those of its `name: type = value` lines.
"""

import ast
import builtins
import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError, JobFailed, KitError, NotFound, nearest
from ftlab_kit.records import Checked, Parameter, show
from ftlab_kit.workspace import Workspace, now

PACKAGED = Path(__file__).parent / "curriculum"
FOLDER = PACKAGED if PACKAGED.exists() else Path(__file__).parent.parent / "notebooks"
TYPES: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str}
TYPES |= {"list": builtins.list, "dict": dict}


def list() -> builtins.list[str]:
    """Return the names of the notebooks."""
    return sorted(book.stem for book in FOLDER.glob("*.ipynb"))


def path(name: str) -> Path:
    """Return a notebook's path by its name.

    Raises:
        NotFound: There is no such notebook.
    """
    found = FOLDER / f"{name.removesuffix('.ipynb')}.ipynb"
    if not found.exists():
        names = ", ".join(list())
        raise NotFound(f"There is no notebook {name!r}; there are {names}.{nearest(name, list())}")
    return found


def parameters(name: str) -> dict[str, Parameter]:
    """Return the parameters of a notebook, read from its parameters cell without running it."""
    cells = json.loads(path(name).read_text())["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    source = "".join(tagged[0]["source"]) if tagged else ""
    helps = [line.partition("#")[2].strip() for line in source.splitlines()]
    return {
        node.target.id: Parameter(
            name=node.target.id,
            type=ast.unparse(node.annotation),
            default=ast.literal_eval(node.value),
            help=helps[node.lineno - 1],
        )
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    }


def check(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters as the types that the notebook expects.

    Raises:
        ConfigError: An unknown name or a value of another type.
    """
    known = parameters(name)
    checked = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(
                f"Notebook {name} has no parameter {key!r}.{nearest(key, known)} "
                f"It has {', '.join(known)}."
            )
        if key == "workspace":
            raise ConfigError("The workspace is no parameter here; open it with --workspace.")
        kind = known[key].type
        adapter = TypeAdapter(TYPES[kind])
        is_json = isinstance(value, str) and kind in ("list", "dict")
        try:
            checked[key] = (adapter.validate_json if is_json else adapter.validate_python)(value)
        except ValidationError:
            raise ConfigError(
                f"Parameter {key} of notebook {name} is {value!r}; expected {kind}, "
                f"such as {known[key].default!r}."
            ) from None
    # what is a setting too has its bounds there
    Config(**{key: value for key, value in checked.items() if key in Config.model_fields})
    return checked


def run(
    ws: Workspace,
    name: str,
    given: Mapping[str, Any] | None = None,
    *,
    timeout_s: int = 3600,
    progress: Callable[[int, int, str, float], None] | None = None,
) -> Path:
    """Execute a notebook in this workspace and return the executed copy.

    Args:
        given: Parameters that differ from the notebook's own; `workspace` is set to this one.
        timeout_s: The longest a cell may take.
        progress: Called after each code cell with cells done, cells in all, the heading that it
            stands under, and its seconds.

    Raises:
        ConfigError: A parameter is wrong; no kernel was started.
        JobFailed: A cell failed; the copy shows where.
    """
    values = {**check(name, given or {}), "workspace": str(ws.root)}
    copy = ws.notebooks / f"{path(name).stem}-{now():%Y%m%d-%H%M%S}.ipynb"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import papermill
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        engine = _engine(progress)
        try:
            papermill.execute_notebook(
                path(name),
                copy,
                parameters=values,
                engine_name=engine,
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=timeout_s,
                # on loopback its advice about encryption is noise
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
        except PapermillExecutionError as error:
            words = f"in cell {error.cell_index}: {error.ename}: {error.evalue}"
            raise JobFailed(_failed(name, words, copy)) from None
        except (DeadKernelError, CellTimeoutError) as error:
            words = f"({type(error).__name__}): {str(error).splitlines()[0]}"
            raise JobFailed(_failed(name, words, copy)) from None
    return copy


def exercise(is_right: Callable[[Any], bool], *, hint: str) -> Callable[[Any], Checked]:
    """Return what looks at a learner's answer and says whether it is right.

    Args:
        is_right: Tells of an answer; one that it can't even look at is not right.
        hint: Shown until the answer is right; None is no answer yet.
    """

    def ask(answer: Any) -> Checked:
        if answer is None:
            return Checked(None, f"Not answered yet. {hint}")
        try:
            found = bool(is_right(answer))
        except (KitError, TypeError, ValueError, LookupError, AttributeError, SyntaxError) as error:
            words = f"{show(answer)} is another kind of thing than was asked for ({error}). {hint}"
            return Checked(False, words)
        return Checked(found, "Right." if found else f"Not yet: {show(answer)} is not it. {hint}")

    return ask


def _failed(name: str, words: str, copy: Path) -> str:
    return f"Notebook {name} failed {words} The executed copy shows where: {copy}"


def _engine(progress: Callable[[int, int, str, float], None] | None) -> str:
    """Register papermill's own engine with a look at each finished cell, and return its name."""
    from papermill.engines import NBClientEngine, papermill_engines

    class Watched(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, manager: Any, kernel: str, **options: Any) -> None:
            finish = manager.cell_complete
            cells = manager.nb.cells
            total = sum(cell.cell_type == "code" for cell in cells)
            began = time.perf_counter()

            def complete(cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
                nonlocal began
                finish(cell, cell_index=cell_index, **kwargs)
                if progress and cell_index is not None and cell.cell_type == "code":
                    done = sum(item.cell_type == "code" for item in cells[: cell_index + 1])
                    took = time.perf_counter() - began
                    progress(done, total, _heading(cells[: cell_index + 1]), took)
                began = time.perf_counter()

            manager.cell_complete = complete
            super().execute_managed_notebook(manager, kernel, **options)

    papermill_engines.register("ftlab", Watched)
    return "ftlab"


def _heading(cells: Any) -> str:
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("#")]
    return lines[-1].lstrip("# ") if lines else ""

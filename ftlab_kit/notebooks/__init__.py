"""The curriculum's notebooks, run headless: parameters checked before a kernel starts.

The notebook's own parameters cell decides: names and types are those of its `name: type = value`
lines. (papermill itself hands `false` on as text, reads 3e-5 as text, and only warns of unknown
names.) The checks of the exercises stand in `exercises`.
"""

import ast
import builtins
import inspect
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError, InputError, NotFound, nearest
from ftlab_kit.records import (
    Checked,
    OnProgress,
    Parameter,
    QuickStart,
    Rows,
    ScoreChange,
    show,
)
from ftlab_kit.workspace import Workspace, now

__all__ = [
    "FOLDER",
    "TYPES",
    "check",
    "exercise",
    "list",
    "parameters",
    "path",
    "quickstart",
    "run",
]

# a wheel carries the notebooks inside the package
PACKAGED = Path(__file__).parent.parent / "curriculum"
FOLDER = PACKAGED if PACKAGED.exists() else Path(__file__).parent.parent.parent / "notebooks"
TYPES: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str}
TYPES |= {"list": builtins.list, "dict": dict}
N_LONGEST = 4  # steps of the quick start whose seconds are shown


def list() -> builtins.list[str]:
    """Return the names of the notebooks."""
    return sorted(book.stem for book in FOLDER.glob("*.ipynb"))


def path(name: str) -> Path:
    """Return a notebook's path by its name.

    Raises:
        NotFound: There is no such notebook.
    """
    book = FOLDER / f"{name.removesuffix('.ipynb')}.ipynb"
    if not book.exists():
        names = ", ".join(list())
        raise NotFound(f"There is no notebook {name!r}; there are {names}.{nearest(name, list())}")
    return book


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

    Args:
        name: The notebook.
        given: Parameters and their values; text is read as the parameter's type.

    Raises:
        ConfigError: An unknown name, or a value of another type.
    """
    expected = parameters(name)
    checked = {}
    for key, value in given.items():
        if key not in expected:
            raise ConfigError(
                f"Notebook {name} has no parameter {key!r}.{nearest(key, expected)} "
                f"It has {', '.join(expected)}."
            )
        if key == "workspace":
            raise ConfigError("The workspace can't be a parameter here; open it with --workspace.")
        kind = expected[key].type
        adapter = TypeAdapter(TYPES[kind])
        is_json = isinstance(value, str) and kind in ("list", "dict")
        try:
            checked[key] = (adapter.validate_json if is_json else adapter.validate_python)(value)
        except ValidationError:
            raise ConfigError(
                f"Parameter {key} of notebook {name} is {value!r}; expected {kind}, "
                f"such as {expected[key].default!r}."
            ) from None
    # a parameter that is also a setting of a job has its bounds there
    Config(**{key: value for key, value in checked.items() if key in Config.model_fields})
    return checked


def run(
    ws: Workspace,
    name: str,
    given: Mapping[str, Any] | None = None,
    *,
    timeout_s: int = 3600,
    progress: OnProgress | None = None,
) -> Path:
    """Execute a notebook in this workspace and return the executed copy.

    Args:
        ws: The workspace.
        name: The notebook, such as 00_quickstart.
        given: Parameters that differ from the notebook's own; `workspace` is set to this one.
        timeout_s: The longest that a cell may take (seconds).
        progress: Called after each code cell, with its heading as the note.

    Raises:
        ConfigError: A parameter is wrong; no kernel was started.
        JobFailed: A cell failed; the copy shows where.
    """
    from ftlab_kit.notebooks import execution

    values = {**check(name, given or {}), "workspace": str(ws.root)}
    book = path(name)
    copy = ws.notebooks / f"{book.stem}-{now():%Y%m%d-%H%M%S}.ipynb"
    execution.execute(book, copy, values, timeout_s=timeout_s, progress=progress)
    return copy


def quickstart(
    ws: Workspace,
    *,
    model: str | None = None,
    epochs: float | None = None,
    max_new_tokens: int | None = None,
    progress: OnProgress | None = None,
) -> QuickStart:
    """Fine-tune a model on the sample chats, headless, and return what came of it.

    Args:
        ws: The workspace.
        model: Base model; the notebook's own if None.
        epochs: Passes over the rows; the notebook's own if None.
        max_new_tokens: Answers are cut there (tokens); the notebook's own if None.
        progress: Called after each code cell, with its heading as the note.

    Raises:
        ConfigError: A parameter is wrong; no kernel was started.
        JobFailed: A cell of the notebook failed; the executed copy shows where.
    """
    from ftlab_kit import checkpoints, evaluators, trainers
    from ftlab_kit.notebooks.execution import StepTimes

    began, times = time.perf_counter(), StepTimes(progress)
    options = {"model": model, "epochs": epochs, "max_new_tokens": max_new_tokens}
    given = {key: value for key, value in options.items() if value is not None}
    earlier = {evaluation.id for evaluation in evaluators.list(ws)}
    copy = run(ws, "00_quickstart", given, progress=times)
    new = [item for item in evaluators.list(ws) if item.id not in earlier]
    before = next(item for item in new if item.job_id is None)
    after = next(item for item in new if item.job_id is not None)
    job = trainers.status(ws, after.job_id or 0)
    speeds = [row.tokens_per_s for row in trainers.metrics(ws, job) if row.tokens_per_s]
    return QuickStart(
        job_id=job.id,
        minutes=(time.perf_counter() - began) / 60,
        tokens_per_s=statistics.median_high(speeds) if speeds else None,
        longest_s=times.longest(N_LONGEST),
        scores=Rows(
            ScoreChange(name, score, after.scores[name]) for name, score in before.scores.items()
        ),
        prompt=after.samples[0].prompt,
        answer_before=before.samples[0].answer,
        answer_after=after.samples[0].answer,
        adapter=checkpoints.list(ws, job)[-1].path,
        log=ws.job_folder(job.id) / "log.txt",
        notebook=copy,
    )


def exercise(
    notebook: str, number: int, answer: Any, *, variables: Mapping[str, Any] | None = None
) -> Checked:
    """Return whether a learner's answer to an exercise is right, with a hint until it is.

    Args:
        notebook: The first word of the notebook's name, such as "00" or "template".
        number: The exercise, from 1.
        answer: The learner's; None is no answer yet.
        variables: What the check needs to know of the notebook, by name; None takes the variables
            of the notebook that is running.

    Raises:
        NotFound: There is no such exercise.
        InputError: A variable that the check needs is missing.
    """
    from ftlab_kit.notebooks.exercises import CHECKS

    if notebook not in CHECKS or not 1 <= number <= len(CHECKS[notebook]):
        raise NotFound(
            f"There is no exercise {number} of notebook {notebook!r}; expected 1 to 3 of one of "
            f"{', '.join(CHECKS)}."
        )
    is_right = CHECKS[notebook][number - 1]
    hint = " ".join((inspect.getdoc(is_right) or "").split())
    if answer is None:
        return Checked(None, f"Not answered yet. {hint}")
    there = _notebook_variables() if variables is None else variables
    _, *needed = inspect.signature(is_right).parameters
    missing = [name for name in needed if name not in there]
    if missing:
        raise InputError(
            f"Exercise {number} of notebook {notebook} needs {', '.join(missing)} of the cells "
            "above, which are not defined. Run the notebook from its beginning."
        )
    try:
        is_correct = is_right(answer, **{name: there[name] for name in needed})
    except Exception as error:  # a check reads whatever the learner typed, so anything may come
        return Checked(False, f"{show(answer)} can't be checked ({error}). {hint}")
    message = "Right." if is_correct else f"Not yet: {show(answer)} is not right. {hint}"
    return Checked(is_correct, message)


def _notebook_variables() -> Mapping[str, Any]:
    """Return the variables of the notebook that is running, none outside of one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return {} if shell is None else shell.user_ns

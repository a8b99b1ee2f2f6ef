"""A notebook executed by papermill, with a look at each finished cell."""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlab_kit.errors import JobFailed
from ftlab_kit.records import OnProgress, Progress


def execute(
    book: Path,
    copy: Path,
    values: Mapping[str, Any],
    *,
    timeout_s: int,
    progress: OnProgress | None,
) -> None:
    """Execute a notebook headless, and write the executed copy also where a cell fails.

    Args:
        book: The notebook.
        copy: Where the executed copy goes.
        values: Its parameters, as their types.
        timeout_s: The longest that a cell may take.
        progress: Called after each code cell, with its heading as the note.

    Raises:
        JobFailed: A cell failed or took too long, or the kernel died.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import papermill
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from papermill.exceptions import PapermillExecutionError

        try:
            papermill.execute_notebook(
                book,
                copy,
                parameters=values,
                engine_name=_engine(progress),
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=timeout_s,
                # on loopback its advice about encryption is noise
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
        except PapermillExecutionError as error:
            reason = f"in cell {error.cell_index}: {error.ename}: {error.evalue}"
            raise JobFailed(_failure(book.stem, reason, copy)) from None
        except (DeadKernelError, CellTimeoutError) as error:
            reason = f"({type(error).__name__}): {str(error).splitlines()[0]}"
            raise JobFailed(_failure(book.stem, reason, copy)) from None


def _failure(name: str, reason: str, copy: Path) -> str:
    return f"Notebook {name} failed {reason} The executed copy shows where: {copy}"


def _engine(progress: OnProgress | None) -> str:
    """Register papermill's own engine with a look at each finished cell, and return its name."""
    from papermill.engines import NBClientEngine, papermill_engines

    class Observed(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(cls, manager: Any, kernel: str, **options: Any) -> None:
            finish, cells = manager.cell_complete, manager.nb.cells
            total = sum(cell.cell_type == "code" for cell in cells)

            def complete(cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
                finish(cell, cell_index=cell_index, **kwargs)
                if progress and cell_index is not None and cell.cell_type == "code":
                    past = cells[: cell_index + 1]
                    done = sum(item.cell_type == "code" for item in past)
                    progress(Progress("cells", done, total, _heading(past)))

            manager.cell_complete = complete
            super().execute_managed_notebook(manager, kernel, **options)

    papermill_engines.register("ftlab", Observed)
    return "ftlab"


def _heading(cells: Sequence[Any]) -> str:
    """Return the heading that the last of some cells stands under."""
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("#")]
    return lines[-1].lstrip("# ") if lines else ""


class StepTimes:
    """The seconds that each heading of a notebook took, measured between calls of `progress`."""

    def __init__(self, progress: OnProgress | None) -> None:
        """Begin to measure.

        Args:
            progress: Called on with what comes.
        """
        self.seconds: dict[str, float] = {}
        self._progress, self._began = progress, time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        """Add the time since the last call to the heading of the cell that ended."""
        now = time.perf_counter()
        heading = progress.note or ""
        self.seconds[heading] = self.seconds.get(heading, 0.0) + now - self._began
        self._began = now
        if self._progress:
            self._progress(progress)

    def longest(self, n: int) -> dict[str, float]:
        """Return the headings that took longest, with their seconds, the longest first."""
        return dict(sorted(self.seconds.items(), key=lambda item: -item[1])[:n])

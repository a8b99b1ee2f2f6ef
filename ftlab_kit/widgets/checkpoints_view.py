"""A job's checkpoints with their losses and scores, the best one marked; fork or merge one."""

import html
from collections.abc import Sequence

import ipywidgets

from ftlab_kit import checkpoints as checkpoint_verbs
from ftlab_kit import trainers
from ftlab_kit.errors import InputError
from ftlab_kit.records import Checkpoint, Job, show
from ftlab_kit.widgets.display import (
    Html,
    button,
    is_interactive,
    show_status,
    table,
    work_around_ipykernel_7_4,
)
from ftlab_kit.workspace import Workspace

HELD_OUT = "eval_loss"


def checkpoints(ws: Workspace, job: Job | int, *, by: str = HELD_OUT) -> "CheckpointsView | Html":
    """Return a job's checkpoints in a table, the best one marked.

    In front of a person, buttons start a new job from a checkpoint, or merge it into a model.

    Args:
        by: The measure that decides which is best: eval_loss, or a metric of an evaluation.

    Raises:
        NotFound: There is no such job.
    """
    job = trainers.status(ws, job)
    if is_interactive():
        return CheckpointsView(ws, job, by)
    markup, summary = _table(ws, job, by)
    return Html(f"<p>{html.escape(summary)}</p>{markup}", summary)


def _table(ws: Workspace, job: Job, by: str) -> tuple[str, str]:
    """Return the table of a job's checkpoints, and a sentence that says which is best."""
    rows = checkpoint_verbs.list(ws, job.id)
    if not rows:
        return "", f"job {job.id} has no checkpoint yet"
    try:
        best = checkpoint_verbs.best(ws, job, by=by).step
        summary = f"of {len(rows)} checkpoints, step {best} is best by {by}"
    except InputError:
        best, summary = None, f"{len(rows)} checkpoints, none measured by {by}"
    names = _score_names(rows)
    head = ["step", "loss", "held out", *names, "MB", "written", ""]
    cells = [
        [
            *map(show, (item.step, item.loss, item.eval_loss)),
            *(show(item.scores.get(name)) for name in names),
            f"{item.size_bytes / 1e6:.1f}",
            show(item.created_at),
            f"best by {html.escape(by)}" if item.step == best else "",
        ]
        for item in rows
    ]
    return table(head, cells), summary


def _score_names(rows: Sequence[Checkpoint]) -> list[str]:
    return [*dict.fromkeys(name for item in rows for name in item.scores)]


class CheckpointsView(ipywidgets.VBox):  # type: ignore[misc]
    """A table of checkpoints, and buttons to start a job from one, or to merge one into a model."""

    def __init__(self, ws: Workspace, job: Job, by: str) -> None:
        """Show a job's checkpoints."""
        self._ws, self._job = ws, job
        self.by = ipywidgets.Dropdown(options=[by], value=by, description="best by")
        self.step = ipywidgets.Dropdown(options=[], description="step")
        self.name = ipywidgets.Text(f"job-{job.id}-merged", description="name")
        self._table, self._status = ipywidgets.HTML(), ipywidgets.HTML()
        line = self._status
        self.again = button("Refresh", "Read the checkpoints again", self.refresh, line)
        self.fork = button("Fork", "Start a new job from this checkpoint", self._fork, line)
        merging = "Merge this checkpoint into a model, with a certificate"
        self.merge = button("Merge", merging, self._merge, line)
        actions = ipywidgets.HBox([self.step, self.fork, self.name, self.merge])
        super().__init__([ipywidgets.HBox([self.by, self.again]), self._table, actions, line])
        self.by.observe(lambda _: self.refresh(), "value")
        self.refresh()

    def refresh(self) -> None:
        """Read the checkpoints again."""
        rows = checkpoint_verbs.list(self._ws, self._job.id)
        names = [HELD_OUT, *_score_names(rows)]
        if {*names} - {*self.by.options}:
            chosen = self.by.value
            self.by.options = [*dict.fromkeys([chosen, *names])]
            self.by.value = chosen
        steps = tuple(item.step for item in rows)
        if steps != self.step.options:
            self.step.options = steps
            self.step.value = steps[-1] if steps else None
        self.fork.disabled = self.merge.disabled = not steps
        self._table.value, summary = _table(self._ws, self._job, self.by.value)
        show_status(self._status, summary)
        work_around_ipykernel_7_4(
            self.by, self.step, self.name, self.again, self.fork, self.merge, self._table
        )

    def _fork(self) -> str:
        job = trainers.fork(self._ws, self._job, from_checkpoint=self.step.value)
        return f"started job {job.id}; watch it with widgets.trainer(ws, {job.id})"

    def _merge(self) -> str:
        export = checkpoint_verbs.merge(
            self._ws,
            self._job,
            self.name.value,
            checkpoint=self.step.value,
            progress=lambda progress: show_status(self._status, str(progress)),
        )
        certificate = export.certificate
        same = f"{certificate.n_same} of {certificate.n_answers}"
        return f"model {export.model}: {same} answers are the same as before the merge"

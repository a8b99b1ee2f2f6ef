"""The checkpoints of a job with their losses and scores, which of them is best, and ways on."""

import html
from collections.abc import Sequence

import ipywidgets

from ftlab_kit import checkpoints as kept
from ftlab_kit import trainers
from ftlab_kit.errors import InputError
from ftlab_kit.records import CELL, Checkpoint, Job, show
from ftlab_kit.widgets.display import Html, button, is_interactive, say, work_around_ipykernel_7_4
from ftlab_kit.workspace import Workspace

HELD_OUT = "eval_loss"


def checkpoints(ws: Workspace, job: Job | int, *, by: str = HELD_OUT) -> "CheckpointsView | Html":
    """Return the checkpoints of a job in a table, the best one marked; with ways on for who clicks.

    Args:
        by: The measure that decides which is best: eval_loss, or one that they were scored by.
    """
    found = trainers.status(ws, job)
    if is_interactive():
        return CheckpointsView(ws, found, by)
    table, words = _table(ws, found, by)
    return Html(f"<p>{html.escape(words)}</p>{table}", words)


def _table(ws: Workspace, job: Job, by: str) -> tuple[str, str]:
    """Return the table of a job's checkpoints, and in words which is best."""
    found = kept.list(ws, job.id)
    if not found:
        return "", f"job {job.id} has no checkpoint yet"
    try:
        best = kept.best(ws, job, by=by).step
        words = f"of {len(found)} checkpoints the one at step {best} is best by {by}"
    except InputError:
        best, words = None, f"{len(found)} checkpoints, none measured by {by}"
    names = _scores(found)
    head = ["step", "loss", "held out", *names, "MB", "written", ""]
    rows = [
        [
            *map(show, (item.step, item.loss, item.eval_loss)),
            *(show(item.scores.get(name)) for name in names),
            f"{item.size_bytes / 1e6:.1f}",
            show(item.created_at),
            f"best by {html.escape(by)}" if item.step == best else "",
        ]
        for item in found
    ]
    top = "".join(f"<th {CELL}>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td {CELL}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", words


def _scores(found: Sequence[Checkpoint]) -> list[str]:
    return [*dict.fromkeys(name for item in found for name in item.scores)]


class CheckpointsView(ipywidgets.VBox):  # type: ignore[misc]
    """A table of checkpoints, and buttons to train on from one, or to make a model of it."""

    def __init__(self, ws: Workspace, job: Job, by: str) -> None:
        """Show a job's checkpoints."""
        self._ws, self._job = ws, job
        self.by = ipywidgets.Dropdown(options=[by], value=by, description="best by")
        self.step = ipywidgets.Dropdown(options=[], description="step")
        self.name = ipywidgets.Text(f"job-{job.id}-merged", description="name")
        self._shown, self._said = ipywidgets.HTML(), ipywidgets.HTML()
        said = self._said
        self.again = button("Refresh", "Read the checkpoints again", self.refresh, said)
        self.fork = button("Train on", "Start a new job from this one", self._fork, said)
        self.merge = button("Merge", "Make a model of it, with a certificate", self._merge, said)
        ways = ipywidgets.HBox([self.step, self.fork, self.name, self.merge])
        super().__init__([ipywidgets.HBox([self.by, self.again]), self._shown, ways, self._said])
        self.by.observe(lambda _: self.refresh(), "value")
        self.refresh()

    def refresh(self) -> None:
        """Read the checkpoints again."""
        found = kept.list(self._ws, self._job.id)
        names = [HELD_OUT, *_scores(found)]
        if {*names} - {*self.by.options}:
            chosen = self.by.value
            self.by.options = [*dict.fromkeys([chosen, *names])]
            self.by.value = chosen
        steps = tuple(item.step for item in found)
        if steps != self.step.options:
            self.step.options = steps
            self.step.value = steps[-1] if steps else None
        self.fork.disabled = self.merge.disabled = not steps
        self._shown.value, words = _table(self._ws, self._job, self.by.value)
        say(self._said, "status", words)
        work_around_ipykernel_7_4(
            self.by, self.step, self.name, self.again, self.fork, self.merge, self._shown
        )

    def _fork(self) -> str:
        made = trainers.fork(self._ws, self._job, from_checkpoint=self.step.value)
        return f"job {made.id} trains on; see it with widgets.trainer(ws, {made.id})"

    def _merge(self) -> str:
        made = kept.merge(
            self._ws,
            self._job,
            self.name.value,
            checkpoint=self.step.value,
            progress=lambda *news: say(self._said, "status", str(news[0])),
        )
        found = made.certificate
        return f"model {made.model}: {found.n_same} of {found.n_answers} answers are the same"

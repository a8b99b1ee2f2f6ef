"""A job's curves as the store has them, kept up to date step by step."""

from ftlab_kit import metrics, trainers
from ftlab_kit.pictures import job_panels
from ftlab_kit.pictures.charts import Series
from ftlab_kit.pictures.traces import MAX_BUCKETS, Trace
from ftlab_kit.records import Job, Metric, Rows
from ftlab_kit.workspace import Workspace

StepRange = tuple[int | None, int | None]  # first and last step; None is the job's own


class History:
    """The curves of a job in bounded memory, from one step to another.

    Args:
        steps: The first and the last step; None for the job's own.
    """

    def __init__(self, ws: Workspace, job: Job, *, steps: StepRange = (None, None)) -> None:
        """Read what the job has measured so far, downsampled."""
        self.steps = steps
        newest = metrics.last(ws, job.id)  # read first: what is written meanwhile is added later
        curves = trainers.curves(
            ws,
            job,
            *job_panels.METRICS,
            first_step=steps[0],
            last_step=steps[1],
            at_most=MAX_BUCKETS,
        )
        self.traces = {curve.name: Trace(curve) for curve in curves}
        self.last: Metric | None = None
        if newest:
            self.add(trainers.metrics(ws, job, after_step=newest.step - 2))

    def add(self, rows: Rows[Metric]) -> bool:
        """Add what is new, and return whether anything was."""
        is_new = False
        for row in rows:
            for name, trace in self.traces.items():
                value = metric_value(row, name)
                is_later = trace.last is None or row.step > trace.last[0]
                if value is not None and is_later and self._includes(row.step):
                    trace.add(row.step, value)
                    is_new = True
            if row.loss is not None or self.last is None:
                self.last = row
        return is_new

    def _includes(self, step: int) -> bool:
        first, last = self.steps
        return (first is None or step >= first) and (last is None or step <= last)

    def series(self, title: str, smoothing: float = 0.0) -> list[Series]:
        """Return the lines of a panel, as `job_panels.series`."""
        return job_panels.series(title, self.traces, smoothing)

    @property
    def step(self) -> int | None:
        """The step to read on from: the newest one may still get its held-out loss."""
        return self.last.step - 1 if self.last else None


def metric_value(row: Metric, name: str) -> float | None:
    """Return a metric by its name in `trainers.curves`: "loss", or "more.reward"."""
    field, _, key = name.partition(".")
    value: float | None = (row.more or {}).get(key) if key else getattr(row, field)
    return value

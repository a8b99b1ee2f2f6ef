"""A job's state as text and as a bar."""

import html

from ftlab_kit.pictures import charts
from ftlab_kit.records import Job, Metric, show

BAR_WIDTH = 420  # pixels


def sentence(job: Job, last: Metric | None) -> str:
    """Return a job's state in one line: step, loss, speed, time left, error and note.

    Args:
        last: The newest metrics.
    """
    parts = [f"Job {job.id} on {job.model} is {job.state}"]
    if job.total_steps:
        parts.append(f"step {job.step} of {job.total_steps}")
    if last is not None:
        parts.append(f"loss {show(last.loss)}")
        parts.append(f"{show(last.tokens_per_s)} tokens/s")
        if last.remaining_s and not job.is_over:
            parts.append(f"{duration(last.remaining_s)} left")
    parts += [text for text in (job.error, job.note) if text]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: "2 h 1 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def state_line(job: Job, last: Metric | None) -> str:
    """Return a job's state as HTML: the sentence, an alert if it failed, above a bar."""
    share = job.progress or 0.0
    bar = (
        f'<svg width="{BAR_WIDTH}" height="8" role="img" aria-label="{share:.0%} done">'
        f'<rect width="{BAR_WIDTH}" height="8" rx="4" fill="currentColor" fill-opacity="0.25"/>'
        f'<rect width="{BAR_WIDTH * share:.0f}" height="8" rx="4" fill="{charts.COLOURS[0]}"/>'
        "</svg>"
    )
    role = "alert" if job.state == "failed" else "status"
    return f'<div role="{role}"><b>{html.escape(sentence(job, last))}</b></div>{bar}'

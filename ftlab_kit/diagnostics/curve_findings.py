"""Checks of a job's curves: is its loss finite, does it fall, jump, or fall too far?

A curve gets one name: a loss that is not finite is not also a plateau, and a run that diverged did
not just have a short warm-up. So the checks of `CURVE_CHECKS` run in order, and the first finding
ends them. The loss of grpo stays around 0 whatever the model learns, and is not checked.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ftlab_kit.diagnostics.evidence import (
    FAR_FROM_PRESET,
    Evidence,
    higher_rate,
    lower_rate,
    set_settings,
)
from ftlab_kit.records import Finding, show

FIRST = 3  # losses whose median is the beginning: one batch may be easy or hard by chance
MIN_LOSSES = 8  # fewer say nothing: half of them are the end of the curve
# of the first loss: batches of a few rows differ by some 10% each, their means by less than this
FALL = 0.10
# a smaller fall counts too, if chance alone brings it once in a hundred runs (Kendall's tau)
SURE_FALL, CHANCE = 0.005, 0.01
HELD_OUT_FALL = 0.01  # the held-out rows are the same each time, so chance plays no part
ROSE = 1.15  # of the first loss, which comes before any update
ROSE_FAR = 1.25  # a loss that rose this far has diverged, even if it comes back later
NOISE = 4  # robust standard deviations: chance brings this once in some 30,000 steps
JUMP_NATS = 1.0  # a token becomes nearly three times less likely
WINDOW = 20  # losses that a jump is compared with, as the guard does
BURST = 3  # a gradient norm this many times the first one, and those at the end
SOON = 10  # steps after the peak of the rate in which a short warm-up shows
WARM = 0.10  # of the steps: a longer warm-up is not too short
RISE = 1.02  # of the best held-out loss; less would end good runs early
MIN_EVALUATIONS = 3  # held-out losses before one can have risen


def non_finite_loss(evidence: Evidence) -> Finding | None:
    """Look for a NaN or infinite loss or gradient, in the guard's notes and in the metrics."""
    text = _guard_note(evidence, r"the (?:loss|gradient norm) became \S+.*?(?=\. |$)")
    values = [
        (item.step, value)
        for item in evidence.metrics
        for value in (item.loss, item.grad_norm, item.eval_loss)
        if value is not None and not math.isfinite(value)
    ]
    if text is None and not values:
        return None
    text = text or f"the loss or its gradient was {values[0][1]} at step {values[0][0]}"
    changes: Mapping[str, Any] | None = lower_rate(evidence)
    cause, side = "the learning rate is too high", "settings"
    if evidence.config.precision == "fp16":
        cause, changes = "fp16 can't represent large numbers", {"precision": "fp32"}
    elif re.search(r"at step 1\b", text):
        cause, side = "the rows of the first batch: no update came before it", "data"
        changes = None
    by_hand = "Look at the rows that are named, and remove them with datasets.filter."
    return Finding(
        problem="non-finite loss",
        importance=1,
        side=side,
        evidence=f"{_capitalised(text)}; the learning rate is {_rate(evidence)}.",
        cause=cause,
        fix=set_settings(changes) if changes else by_hand,
        changes=changes,
    )


def spike(evidence: Evidence) -> Finding | None:
    """Look for a step whose loss jumped: by the guard's notes, or alone among its neighbours."""
    text = _guard_note(evidence, r"the (?:loss|gradient norm) jumped to .*?(?=\. |$)")
    if text is None and evidence.config.method != "grpo":
        losses = evidence.losses
        text = _jump([loss for _, loss in losses], [step for step, _ in losses])
    if text is None:
        return None
    is_high = evidence.config.learning_rate > evidence.preset_rate
    changes = lower_rate(evidence)
    return Finding(
        problem="spike",
        importance=1 if evidence.job.state == "failed" else 2,
        side="settings" if is_high else "data",
        evidence=(
            f"{_capitalised(text)}; the learning rate is {_rate(evidence)}, {_preset(evidence)}."
        ),
        cause="the learning rate is too high" if is_high else "a batch unlike all others",
        fix=set_settings(changes) + ("" if is_high else " Look at the rows of that batch too."),
        changes=changes,
    )


def _jump(losses: Sequence[float], steps: Sequence[int]) -> str | None:
    """Return as text the first loss that exceeds those before it and is followed by lower ones."""
    noise = _noise(losses)
    for place in range(MIN_LOSSES, len(losses) - 1):
        usual = statistics.median(losses[max(0, place - WINDOW) : place])
        after = statistics.median(losses[place + 1 : place + 1 + FIRST])
        far = max(JUMP_NATS, NOISE * noise)
        if losses[place] - usual > far and losses[place] - after > far / 2:
            return f"the loss jumped from {usual:.4g} to {losses[place]:.4g} at step {steps[place]}"
    return None


def rising_loss(evidence: Evidence) -> Finding | None:
    """Look for a loss that rose from where it began and stayed there, or rose far."""
    losses = [loss for _, loss in evidence.losses]
    if len(losses) < FIRST + 2 or not losses[0] > 0 or evidence.config.method == "grpo":
        return None
    top, step = _top(evidence.losses)
    end = _end(losses)
    # capped: a rise by the first loss again is more than chance, however noisy the rest is
    noise = min(_noise(losses[len(losses) // 2 :]), losses[0] / NOISE)
    is_risen = top > ROSE * losses[0] and top - losses[0] > NOISE * noise
    is_lost = top > ROSE_FAR * losses[0] or end >= losses[0]
    if not (is_risen and is_lost):
        return None
    changes = lower_rate(evidence)
    return Finding(
        problem="loss rises",
        importance=1,
        side="settings",
        evidence=(
            f"The loss rose from {losses[0]:.4g} to {top:.4g} around step {step} and ended at "
            f"{end:.4g}; the learning rate is {_rate(evidence)}, {_preset(evidence)}."
        ),
        cause="the learning rate is too high: each step overshoots",
        fix=set_settings(changes),
        changes=changes,
    )


def plateau(evidence: Evidence) -> Finding | None:
    """Look for a loss that is flat from the start, and name the cause if the rate shows it."""
    losses = [loss for _, loss in evidence.losses]
    if len(losses) < MIN_LOSSES or evidence.config.method == "grpo":
        return None
    if _is_falling(losses, [loss for _, loss in evidence.held_out_losses]):
        return None
    start, end = statistics.median(losses[:FIRST]), _end(losses)
    rate, preset = evidence.config.learning_rate, evidence.preset_rate
    cause, side = "not clear from rate or curve: the rows may contradict each other", "data"
    changes: dict[str, Any] | None = None
    if rate > FAR_FROM_PRESET * preset:
        cause = "the learning rate is too high: the first steps destroyed what the model knew"
        changes, side = lower_rate(evidence), "settings"
    elif rate < preset:
        cause = "the learning rate is too low: the weights hardly change"
        changes, side = higher_rate(evidence), "settings"
    by_hand = "Give it more steps, or find out the side with diagnostics.overfit_ten."
    return Finding(
        problem="plateau",
        importance=1,
        side=side,
        evidence=(
            f"The loss began at {start:.4g} and averages {end:.4g} over the second half of "
            f"{evidence.losses[-1][0]} steps; the learning rate is {_rate(evidence)}, "
            f"{_preset(evidence)}."
        ),
        cause=cause,
        fix=set_settings(changes) if changes else by_hand,
        changes=changes,
    )


def _is_falling(losses: Sequence[float], held_out: Sequence[float]) -> bool:
    """Return whether a loss falls: far, or little but surely, or on the held-out rows."""
    from scipy.stats import kendalltau

    start, end = statistics.median(losses[:FIRST]), _end(losses)
    fall = (start - end) / start if start > 0 else 1.0
    if fall >= FALL or (len(held_out) > 1 and held_out[-1] < (1 - HELD_OUT_FALL) * held_out[0]):
        return True
    trend = kendalltau(range(len(losses)), losses, alternative="less")
    return fall >= SURE_FALL and bool(trend.pvalue < CHANCE)


def short_warmup(evidence: Evidence) -> Finding | None:
    """Look for a burst of the gradient just after the learning rate has peaked, that passes."""
    total = evidence.job.total_steps or 0
    warmup = round(evidence.config.warmup_fraction * total)
    norms = [(item.step, item.grad_norm) for item in evidence.metrics if item.grad_norm is not None]
    soon = [pair for pair in norms if warmup < pair[0] <= warmup + SOON and pair[0] > 1]
    later = [norm for step, norm in norms if step > warmup + SOON]
    if warmup >= WARM * total or len(later) < FIRST or not soon:
        return None
    step, norm = max(soon, key=lambda pair: pair[1])
    first, last = norms[0][1], statistics.median(later)
    if norm < BURST * max(first, last):
        return None
    changes = {"warmup_fraction": min(1.0, max(2 * WARM, 2 * evidence.config.warmup_fraction))}
    return Finding(
        problem="short warm-up",
        importance=2,
        side="settings",
        evidence=(
            f"The gradient norm was {first:.4g} at step {norms[0][0]}, {norm:.4g} at step {step} "
            f"and {last:.4g} later; the learning rate peaks after {warmup} of {total} steps."
        ),
        cause="the rate peaks before the optimizer has a good estimate of the gradients' size",
        fix=set_settings(changes),
        changes=changes,
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """Look for a held-out loss that rises while the training loss still falls."""
    evaluations = evidence.held_out_losses
    if len(evaluations) < MIN_EVALUATIONS:
        return None
    best_step, best = min(evaluations, key=lambda pair: pair[1])
    last_step, last = evaluations[-1]
    before = [loss for step, loss in evidence.losses if step <= best_step][-FIRST:]
    after = [loss for step, loss in evidence.losses if step > best_step][-FIRST:]
    if not before or not after or not last > RISE * best:
        return None
    was, now = statistics.fmean(before), statistics.fmean(after)
    if not now < was:
        return None
    changes = {"max_steps": best_step}
    epochs = last_step * evidence.config.prompts_a_step / evidence.version.n_rows
    return Finding(
        problem="overfitting",
        importance=2,
        side="data",
        evidence=(
            f"The held-out loss rose from {best:.4g} at step {best_step} to {last:.4g} at step "
            f"{last_step}, while the training loss fell from {was:.4g} to {now:.4g}; the job "
            f"passed {epochs:.3g} times over {evidence.version.n_rows} rows."
        ),
        cause="too many passes over too few rows: the model memorises them",
        fix=f"{set_settings(changes)} More rows help more.",
        changes=changes,
    )


def _guard_note(evidence: Evidence, pattern: str) -> str | None:
    """Return the first part of a guard's note that matches a pattern."""
    matches = (re.search(pattern, note, re.IGNORECASE) for note in evidence.notes)
    return next((match[0] for match in matches if match), None)


def _top(losses: Sequence[tuple[int, float]]) -> tuple[float, int]:
    """Return the highest median of three neighbouring losses, and the step of the middle one."""
    values = [loss for _, loss in losses]
    medians = [
        (statistics.median(values[place - 1 : place + 2]), losses[place][0])
        for place in range(1, len(losses) - 1)
    ]
    return max(medians)


def _end(losses: Sequence[float]) -> float:
    """Return where a curve ends: the mean of its second half, or of its last losses if shorter."""
    return statistics.fmean(losses[-max(FIRST, len(losses) // 2) :])


def _noise(losses: Sequence[float]) -> float:
    """Return the standard deviation of the noise, robustly: from the median absolute difference."""
    changes = [abs(after - before) for before, after in zip(losses, losses[1:], strict=False)]
    # a normal variable's median absolute value is 0.6745 deviations; a difference of two has
    # sqrt(2) times the deviation of one
    return statistics.median(changes) / 0.6745 / math.sqrt(2) if changes else 0.0


def _rate(evidence: Evidence) -> str:
    return show(evidence.config.learning_rate)


def _preset(evidence: Evidence) -> str:
    return f"the preset for {evidence.version.n_rows} rows has {show(evidence.preset_rate)}"


def _capitalised(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


CURVE_CHECKS = {
    "non-finite loss": non_finite_loss,
    "loss rises": rising_loss,
    "spike": spike,
    "plateau": plateau,
    "short warm-up": short_warmup,
}

"""Looks at the curves of a job: is its loss a number, does it fall, jump, or fall too far?

A curve has one name: what is no number is no plateau besides, and a run that diverged had no short
warm-up. So the looks of `CURVES` are taken in their order, and the first that finds something ends
them. The loss of grpo lies around 0 whatever is learnt, and says nothing here.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ftlab_kit.diagnostics.evidence import FAR_FROM_USUAL, Evidence, higher, in_words, lower
from ftlab_kit.records import Finding, show

FIRST = 3  # losses whose median is the beginning: one batch may be easy or hard by chance
FEWEST = 8  # losses before a curve says anything: half of them are its end
# of the beginning: batches of a few rows differ by some 10% each, their means by less than this
FALL = 0.10
# a smaller fall counts too, if chance alone would bring it once in a hundred runs (Kendall's tau)
SURE_FALL, CHANCE = 0.005, 0.01
HELD_OUT_FALL = 0.01  # held-out rows are the same each time: no chance in it
ROSE = 1.15  # of the first loss, which no update has touched yet
ROSE_FAR = 1.25  # so far that to come back some day is no excuse
NOISE = 4  # robust deviations: chance brings so much once in some 30,000 steps
JUMP_NATS = 1.0  # a token becomes nearly three times less likely
WINDOW = 20  # losses that a jump is measured against, as the guard does
BURST = 3  # a gradient is so many times as large as the first one, and as those at the end
SOON = 10  # steps after the peak of the rate in which a short warm-up shows
WARM = 0.10  # of the steps: a longer warm-up is not too short
RISE = 1.02  # of the best held-out loss; less would end good runs early
MEASURED = 3  # held-out losses before one can have risen


def no_number(seen: Evidence) -> Finding | None:
    """Look for a loss or a gradient that is no number, in what the guard said and in metrics."""
    words = _guarded(seen, r"the (?:loss|gradient norm) became \S+.*?(?=\. |$)")
    values = [
        (item.step, value)
        for item in seen.metrics
        for value in (item.loss, item.grad_norm, item.eval_loss)
        if value is not None and not math.isfinite(value)
    ]
    if words is None and not values:
        return None
    words = words or f"the loss or its gradient was {values[0][1]} at step {values[0][0]}"
    changes: dict[str, Any] | None = lower(seen)
    cause, side = "the learning rate is too high", "settings"
    if seen.config.precision == "fp16":
        cause, changes = "fp16 has no room for large numbers", {"precision": "fp32"}
    elif re.search(r"at step 1\b", words):
        cause, side = "the rows of the first batch: no update had come before it", "data"
        changes = None
    by_hand = "Look at the rows that are named, and leave them out with datasets.filter."
    return Finding(
        problem="no number",
        importance=1,
        side=side,
        evidence=f"{words[0].upper()}{words[1:]}; the learning rate is {_rate(seen)}.",
        cause=cause,
        fix=_set(changes) if changes else by_hand,
        changes=changes,
    )


def spike(seen: Evidence) -> Finding | None:
    """Look for a step whose loss jumped: where the guard saw one, or where one stands alone."""
    words = _guarded(seen, r"the (?:loss|gradient norm) jumped to .*?(?=\. |$)")
    if words is None and seen.config.method != "grpo":
        words = _jump([loss for _, loss in seen.losses], [step for step, _ in seen.losses])
    if words is None:
        return None
    is_high = seen.config.learning_rate > seen.usual_rate
    usual = f"the preset for {seen.version.n_rows} rows has {show(seen.usual_rate)}"
    cause = "the learning rate is too high" if is_high else "a batch unlike all others"
    return Finding(
        problem="spike",
        importance=1 if seen.job.state == "failed" else 2,
        side="settings" if is_high else "data",
        evidence=f"{words[0].upper()}{words[1:]}; the learning rate is {_rate(seen)}, {usual}.",
        cause=cause,
        fix=_set(lower(seen)) + ("" if is_high else " Look at the rows of that batch too."),
        changes=lower(seen),
    )


def _jump(losses: Sequence[float], steps: Sequence[int]) -> str | None:
    """Return in words the first loss that stands out of those before, and is gone soon after."""
    noise = _noise(losses)
    for place in range(FEWEST, len(losses) - 1):
        usual = statistics.median(losses[max(0, place - WINDOW) : place])
        after = statistics.median(losses[place + 1 : place + 1 + FIRST])
        far = max(JUMP_NATS, NOISE * noise)
        if losses[place] - usual > far and losses[place] - after > far / 2:
            return f"the loss jumped from {usual:.4g} to {losses[place]:.4g} at step {steps[place]}"
    return None


def too_high(seen: Evidence) -> Finding | None:
    """Look for a loss that rose from where it began and stayed, or rose far."""
    losses = [loss for _, loss in seen.losses]
    if len(losses) < FIRST + 2 or not losses[0] > 0 or seen.config.method == "grpo":
        return None
    top, step = _top(seen)
    end = _end(losses)
    # to twice the first loss is more than chance, whatever came of the run
    noise = min(_noise(losses[len(losses) // 2 :]), losses[0] / NOISE)
    is_risen = top > ROSE * losses[0] and top - losses[0] > NOISE * noise
    is_lost = top > ROSE_FAR * losses[0] or end >= losses[0]
    if not (is_risen and is_lost):
        return None
    return Finding(
        problem="loss rises",
        importance=1,
        side="settings",
        evidence=(
            f"The loss went from {losses[0]:.4g} to {top:.4g} around step {step}, and is "
            f"{end:.4g} in the end; the learning rate is {_rate(seen)}, {_preset(seen)}."
        ),
        cause="the learning rate is too high: each step leaps over what it aims at",
        fix=_set(lower(seen)),
        changes=lower(seen),
    )


def plateau(seen: Evidence) -> Finding | None:
    """Look for a loss that is flat from the start, and tell why as far as the rate tells it."""
    losses = [loss for _, loss in seen.losses]
    if len(losses) < FEWEST or seen.config.method == "grpo" or _is_falling(seen, losses):
        return None
    start, end = statistics.median(losses[:FIRST]), _end(losses)
    rate, usual = seen.config.learning_rate, seen.usual_rate
    cause, cure, changes, side = (
        "neither rate nor curve tells: the rows may contradict each other or say nothing",
        "Give it more steps, or tell model from data with diagnostics.overfit_ten.",
        None,
        "data",
    )
    if rate > FAR_FROM_USUAL * usual:
        cause = "the learning rate is too high: what could learn was thrown out of its range"
        cure, changes, side = _set(lower(seen)), lower(seen), "settings"
    elif rate < usual:
        cause = "the learning rate is too low: the weights hardly move"
        cure, changes, side = _set(higher(seen)), higher(seen), "settings"
    return Finding(
        problem="plateau",
        importance=1,
        side=side,
        evidence=(
            f"The loss began at {start:.4g} and is {end:.4g} over the second half of "
            f"{seen.losses[-1][0]} steps; the learning rate is {_rate(seen)}, {_preset(seen)}."
        ),
        cause=cause,
        fix=cure,
        changes=changes,
    )


def _is_falling(seen: Evidence, losses: Sequence[float]) -> bool:
    """Return whether a loss falls: far, or little but surely, or on the held-out rows."""
    from scipy.stats import kendalltau

    start, end = statistics.median(losses[:FIRST]), _end(losses)
    fall = (start - end) / start if start > 0 else 1.0
    measured = [loss for _, loss in seen.held_out]
    if fall >= FALL or (len(measured) > 1 and measured[-1] < (1 - HELD_OUT_FALL) * measured[0]):
        return True
    trend = kendalltau(range(len(losses)), losses, alternative="less")
    return fall >= SURE_FALL and bool(trend.pvalue < CHANCE)


def short_warmup(seen: Evidence) -> Finding | None:
    """Look for a burst of the gradient just after the rate has come to its peak, that passes."""
    total = seen.job.total_steps or 0
    warmup = round(seen.config.warmup_fraction * total)
    norms = [(item.step, item.grad_norm) for item in seen.metrics if item.grad_norm is not None]
    soon = [pair for pair in norms if warmup < pair[0] <= warmup + SOON and pair[0] > 1]
    later = [norm for step, norm in norms if step > warmup + SOON]
    if warmup >= WARM * total or len(later) < FIRST or not soon:
        return None
    step, norm = max(soon, key=lambda pair: pair[1])
    first, last = norms[0][1], statistics.median(later)
    if norm < BURST * max(first, last):
        return None
    changes = {"warmup_fraction": min(1.0, max(2 * WARM, 2 * seen.config.warmup_fraction))}
    return Finding(
        problem="short warm-up",
        importance=2,
        side="settings",
        evidence=(
            f"The norm of the gradient was {first:.4g} at step {norms[0][0]}, {norm:.4g} at step "
            f"{step}, {last:.4g} later; the rate is at its peak after {warmup} of {total} steps."
        ),
        cause="the rate is at its peak before the optimizer knows how large gradients are",
        fix=_set(changes),
        changes=changes,
    )


def overfitting(seen: Evidence) -> Finding | None:
    """Look for a held-out loss that rises while the training loss falls on."""
    measured = seen.held_out
    if len(measured) < MEASURED:
        return None
    best_step, best = min(measured, key=lambda pair: pair[1])
    last_step, last = measured[-1]
    before = [loss for step, loss in seen.losses if step <= best_step][-FIRST:]
    after = [loss for step, loss in seen.losses if step > best_step][-FIRST:]
    if not before or not after or not last > RISE * best:
        return None
    was, now = statistics.fmean(before), statistics.fmean(after)
    if not now < was:
        return None
    changes = {"max_steps": best_step}
    return Finding(
        problem="over-fitting",
        importance=2,
        side="data",
        evidence=(
            f"The held-out loss rose from {best:.4g} at step {best_step} to {last:.4g} at step "
            f"{last_step}, while the training loss fell from {was:.4g} to {now:.4g}; "
            f"{seen.version.n_rows} rows were seen {_passes(seen, last_step)} times."
        ),
        cause="too many passes over too few rows: they are learnt by heart",
        fix=f"{_set(changes)} More rows help more.",
        changes=changes,
    )


def _passes(seen: Evidence, step: int) -> str:
    return f"{step * seen.config.prompts_a_step / seen.version.n_rows:.3g}"


def _guarded(seen: Evidence, pattern: str) -> str | None:
    """Return what the guard said of this kind first, in its words."""
    found = (re.search(pattern, words, re.IGNORECASE) for words in seen.said)
    return next((match[0] for match in found if match), None)


def _top(seen: Evidence) -> tuple[float, int]:
    """Return the highest median of neighbouring losses after the first, and its step."""
    losses = [loss for _, loss in seen.losses]
    around = [
        (statistics.median(losses[place - 1 : place + 2]), seen.losses[place][0])
        for place in range(1, len(losses) - 1)
    ]
    return max(around)


def _end(losses: Sequence[float]) -> float:
    """Return where a curve ends: the mean of its second half, or of its last losses if shorter."""
    return statistics.fmean(losses[-max(FIRST, len(losses) // 2) :])


def _noise(losses: Sequence[float]) -> float:
    """Return how far losses differ by chance: the robust deviation of their differences."""
    steps = [abs(after - before) for before, after in zip(losses, losses[1:], strict=False)]
    # of a normal variable the median of its absolute value is 0.6745 deviations
    return statistics.median(steps) / 0.6745 / math.sqrt(2) if steps else 0.0


def _rate(seen: Evidence) -> str:
    return show(seen.config.learning_rate)


def _preset(seen: Evidence) -> str:
    return f"the preset for {seen.version.n_rows} rows has {show(seen.usual_rate)}"


def _set(changes: Mapping[str, Any]) -> str:
    return f"Set {in_words(changes)}."


CURVES = {
    "no number": no_number,
    "loss rises": too_high,
    "spike": spike,
    "plateau": plateau,
    "short warm-up": short_warmup,
}

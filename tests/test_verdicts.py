"""Intervals that hold what they promise, and verdicts that say no more than the rows do."""

import math
import re

import numpy as np
import pytest

from ftlab_kit import Workspace, datasets, evaluators
from ftlab_kit.errors import ConfigError, InputError
from ftlab_kit.evaluators import intervals, perplexity, verdicts
from ftlab_kit.evaluators.measures import Measure, ratio
from ftlab_kit.records import Evaluation, Job
from ftlab_kit.widgets import answers, comparison, verdict
from ftlab_kit.widgets.evaluations import AnswersView

MEAN = Measure("mean", True, ratio)
METRICS = ["perplexity", "chrf", "lengths"]


@pytest.fixture(scope="module")
def base(lab: Workspace) -> Evaluation:
    return evaluators.run(lab, "tiny", "hues", metrics=METRICS, max_new_tokens=6)


@pytest.fixture(scope="module")
def tuned(lab: Workspace, job: Job) -> Evaluation:
    return evaluators.run(lab, job, "hues", metrics=METRICS, max_new_tokens=6)


def counts(values: np.ndarray) -> list[tuple[float, ...]]:
    return [(float(value), 1.0) for value in values]


def coverage(draw, truth: float, measure: Measure, rounds: int = 400) -> float:
    """The share of experiments whose interval holds the truth."""
    hits = 0
    for seed in range(rounds):
        low, high = intervals.score_interval(measure, draw(np.random.default_rng(seed)), seed=seed)
        hits += low <= truth <= high
    return hits / rounds


def test_intervals_hold_the_truth_nineteen_times_out_of_twenty():
    share = coverage(lambda chance: counts(chance.normal(3, 2, 60)), 3.0, MEAN)
    assert 0.925 <= share <= 0.975


def test_intervals_of_shares_hold_it_as_often():
    share = coverage(lambda chance: counts(chance.random(60) < 0.1), 0.1, MEAN)
    assert 0.925 <= share <= 0.985


def test_intervals_of_perplexities_hold_it_as_often():
    def draw(chance: np.random.Generator) -> list[tuple[float, ...]]:
        tokens = chance.integers(5, 40, 60)
        each = chance.gamma(4, 0.5, 60)  # of a token, 2 in the mean
        return [(float(n * x), float(n)) for n, x in zip(tokens, each, strict=True)]

    share = coverage(draw, math.exp(2.0), perplexity.MEASURES[0])
    assert 0.915 <= share <= 0.975


def test_intervals_of_paired_differences_hold_it_as_often():
    hits = 0
    for seed in range(400):
        chance = np.random.default_rng(seed)
        before = chance.normal(0, 3, 60)
        after = before + chance.normal(0.5, 1, 60)
        low, high = intervals.difference_interval(MEAN, counts(before), counts(after), seed=seed)
        hits += low <= 0.5 <= high
    assert 0.925 <= hits / 400 <= 0.975


def test_one_row_has_no_interval():
    assert intervals.score_interval(MEAN, [(2.0, 1.0)]) is None


def test_rows_that_all_failed_do_not_prove_that_none_succeeds():
    low, high = intervals.score_interval(MEAN, [(0.0, 1.0)] * 20)
    assert low == 0 and 0.1 < high < 0.2


def test_a_model_is_not_better_than_itself(lab: Workspace, base: Evaluation):
    itself = evaluators.compare(lab, base, base)
    for item in itself.differences:
        assert item.difference == 0
        assert item.verdict == f"not distinguishable at n = {base.n_rows}"
    assert itself.changed == ()


def test_a_trained_model_is_better(lab: Workspace, base: Evaluation, tuned: Evaluation):
    (item,) = evaluators.compare(lab, base, tuned, metrics=["perplexity"]).differences
    assert (item.verdict, item.wins, item.level) == ("better", 20, 0.95)
    assert item.high < 0 and item.difference == tuned.scores["perplexity"] - item.was
    (back,) = evaluators.compare(lab, tuned, base, metrics=["perplexity"]).differences
    assert (back.verdict, back.losses) == ("worse", 20)


def test_many_comparisons_widen_every_interval(lab: Workspace, base: Evaluation, tuned: Evaluation):
    (one,) = evaluators.compare(lab, base, tuned, metrics=["perplexity"]).differences
    several = evaluators.compare(lab, base, tuned, tuned, metrics=["perplexity", "chrf"])
    assert [item.level for item in several.differences] == [pytest.approx(1 - 0.05 / 4)] * 4
    wide = several.differences[0]
    assert wide.low < one.low and wide.high > one.high
    assert several.message.endswith("All 4 together at 95%.")


def test_five_rows_are_too_few_for_a_verdict(lab: Workspace, job: Job):
    few = {"metrics": ["perplexity"], "max_rows": 5}
    both = [evaluators.run(lab, target, "hues", **few) for target in ("tiny", job)]
    (item,) = evaluators.compare(lab, *both).differences
    assert (item.wins, item.verdict) == (5, "not distinguishable at n = 5")


def test_the_rows_that_changed_most_come_first(lab: Workspace, base: Evaluation, tuned: Evaluation):
    rows = evaluators.compare(lab, base, tuned).changed
    changes = [abs(row.now - row.was) for row in rows]
    assert changes == sorted(changes, reverse=True) and changes
    first = rows[0]
    assert first.before == base.samples[first.row].answer
    assert first.measure == "chrf"


def test_a_measure_without_a_direction_is_neither_better_nor_worse(
    lab: Workspace, base: Evaluation, tuned: Evaluation
):
    (item,) = evaluators.compare(lab, base, tuned, metrics=["answer_tokens"]).differences
    assert item.wins is None
    assert item.verdict.split()[0] in ("greater", "less", "not")


def test_evaluations_of_other_rows_are_not_compared(lab: Workspace, base: Evaluation):
    train, _ = datasets.split(lab, "hues", held_out=0.3)
    other = evaluators.run(lab, "tiny", train, metrics=["perplexity"])
    for compare in (evaluators.compare, comparison):
        with pytest.raises(InputError, match="expected the same rows"):
            compare(lab, base, other)


def test_a_measure_that_is_missing_is_not_compared(lab: Workspace, base: Evaluation):
    with pytest.raises(ConfigError, match="'bleu' can't be compared"):
        evaluators.compare(lab, base, base, metrics=["bleu"])
    with pytest.raises(InputError, match="expected two or more"):
        evaluators.compare(lab, base)


def test_other_tokenizers_are_compared_by_bytes(
    lab: Workspace, base: Evaluation, tuned: Evaluation
):
    details = {**tuned.details, "tokenizer": "another"}
    lab.store.update("evaluations", {"id": tuned.id}, details=details)
    try:
        differences = evaluators.compare(lab, base, tuned.id).differences
    finally:
        lab.store.update("evaluations", {"id": tuned.id}, details=dict(tuned.details))
    assert [item.measure for item in differences][0] == "byte_perplexity"
    assert "perplexity" not in [item.measure for item in differences]


def test_a_level_out_of_range_is_refused(lab: Workspace, base: Evaluation):
    with pytest.raises(InputError, match="level is 95"):
        evaluators.scores(lab, base, level=95)


def test_a_comparison_shows_scores_with_intervals_and_answers(
    lab: Workspace, base: Evaluation, tuned: Evaluation
):
    shown = comparison(lab, base, tuned, n_samples=2)
    assert shown._repr_html_().count("<tr>") == 1 + len(base.scores) + 1 + 2
    assert "perplexity (less is better)" in repr(shown)
    assert "<ins>" in shown._repr_html_() and " to " in shown._repr_html_()


def test_a_verdict_is_a_picture_with_words_and_its_table(
    lab: Workspace, base: Evaluation, tuned: Evaluation
):
    shown = verdict(evaluators.compare(lab, base, tuned))
    page = shown._repr_html_()
    assert page.count("<img ") == 1 and 'alt="differences: ' in page
    assert "better" in repr(shown) and "rows that changed most" in page


def test_answers_can_be_paged_through_in_another_order(
    lab: Workspace, base: Evaluation, tuned: Evaluation, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FTLAB_INTERACTIVE", "1")
    view = answers(lab, base, tuned)
    assert isinstance(view, AnswersView)
    first = view._table.value
    view.page.value = 2
    assert view._table.value != first and "<td" in view._table.value
    view.page.value, view.order.value = 1, "most changed by chrf"
    changes = [
        abs(new.scores["chrf"] - old.scores["chrf"])
        for old, new in zip(base.samples, tuned.samples, strict=True)
    ]
    row = max(range(20), key=changes.__getitem__)
    first_cell = re.search(r"<tbody><tr><td [^>]*>(\d+)</td>", view._table.value)
    assert first_cell and int(first_cell[1]) == row


def test_a_report_shows_a_few_answers(lab: Workspace, base: Evaluation, tuned: Evaluation):
    assert answers(lab, base, tuned, n_samples=2)._repr_html_().count("<tr>") == 3


def test_ties_are_neither_wins_nor_losses():
    same = [(1.0, 1.0), (0.0, 1.0)]
    assert verdicts._tally(MEAN, same, same) == (0, 2, 0)


@pytest.mark.parametrize(("n_rows", "verdict_of"), [(5, "not distinguishable"), (6, "better")])
def test_six_rows_that_agree_are_the_fewest_for_a_verdict_at_95_percent(
    n_rows: int, verdict_of: str
):
    assert verdicts._verdict(MEAN, (0.1, 0.2), n_rows, 0.95).startswith(verdict_of)


def test_the_constants_of_intervals_and_verdicts_are_these():
    assert (intervals.LEVEL, intervals.RESAMPLES) == (0.95, 2999)
    assert (verdicts.MAX_CHANGED_ROWS, verdicts.EQUAL) == (20, 1e-9)

"""The quality of a version: every part of its score, measured once."""

import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest

from ftlab_kit import Workspace, datasets, models
from ftlab_kit.datasets import quality_report
from ftlab_kit.errors import InputError
from ftlab_kit.records import DatasetVersion, Progress, Quality
from tests.test_versions import ESSAY, add, chat

GERMAN = "Der Mantel ist an der Schulter undicht, und ich hätte gerne einen neuen."
ENGLISH = "The coat leaks at the shoulder, and I should like to have another one."


def parts(quality: Quality) -> dict[str, float | None]:
    return {part.name: part.points for part in quality.parts}


def rows(count: int) -> list[dict[str, Any]]:
    return [
        chat(f"{ENGLISH} Order {n} of {n * n}?", f"Of course, {n} is on its way.")
        for n in range(count)
    ]


@pytest.fixture
def flawed(ws: Workspace) -> DatasetVersion:
    """Sixty rows: a duplicate, a near duplicate, and a German one with an e-mail address."""
    sixty = rows(56)
    essay = [*ESSAY]
    sixty += [sixty[3], chat("Well?", " ".join(essay))]
    essay[30] = "else"
    sixty += [chat("Well?", " ".join(essay)), chat(GERMAN, f"{GERMAN} ann@firm.com")]
    return add(ws, sixty)


def test_every_part_is_counted(ws: Workspace, flawed: DatasetVersion):
    quality = datasets.quality(ws, flawed)
    assert [(item.row, item.of) for item in quality.duplicates] == [(56, 3), (58, 57)]
    assert quality.duplicates[0].share == 1.0 > quality.duplicates[1].share > 0.8
    assert quality.repeated == (56, 58)
    (personal,) = quality.personal
    assert (personal.row, personal.field, personal.kind) == (59, "messages[1].content", "e-mail")
    assert personal.excerpt == "ann…m"
    assert quality.languages["en"] > 0.9
    assert quality.languages["de"] == pytest.approx(1 / 60)
    assert parts(quality) == {
        "size": 20,
        "unique": pytest.approx(25 * 58 / 60),
        "complete": None,
        "private": pytest.approx(15 * (1 - 10 / 60)),
        "leak-free": None,
        "accepted": 10,
    }
    scored = [part for part in quality.parts if part.points is not None]
    points = sum(part.points or 0 for part in scored)
    assert quality.score == pytest.approx(100 * points / sum(part.out_of for part in scored))


def test_the_advice_can_be_followed(ws: Workspace, flawed: DatasetVersion):
    quality = datasets.quality(ws, flawed)
    assert any(
        "datasets.filter(ws, 'rows', without=quality.repeated)" in advice
        for advice in quality.advice
    )
    cleaner = datasets.filter(ws, flawed, without=quality.repeated)
    best = datasets.quality(ws, datasets.redact(ws, cleaner))
    assert (best.duplicates, best.personal, best.score) == ((), (), 100)


def test_lengths_are_those_of_the_model(ws: Workspace):
    version = add(ws, rows(10))
    quality = datasets.quality(ws, version, model="tiny", max_length=24)
    assert quality.percentiles is not None and quality.lengths is not None
    assert quality.percentiles["max"] == max(quality.lengths) > 24
    assert (quality.n_cut, quality.max_length) == (10, 24)
    assert parts(quality)["complete"] == 0
    assert quality.n_tokens == 240
    assert "raise max_length above 24" in " ".join(quality.advice)
    roomy = datasets.quality(ws, version, model="tiny")
    assert (roomy.n_cut, roomy.n_untrained, parts(roomy)["complete"]) == (0, 0, 15)
    assert 0 < (roomy.trained_share or 0) < 1


def test_a_second_call_measures_nothing(ws: Workspace, flawed: DatasetVersion):
    reports: list[Progress] = []
    first = datasets.quality(ws, flawed, model="tiny", progress=reports.append)
    assert str(reports[0]) == "rows searched for personal data: 0 of 60"
    reports.clear()
    assert datasets.quality(ws, flawed, model="tiny", progress=reports.append) == first
    assert not reports
    datasets.quality(ws, flawed, progress=reports.append)
    assert reports


def test_a_train_side_is_compared_with_its_held_out_side(ws: Workspace):
    train, _ = datasets.split(ws, add(ws, rows(60)), held_out=0.3)
    quality = datasets.quality(ws, train)
    assert (quality.leaks, parts(quality)["leak-free"]) == ((), 15)
    assert datasets.quality(ws, datasets.sample(ws, train, 20)).leaks == ()


def test_rows_that_another_version_repeats_are_listed(ws: Workspace):
    train = add(ws, [*rows(5), chat("Well?", " ".join(ESSAY)), chat("Why?", "So.")], "train")
    nearly = [*ESSAY[:30], "else", *ESSAY[31:]]
    judged = add(ws, [chat("Well?", " ".join(nearly)), chat("Why?", "Never.")], "judged")
    overlap = datasets.overlap(ws, train, judged)
    assert [(pair.row, pair.of) for pair in overlap] == [(5, 0), (6, 1)]


def test_rows_with_an_unusual_loss_are_listed(ws: Workspace):
    strange = "zq xj vw qk zx jq wv kx zz qq"
    version = add(ws, [*rows(30), chat("Hm?", strange)])
    quality = datasets.quality(ws, version, model="tiny", losses=True)
    assert quality.losses is not None and len(quality.losses) == 31
    assert quality.outliers is not None
    median = sorted(quality.losses)[15]
    for item in quality.outliers:
        assert abs(item.distance) > quality_report.MAX_DEVIATIONS
        assert math.isclose(quality.losses[item.row], item.loss)
        assert (item.loss > median) == (item.distance > 0)


def test_losses_need_a_model(ws: Workspace):
    with pytest.raises(InputError, match="losses is True without a model"):
        datasets.quality(ws, add(ws, rows(2)), losses=True)


def test_unknown_parts_say_that_they_are_not_known(ws: Workspace):
    shown = datasets.quality(ws, add(ws, rows(2)))._repr_html_()
    assert "<h3>leaks</h3><p>not known</p>" in shown
    assert "not known without a model" in shown
    assert "2 rows are few: 50 or more are recommended" in shown


def test_texts_and_preferences_have_a_quality(ws: Workspace):
    texts = add(ws, [{"text": ENGLISH}, {"text": ENGLISH}, {"text": GERMAN}], "texts")
    quality = datasets.quality(ws, texts, model="tiny")
    assert quality.repeated == (1,)
    assert quality.trained_share == 1
    pairs = [{"prompt": ENGLISH, "chosen": f"Yes {n}", "rejected": f"No {n}"} for n in range(3)]
    quality = datasets.quality(ws, add(ws, pairs, "pairs"), model="tiny")
    assert quality.lengths is not None and len(quality.lengths) == 6


def test_cached_facts_are_deleted_with_their_dataset(ws: Workspace, flawed: DatasetVersion):
    datasets.quality(ws, flawed)
    assert ws.store.rows("qualities")
    datasets.delete(ws, "rows")
    assert not ws.store.rows("qualities")


def test_a_model_is_pulled_when_it_is_needed(ws: Workspace):
    version = add(ws, rows(2))
    assert not models.get(ws, "tiny").is_here
    datasets.quality(ws, version, model="tiny")
    assert json.dumps(datasets.quality(ws, version, model="tiny").as_dict())


def test_the_rules_of_quality_have_the_version_number_of_these_golden_facts(
    ws: Workspace, flawed: DatasetVersion
):
    """If this fails on purpose, raise quality_report.RULES and write the new digest here.

    Without a new number, old workspaces would go on showing facts of the old rules.
    """
    model = models.pull(ws, "tiny")
    scope = quality_report.Scope(model, 64, flawed, with_losses=False)
    facts = quality_report.measure(ws, flawed, scope, None)
    facts = {name: facts[name] for name in sorted(facts)}
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    assert (quality_report.RULES, digest) == (1, "bcac7f4a525b0a7c")


def test_other_rules_are_measured_again(
    ws: Workspace, flawed: DatasetVersion, monkeypatch: pytest.MonkeyPatch
):
    datasets.quality(ws, flawed)
    monkeypatch.setattr(quality_report, "RULES", quality_report.RULES + 1)
    reports: list[Progress] = []
    datasets.quality(ws, flawed, progress=reports.append)
    assert reports


def test_many_rows_come_with_the_advice_to_take_a_part(ws: Workspace):
    version = datasets.sample(ws, add(ws, rows(60)), 55)
    facts = {"duplicates": [], "personal": [], "languages": {"en": 1.0}}
    many = dataclasses.replace(version, n_rows=5001)
    quality = quality_report.report(many, quality_report.Scope(None, None, None, False), facts)
    assert quality.advice[0].startswith("5001 rows are many")

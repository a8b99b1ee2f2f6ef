"""What a version is like: every part of its score, measured once."""

import json
import math
from typing import Any

import pytest

from ftlab_kit import Workspace, datasets, models
from ftlab_kit.datasets import quality_report
from ftlab_kit.errors import InputError
from ftlab_kit.records import DatasetVersion, Quality
from tests.test_versions import ESSAY, add, chat

GERMAN = "Der Mantel ist an der Schulter undicht, und ich hätte gerne einen neuen."
ENGLISH = "The coat leaks at the shoulder, and I should like to have another one."


def parts(found: Quality) -> dict[str, float | None]:
    return {part.name: part.points for part in found.parts}


def rows(count: int) -> list[dict[str, Any]]:
    return [
        chat(f"{ENGLISH} Order {n} of {n * n}?", f"Of course, {n} is on its way.")
        for n in range(count)
    ]


@pytest.fixture
def spoilt(ws: Workspace) -> DatasetVersion:
    """Sixty rows: one is there twice, one nearly, one has an address, one is German."""
    found = rows(56)
    words = [*ESSAY]
    found += [found[3], chat("Well?", " ".join(words))]
    words[30] = "else"
    found += [chat("Well?", " ".join(words)), chat(GERMAN, f"{GERMAN} ann@firm.com")]
    return add(ws, found)


def test_every_part_is_counted(ws: Workspace, spoilt: DatasetVersion):
    found = datasets.quality(ws, spoilt)
    assert [(item.row, item.of) for item in found.duplicates] == [(56, 3), (58, 57)]
    assert found.duplicates[0].share == 1.0 > found.duplicates[1].share > 0.8
    assert found.repeated == (56, 58)
    (personal,) = found.personal
    assert (personal.row, personal.field, personal.kind) == (59, "messages[1].content", "e-mail")
    assert personal.got == "ann…m"
    assert found.languages["en"] > 0.9
    assert found.languages["de"] == pytest.approx(1 / 60)
    assert parts(found) == {
        "rows": 20,
        "distinct": pytest.approx(25 * 58 / 60),
        "whole": None,
        "private": pytest.approx(15 * (1 - 10 / 60)),
        "apart": None,
        "accepted": 10,
    }
    known = [part for part in found.parts if part.points is not None]
    wanted = 100 * sum(part.points or 0 for part in known) / sum(part.out_of for part in known)
    assert found.score == pytest.approx(wanted)


def test_the_advice_can_be_taken(ws: Workspace, spoilt: DatasetVersion):
    found = datasets.quality(ws, spoilt)
    assert any(
        "datasets.filter(ws, 'rows', without=quality.repeated)" in said for said in found.advice
    )
    cleaner = datasets.filter(ws, spoilt, without=found.repeated)
    best = datasets.quality(ws, datasets.redact(ws, cleaner))
    assert (best.duplicates, best.personal, best.score) == ((), (), 100)


def test_lengths_are_those_of_the_model(ws: Workspace):
    version = add(ws, rows(10))
    found = datasets.quality(ws, version, model="tiny", max_length=24)
    assert found.percentiles is not None and found.lengths is not None
    assert found.percentiles["most"] == max(found.lengths) > 24
    assert (found.n_cut, found.max_length) == (10, 24)
    assert parts(found)["whole"] == 0
    assert found.n_tokens == 240
    assert "raise max_length above 24" in " ".join(found.advice)
    roomy = datasets.quality(ws, version, model="tiny")
    assert (roomy.n_cut, roomy.n_untrained, parts(roomy)["whole"]) == (0, 0, 15)
    assert 0 < (roomy.trained_share or 0) < 1


def test_a_second_look_measures_nothing(ws: Workspace, spoilt: DatasetVersion):
    told: list[Any] = []
    first = datasets.quality(ws, spoilt, model="tiny", progress=lambda *news: told.append(news))
    assert told
    told.clear()
    assert (
        datasets.quality(ws, spoilt, model="tiny", progress=lambda *news: told.append(news))
        == first
    )
    assert not told
    datasets.quality(ws, spoilt, progress=lambda *news: told.append(news))
    assert told


def test_a_train_side_is_held_against_the_other_one(ws: Workspace):
    train, _ = datasets.split(ws, add(ws, rows(60)), held_out=0.3)
    found = datasets.quality(ws, train)
    assert (found.leaks, parts(found)["apart"]) == ((), 15)
    assert datasets.quality(ws, datasets.sample(ws, train, 20)).leaks == ()


def test_rows_that_another_version_repeats_are_named(ws: Workspace):
    train = add(ws, [*rows(5), chat("Well?", " ".join(ESSAY)), chat("Why?", "So.")], "train")
    nearly = [*ESSAY[:30], "else", *ESSAY[31:]]
    judged = add(ws, [chat("Well?", " ".join(nearly)), chat("Why?", "Never.")], "judged")
    found = datasets.overlap(ws, train, judged)
    assert [(item.row, item.of) for item in found] == [(5, 0), (6, 1)]


def test_rows_that_the_model_finds_strange_are_named(ws: Workspace):
    strange = "zq xj vw qk zx jq wv kx zz qq"
    version = add(ws, [*rows(30), chat("Hm?", strange)])
    found = datasets.quality(ws, version, model="tiny", losses=True)
    assert found.losses is not None and len(found.losses) == 31
    assert found.outliers is not None
    middle = sorted(found.losses)[15]
    for item in found.outliers:
        assert abs(item.distance) > quality_report.FAR
        assert math.isclose(found.losses[item.row], item.loss)
        assert (item.loss > middle) == (item.distance > 0)


def test_losses_want_a_model(ws: Workspace):
    with pytest.raises(InputError, match="losses are asked for, and no model"):
        datasets.quality(ws, add(ws, rows(2)), losses=True)


def test_what_is_not_known_is_shown_as_a_dash(ws: Workspace):
    shown = datasets.quality(ws, add(ws, rows(2)))._repr_html_()
    assert "<h3>leaks</h3><p>not known</p>" in shown
    assert "not known without a model" in shown
    assert "2 rows are few: 50 or more are recommended" in shown


def test_texts_and_preferences_have_their_qualities(ws: Workspace):
    texts = add(ws, [{"text": ENGLISH}, {"text": ENGLISH}, {"text": GERMAN}], "texts")
    found = datasets.quality(ws, texts, model="tiny")
    assert found.repeated == (1,)
    assert found.trained_share == 1
    pairs = [{"prompt": ENGLISH, "chosen": f"Yes {n}", "rejected": f"No {n}"} for n in range(3)]
    found = datasets.quality(ws, add(ws, pairs, "pairs"), model="tiny")
    assert found.lengths is not None and len(found.lengths) == 6


def test_what_was_measured_goes_with_the_dataset(ws: Workspace, spoilt: DatasetVersion):
    datasets.quality(ws, spoilt)
    assert ws.store.rows("qualities")
    datasets.delete(ws, "rows")
    assert not ws.store.rows("qualities")


def test_a_model_is_fetched_when_it_is_needed(ws: Workspace):
    version = add(ws, rows(2))
    assert not models.get(ws, "tiny").is_here
    datasets.quality(ws, version, model="tiny")
    assert json.dumps(datasets.quality(ws, version, model="tiny").as_dict())

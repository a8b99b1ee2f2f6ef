from ftlab_kit import Workspace, metrics
from ftlab_kit.records import Job


def test_values_of_one_step_stand_in_one_row(lab: Workspace, job: Job):
    last = metrics.last(lab, job.id)
    assert last is not None
    assert last.loss is not None
    assert last.eval_loss is not None


def test_reading_on_skips_nothing_and_repeats_nothing(lab: Workspace, job: Job):
    whole = metrics.read(lab, job.id)
    parts = [*metrics.read(lab, job.id)[:2], *metrics.read(lab, job.id, after_step=whole[1].step)]
    assert [item.step for item in parts] == [item.step for item in whole] == [1, 2, 3, 4]


def test_a_later_value_keeps_the_earlier_ones(lab: Workspace, job: Job):
    before = metrics.last(lab, job.id)
    assert before is not None
    metrics.write(lab, job.id, before.step, eval_loss=before.eval_loss)
    after = metrics.last(lab, job.id)
    assert after is not None
    assert after.loss == before.loss


def test_no_metrics_yet_is_none(lab: Workspace):
    assert metrics.last(lab, 10_000) is None

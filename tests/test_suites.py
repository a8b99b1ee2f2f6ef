"""lm-eval beside the kit: its tasks through the kit's door, and the same numbers."""

import json
import math
from pathlib import Path

import pytest

from ftlab_kit import Workspace, datasets, evaluators, models
from ftlab_kit.datasets import tokenized
from ftlab_kit.errors import InputError
from ftlab_kit.lm import loading
from ftlab_kit.records import Job

TASK = """
task: hues
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: generate_until
doc_to_text: "What colour is {{{{thing}}}}?"
doc_to_target: "{{{{hue}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of two questions, and a cache of its own for its rows."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"thing": "snow", "hue": "white"}, {"thing": "coal", "hue": "black"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "hues.yaml").write_text(TASK.format(file=tmp_path / "rows.jsonl"))
    return tmp_path


def test_a_task_of_lm_eval_becomes_an_evaluation(lab: Workspace, job: Job, folder: Path):
    evaluation = evaluators.suite(lab, job, ["hues"], folder=str(folder), max_new_tokens=4)
    assert evaluation.scores == {"hues/exact_match": 0.0}
    assert (evaluation.n_rows, evaluation.job_id, evaluation.dataset_version_id) == (
        2,
        job.id,
        None,
    )
    assert evaluation.details["hues/exact_match"]["greater_is_better"]
    assert evaluators.get(lab, evaluation.id) == evaluation


def test_an_unknown_task_is_refused_before_a_model_is_loaded(lab: Workspace, folder: Path):
    with pytest.raises(InputError, match="no task 'hue'. Did you mean 'hues'"):
        evaluators.suite(lab, "tiny", ["hue"], folder=str(folder))


def test_perplexity_is_lm_evals(lab: Workspace):
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    version, path = datasets.get(lab, "hues"), models.get(lab, "tiny").path
    assert path is not None
    plain = AutoModelForCausalLM.from_pretrained(path).eval()
    theirs = HFLM(pretrained=plain, tokenizer=loading.tokenizer(path), batch_size=4)
    rows, requests = [*tokenized.read(lab, version, path)], []
    for row in rows:
        trained = [at for at, label in enumerate(row.labels) if label == row.input_ids[at]]
        start, end = trained[0], trained[-1] + 1
        requests.append((("", ""), row.input_ids[:start], row.input_ids[start:end]))
    sums = [item[0] for item in theirs._loglikelihood_tokens(requests, disable_tqdm=True)]
    expected = math.exp(-sum(sums) / sum(row.n_trained for row in rows))
    ours = evaluators.run(lab, "tiny", version, metrics=["perplexity"]).scores["perplexity"]
    assert ours == pytest.approx(expected, rel=1e-4)

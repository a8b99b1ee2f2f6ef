"""The notebooks: their form, then each executed headless, then what it left behind."""

import ast
import importlib
import json
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ftlab_kit import (
    Workspace,
    analytics,
    checkpoints,
    configs,
    datasets,
    diagnostics,
    evaluators,
    graphs,
    models,
    notebooks,
    trainers,
)
from ftlab_kit.configs import Config
from ftlab_kit.errors import ConfigError, JobFailed, NotFound
from ftlab_kit.records import Progress
from ftlab_kit.trainers import generations

NAMES = notebooks.list()
ROOMS = {"analytics", "checkpoints", "configs", "datasets", "diagnostics", "evaluators", "models"}
ROOMS |= {"chats", "graphs", "notebooks", "trainers", "widgets"}
# what makes a notebook small enough for a test
SMALL: dict[str, dict[str, Any]] = {
    "00_quickstart": {"model": "tiny", "epochs": 0.1, "max_new_tokens": 4},
    "01_datasets": {"model": "tiny"},
    "02_models_and_configs": {"model": "tiny", "steps": 2},
    "03_train": {"model": "tiny", "steps": 6, "max_new_tokens": 4},
    "04_steer_a_job": {"model": "tiny", "steps": 60, "max_new_tokens": 4},
    "05_evaluate": {"model": "tiny", "steps": 8, "scored_rows": 12, "max_new_tokens": 6},
    "06_analytics_and_cost": {"model": "tiny", "steps": 8},
    "09_graph": {"embedder": "hash", "n_questions": 20},
    "12_troubleshoot": {"model": "tiny"},
    "20_customer_support": {"model": "tiny", "steps": 4, "max_new_tokens": 4},
    "21_internal_code": {"model": "tiny", "epochs": 0.1, "max_new_tokens": 4},
    "22_legal_clauses": {"model": "tiny", "max_steps": 4, "max_new_tokens": 4, "scored_rows": 8},
    "23_brand_voice": {"model": "tiny", "steps": 4, "max_new_tokens": 4},
    "template": {"max_steps": 2},
}

# what its first picture says, where that is no curve
PICTURES = {
    "01_datasets": "quality 9",
    "02_models_and_configs": "row 0 in 94 tokens of tiny",
    "09_graph": "9 entities, 19 facts; SmolLM2 135M Instruct has the most",
    "12_troubleshoot": "loss: job 1 from",
}
FEWEST = {"09_graph": 2}  # pictures, where they are not three or more


def cells(name: str) -> list[dict[str, Any]]:
    return json.loads(notebooks.path(name).read_text())["cells"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def code(name: str) -> list[str]:
    return [source(cell) for cell in cells(name) if cell["cell_type"] == "code"]


def tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_form_of_the_house(name: str):
    book = cells(name)
    headings = [
        line
        for cell in book
        if cell["cell_type"] == "markdown"
        for line in source(cell).splitlines()
        if re.match(r"#+ ", line)
    ]
    assert len(book) <= 40
    assert sum(line.startswith("# ") for line in headings) == 1
    assert headings[0].startswith("# ")
    assert sum(line.startswith("## ") for line in headings) >= 5
    for heading in ("## Summary", "## If it went wrong", "## Exercises", "## Next"):
        assert heading in headings
    assert sum("exercise" in tags(cell) for cell in book) == 3
    assert sum("solution" in tags(cell) for cell in book) == 3


@pytest.mark.parametrize("name", NAMES)
def test_its_code_is_short_plain_and_defines_nothing(name: str):
    lines = 0
    for text in code(name):
        count = len(text.splitlines())
        lines += count
        assert count <= 20, text
        assert not re.search(r"time\.sleep|^\s*[!%]|if False", text, re.M), text
        for node in ast.walk(ast.parse(text)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef), text
    assert lines <= 180


@pytest.mark.parametrize("name", NAMES)
def test_its_parameters_come_first_and_begin_with_the_workspace(name: str):
    first = next(cell for cell in cells(name) if cell["cell_type"] == "code")
    assert tags(first) == ["parameters"]
    parameters = notebooks.parameters(name)
    assert next(iter(parameters)) == "workspace"
    assert len(parameters) <= 8
    for parameter in parameters.values():
        assert parameter.type in notebooks.TYPES
        assert parameter.help
        assert not re.search("key|token$|secret|password", parameter.name)


@pytest.mark.parametrize("name", NAMES)
def test_prose_stands_before_each_step(name: str):
    kinds = [cell["cell_type"] for cell in cells(name)]
    runs = "".join(kind[0] for kind in kinds)
    assert "cccc" not in runs


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_kit_that_it_uses_is_there(name: str):
    for text in code(name):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                room = node.value.id
                if room in ROOMS:
                    assert hasattr(importlib.import_module(f"ftlab_kit.{room}"), node.attr), text


def test_nothing_that_was_executed_is_committed():
    paths = [str(notebooks.path(name)) for name in NAMES]
    command = [sys.executable, "-m", "nbstripout", "--verify", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name: str):
    for cell in cells(name):
        if cell["cell_type"] == "markdown":
            for target in re.findall(r"\]\(([^)]+)\)", source(cell)):
                assert (notebooks.FOLDER / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_its_exercises_look_at_the_answers(executed, name: str):
    text = executed[name][1].read_text()
    assert text.count("Not answered yet.") >= 3
    assert text.count("'Right.'") + text.count('"Right."') + text.count("✔ Right.") >= 3


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Workspace, Path]]:
    """Every notebook executed at its small size, each in a workspace of its own, two at a time."""
    roots = {name: tmp_path_factory.mktemp(name) / "lab" for name in NAMES}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        copies = pool.map(execute, NAMES, roots.values(), map(SMALL.get, NAMES))
        return {
            name: (Workspace(roots[name]), copy) for name, copy in zip(NAMES, copies, strict=True)
        }


def execute(name: str, root: Path, given: dict[str, Any]) -> Path:
    """Execute a notebook in a workspace and return the copy."""
    ws = Workspace(root)
    try:
        if name != "00_quickstart":
            return notebooks.run(ws, name, given)
        record = notebooks.quickstart(ws, **given)
        (root / "quickstart.json").write_text(json.dumps(record.as_dict()))
        return record.notebook
    finally:
        ws.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_executed_copy_is_small_and_free_of_widgets(executed, name: str):
    _, copy = executed[name]
    text = copy.read_text()
    assert len(text) < 100_000
    executed_book = json.loads(text)
    assert "widgets" not in executed_book["metadata"]
    assert "application/vnd.jupyter.widget-view+json" not in text
    assert f'alt=\\"{PICTURES.get(name, "loss: training from")}' in text


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_has_alt_text(executed, name: str):
    pictures = re.findall(r"<img [^>]*>", executed[name][1].read_text())
    assert pictures
    assert all("alt=" in picture for picture in pictures)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_report_survives_export(executed, name: str, tmp_path: Path):
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(tmp_path)]
    subprocess.run([*command, str(executed[name][1])], check=True, capture_output=True)
    page = next(tmp_path.glob("*.html")).read_text()
    assert page.count("data:image/svg+xml;base64,") >= FEWEST.get(name, 3)


def test_the_quick_start_leaves_job_adapter_and_two_evaluations(executed):
    ws, _ = executed["00_quickstart"]
    (job,) = trainers.list(ws)
    assert job.state == "completed"
    before, after = evaluators.list(ws)
    assert (before.target, after.job_id) == ("tiny", job.id)
    assert {version.side for version in datasets.versions(ws, "puddle_and_pine")} == {
        "all",
        "train",
        "held_out",
    }
    assert models.get(ws, "tiny").is_here
    assert (trainers.checkpoints(ws, job)[-1].path / "adapter_model.safetensors").exists()


def test_the_quick_start_returns_what_came_of_it(executed):
    ws, copy = executed["00_quickstart"]
    record = json.loads((ws.root / "quickstart.json").read_text())
    before, after = evaluators.list(ws)
    assert {row["held_out"]: (row["before"], row["after"]) for row in record["scores"]} == {
        name: (before.scores[name], after.scores[name]) for name in before.scores
    }
    assert (record["job_id"], record["notebook"]) == (1, str(copy))
    assert record["answer_after"] == after.samples[0].answer
    assert len(record["longest_s"]) == 4 and record["tokens_per_s"] > 0
    assert Path(record["adapter"], "adapter_model.safetensors").exists()


def test_the_datasets_are_in_versions_that_know_where_they_come_from(executed):
    ws, copy = executed["01_datasets"]
    first, distinct, clean, train, held_out, *_ = datasets.versions(ws, "support")
    assert (first.n_rows, first.n_refused) == (63, 12)
    assert (distinct.n_rows, clean.n_rows, clean.parent_id) == (61, 61, distinct.id)
    assert train.n_rows + held_out.n_rows == 61
    assert datasets.overlap(ws, train, held_out) == ()
    assert [item.line for item in datasets.problems(ws, first)] == [
        5, 9, 14, 20, 24, 29, 33, 40, 46, 52, 58, 66,
    ]  # fmt: skip
    (mistake,) = datasets.diff(ws, first, clean).changes[:1]
    assert "[E-MAIL]" in mistake.text and "ann.mallow" in (mistake.text_before or "")
    text = copy.read_text()
    assert "12 of 75 lines are refused" in text
    assert "tokens of tiny: " in text and "60 rows the same, 0 added, 2 removed, 1 changed" in text


def test_the_steered_job_ends_with_the_bits_of_its_replay(executed):
    ws, _ = executed["04_steer_a_job"]
    fork, twin, job = trainers.list(ws)
    assert [item.state for item in (job, twin, fork)] == ["completed"] * 3
    assert [event.command for event in trainers.events(ws, job)] == [
        "adjust", "pause", "resume", "resume",
    ]  # fmt: skip
    curves = [[row.loss for row in trainers.metrics(ws, item)] for item in (job, twin)]
    assert len(curves[0]) == 60 and curves[0] == curves[1]
    ends = [trainers.checkpoints(ws, item)[-1].path for item in (job, twin)]
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in ends]
    assert adapters[0] == adapters[1]
    assert fork.parent_id == job.id


def test_the_evaluations_say_what_was_learnt_and_the_merged_model_is_certified(executed):
    ws, copy = executed["05_evaluate"]
    before, middle, after, few, *_ = evaluators.list(ws)
    assert [item.job_id for item in (before, middle, after, few)] == [None, 1, 1, None]
    (difference,) = evaluators.compare(ws, before, after, metrics=["perplexity"]).differences
    assert (difference.verdict, difference.n) == ("better", 12)
    (merged,) = checkpoints.exports(ws, 1)
    assert merged.certificate.is_ok and models.get(ws, "job-1-merged").is_here
    assert len({item.step for item in trainers.samples(ws, 1)}) >= 4
    assert "expected the same rows" in copy.read_text()


def test_three_jobs_are_set_side_by_side(executed):
    ws, copy = executed["06_analytics_and_cost"]
    assert len(trainers.list(ws)) == 5
    comparison = analytics.compare(ws, 1, 2, 3)
    assert {item.name for item in comparison.differences} >= {"learning_rate", "adapter_rank"}
    text = copy.read_text()
    assert "held-out loss: job 1 from" in text and "expected two or more" in text


def test_a_graph_holds_what_is_left_and_the_lab_learns_from_it(executed):
    ws, copy = executed["09_graph"]
    documents = {document.name: document for document in graphs.documents(ws)}
    assert {*documents} == {"models.md", "rooms.md", "team.md", "lab"}
    assert {document.state for document in documents.values()} == {"completed"}
    assert documents["models.md"].version == 2 and graphs.contradictions(ws) == ()
    whole, train, held_out = datasets.versions(ws, "pairs")
    assert (whole.n_refused, whole.n_rows) == (0, train.n_rows + held_out.n_rows)
    text = copy.read_text()
    assert "Did you mean 'context_window'?" in text and "after: 0 places of guides.md" in text
    assert "10 November: SmolLM2 135M Instruct; now: SmolLM2 360M Instruct" in text


def test_five_broken_jobs_are_diagnosed_and_cured(executed):
    ws, copy = executed["12_troubleshoot"]
    jobs = {job.id: job for job in trainers.list(ws)}
    broken = {1: "loss rises", 3: "plateau", 5: "overfitting", 7: "truncated answers"}
    for number, problem in broken.items():
        assert problem in [item.problem for item in diagnostics.check(ws, number)]
        assert problem not in [item.problem for item in diagnostics.check(ws, number + 1)]
    assert jobs[9].dataset_version_id != jobs[max(jobs)].dataset_version_id
    assert "contradict" in copy.read_text()


def test_three_jobs_differ_in_their_settings_and_a_config_is_saved(executed):
    ws, _ = executed["02_models_and_configs"]
    settings = {(job.config["learning_rate"], job.config["adapter_rank"], job.total_steps)
                for job in trainers.list(ws)}  # fmt: skip
    assert len(settings) == 3
    assert [*configs.list(ws)] == ["for-chats"]


def test_a_job_is_paused_resumed_and_trained_on_from(executed):
    ws, _ = executed["03_train"]
    dpo, heart, longer, job = trainers.list(ws)
    assert [item.parent_id for item in (dpo, heart, longer)] == [job.id] * 3
    assert dpo.config["method"] == "dpo"
    commands = [
        event.command for event in trainers.events(ws, job) if event.author != generations.AUTHOR
    ]
    assert commands == ["pause", "resume"]
    assert datasets.get(ws, heart.dataset_version_id).n_rows == 12


def test_tickets_are_cleaned_before_a_desk_learns_from_them(executed):
    ws, copy = executed["20_customer_support"]
    first, distinct, clean, *_ = datasets.versions(ws, "saltmere")
    assert [(item.n_rows, item.n_refused) for item in (first, distinct, clean)] == [
        (130, 2), (127, 0), (127, 0),
    ]  # fmt: skip
    assert [item.line for item in datasets.problems(ws, first)] == [43, 107]
    assert "132 of 132 lines are refused" in copy.read_text()
    before, after, *_ = evaluators.list(ws)
    assert {"contains", "regex"} <= {*before.scores} and after.job_id == 1


def test_clauses_are_judged_by_a_schema(executed):
    ws, copy = executed["22_legal_clauses"]
    before, after, *_ = evaluators.list(ws)
    assert {"json_valid", "json_schema"} <= {*before.scores} and after.job_id == 1
    assert "expected a JSON Schema" in copy.read_text()


def test_a_voice_is_judged_by_its_rules_and_drafts_are_drawn(executed):
    ws, _ = executed["23_brand_voice"]
    before, after, drafts, *_ = evaluators.list(ws)
    assert "regex" in before.scores and after.job_id == 1
    assert drafts.details["chrf"] and drafts.n_rows == 6
    assert len({item.step for item in trainers.samples(ws, 1)}) >= 3


def test_code_is_generated_and_a_key_is_redacted(executed):
    ws, copy = executed["21_internal_code"]
    before, after, prompted = evaluators.list(ws)
    assert [item.job_id for item in (before, after, prompted)] == [None, 1, None]
    assert "brindle" in before.details["regex"]["pattern"]
    leaky = datasets.versions(ws, "leaky_code")[-1]
    text = "".join(turn.content for turn in datasets.preview(ws, leaky, n_rows=leaky.n_rows))
    assert "[KEY]" in text and "ghp_" not in text
    assert "108 of 113 rows are cut at 128 tokens" in copy.read_text()


def test_the_template_trains_twice(executed):
    ws, _ = executed["template"]
    assert [job.state for job in trainers.list(ws)] == ["completed", "completed"]


def test_progress_comes_after_each_cell(ws: Workspace, tmp_path: Path, small: Path):
    steps: list[Progress] = []
    notebooks.run(ws, "small", progress=steps.append)
    assert [(step.done, step.total, step.note) for step in steps] == [
        (1, 3, "Small"), (2, 3, "Small"), (3, 3, "End"),
    ]  # fmt: skip


def test_a_cell_that_fails_is_named_and_the_copy_written(ws: Workspace, small: Path):
    with pytest.raises(JobFailed, match=r"failed in cell \d+: ZeroDivisionError") as failed:
        notebooks.run(ws, "small", {"divisor": 0})
    copy = Path(str(failed.value).rpartition(": ")[2])
    assert copy.exists()


def test_a_cell_that_takes_too_long_is_ended(ws: Workspace, small: Path):
    with pytest.raises(JobFailed, match="CellTimeoutError"):
        notebooks.run(ws, "small", {"seconds": 30}, timeout_s=2)


def test_a_kernel_that_dies_is_reported(ws: Workspace, small: Path):
    with pytest.raises(JobFailed, match="DeadKernelError"):
        notebooks.run(ws, "small", {"signal": 9})


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small notebook of its own."""
    import nbformat.v4 as nb

    lines = ['workspace: str = ""  # folder', "divisor: int = 1  # not 0"]
    lines += ["seconds: int = 0  # to wait", "signal: int = 0  # to the kernel itself"]
    parameters = nb.new_code_cell("\n".join(lines))
    parameters.metadata["tags"] = ["parameters"]
    book = nb.new_notebook(
        cells=[
            nb.new_markdown_cell("# Small"),
            parameters,
            nb.new_markdown_cell("## End"),
            nb.new_code_cell(
                "import os, time\ntime.sleep(seconds)\n"
                "if signal:\n    os.kill(os.getpid(), signal)\n1 / divisor"
            ),
        ]
    )
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    (tmp_path / "small.ipynb").write_text(json.dumps(book))
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 1}, "has no parameter 'epoch'. Did you mean 'epochs'"),
        (
            {"epochs": "many"},
            "Parameter epochs of notebook 00_quickstart is 'many'; expected",
        ),
        ({"epochs": -1}, "epochs is -1.0; expected greater than 0"),
        ({"model": 3}, "Parameter model of notebook 00_quickstart is 3; expected str"),
    ],
)
def test_a_wrong_parameter_is_refused_before_a_kernel_starts(given: dict, message: str):
    with pytest.raises(ConfigError) as refused:
        notebooks.check("00_quickstart", given)
    assert message in str(refused.value)


def test_parameters_come_as_their_types():
    assert notebooks.check("00_quickstart", {"learning_rate": "3e-5"}) == {"learning_rate": 3e-5}


def test_the_parameters_of_the_quick_start_make_a_config():
    parameters = notebooks.parameters("00_quickstart")
    config = Config(
        **{name: parameters[name].default for name in parameters if name in Config.model_fields}
    )
    assert config.model == "smollm2-135m-instruct"


def test_an_unknown_notebook_names_the_known_ones():
    with pytest.raises(
        NotFound, match="there are 00_quickstart, 01_datasets, 02_models_and_configs, 03_train"
    ):
        notebooks.path("01")


@pytest.mark.slow
def test_the_quick_start_teaches_the_real_model(tmp_path: Path):
    ws = Workspace(tmp_path / "lab")
    notebooks.run(ws, "00_quickstart")
    before, after = (evaluation.scores for evaluation in evaluators.list(ws))
    assert after["perplexity"] <= 0.6 * before["perplexity"]
    assert after["bleu"] >= before["bleu"] + 3

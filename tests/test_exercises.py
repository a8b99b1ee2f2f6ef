"""Each exercise of the notebooks tells a right answer from a wrong one."""

import ast
import html
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as Stub
from typing import Any

import pandas
import pytest

from ftlab_kit import Workspace, checkpoints, datasets, evaluators, notebooks, trainers
from ftlab_kit.configs import Config
from ftlab_kit.errors import InputError, NotFound
from ftlab_kit.notebooks.exercises import CHECKS
from ftlab_kit.records import Job
from ftlab_kit.workspace import now
from tests.conftest import chats_file

CONFIG = Config(model="tiny", epochs=3, max_steps=None)
HOT = {"learning_rate": 1.0, "epochs": 3, "seed": 0}
SAMPLES = [
    Stub(is_complete=True, answer="No.", reference="one two three four five"),
    Stub(is_complete=False, answer="A. B. C.", reference="x"),
]
TAUGHT = [["Snow", "is", "white.", "It", "melts.", "one", "two", "three", "four."], ["A. B."]]
SCHEMA = {"type": "object", "required": ["days"], "properties": {"days": {"type": "integer"}}}
DRAFTS = pandas.DataFrame({"keeps_rules": [True, True, False], "made_up": ["", "7", ""]})


def version_stub(**fields: Any) -> Stub:
    return Stub(**{"parent_id": 1, "n_rows": 9, **fields})


# of checks that ask the workspace nothing: notebook, number, variables, right, wrong
PLAIN: list[tuple[str, int, dict[str, Any], Any, Any]] = [
    ("00", 2, {"after": Stub(scores={"perplexity": 10.0})}, 10.05, math.log(10)),
    (
        "00",
        3,
        {"config": CONFIG},
        CONFIG.but(adapter_rank=32, adapter_alpha=64),
        CONFIG.but(adapter_rank=32),
    ),
    ("03", 1, {"table": pandas.DataFrame({"loss": [4.0, 3.0, 2.0, 1.0]}), "steps": 4}, 2.0, 3.0),
    ("03", 2, {"held": {2: 3.0, 4: 2.0, 6: 2.5, 8: 1.0}}, 6, 4),
    ("03", 2, {"held": {2: 3.0, 4: 2.0}}, 4, 2),
    (
        "04",
        3,
        {"job": Stub(id=1), "config": CONFIG},
        Stub(parent_id=1, state="completed", config={"adapter_rank": 32}),
        Stub(parent_id=1, state="running", config={"adapter_rank": 32}),
    ),
    ("05", 1, {"after": Stub(scores={"ended": 0.5})}, 0.5, 50),
    ("06", 1, {"best": 1.0, "second": 1.5}, math.exp(0.5), 0.5),
    (
        "06",
        2,
        {"usd_per_hour": 3.6, "numbers": Stub(samples_per_s=Stub(mean=10.0))},
        1.0,
        3600.0,
    ),
    (
        "06",
        3,
        {"held": Stub(winner=1)},
        Stub(jobs=[Stub(id=1, parent_id=None), Stub(id=2, parent_id=1)]),
        Stub(jobs=[Stub(id=2, parent_id=1), Stub(id=1, parent_id=None)]),
    ),
    (
        "09",
        1,
        {
            "large": [
                Stub(name=name, attributes={"vocabulary": n}) for name, n in (("a", 9), ("b", 3))
            ]
        },
        "b",
        "a",
    ),
    ("09", 2, {"second": Stub(attributes={"badge": "Small"})}, "Small", "Large"),
    (
        "09",
        3,
        {},
        Stub(type="Person", places=[Stub(document="team.md")]),
        Stub(type="Topic", places=[Stub(document="team.md")]),
    ),
    (
        "12",
        1,
        {"falling": Stub(config={"learning_rate": 1e-2}), "too_low": 1e-6},
        {"learning_rate": 1e-2},
        {"learning_rate": 1e-2, "epochs": 3},
    ),
    (
        "12",
        3,
        {"hot": Stub(config=HOT), "fixed": Stub(config={**HOT, "learning_rate": 0.1})},
        ["learning_rate"],
        ["learning_rate", "seed"],
    ),
    (
        "20",
        2,
        {"job": Stub(id=1)},
        Stub(job_id=1, details={"regex": {"pattern": r"^(\S+\s+){34,59}\S+$"}}),
        Stub(job_id=1, details={"regex": {"pattern": r"^(\S+\s+){35,60}\S+$"}}),
    ),
    ("20", 3, {"drafts": DRAFTS}, [0], [0, 1]),
    ("22", 1, {"sums": [(1, 1), (2, 3), (4, 4)]}, (2, 3), (3, 3)),
    (
        "22",
        2,
        {"schema": SCHEMA, "truth": {"days": 7}, "fields": ["days"]},
        '{"days": 14}',
        '{"days": "14"}',
    ),
    (
        "23",
        2,
        {"rules": {"short": "x"}, "taught": TAUGHT, "before": Stub(samples=SAMPLES, n_rows=2)},
        r"([^.]+[.]){2}",
        r"Snow",
    ),
    (
        "23",
        3,
        {"after": Stub(samples=SAMPLES), "taught": TAUGHT},
        "one two three four",
        "two three four five",
    ),
]


def verdict(notebook: str, number: int, answer: Any, variables: dict[str, Any]) -> bool | None:
    return notebooks.exercise(notebook, number, answer, variables=variables).is_right


@pytest.mark.parametrize(
    "case", PLAIN, ids=[f"{name}-{number}-{at}" for at, (name, number, *_) in enumerate(PLAIN)]
)
def test_a_check_tells_right_from_wrong(case: tuple[str, int, dict[str, Any], Any, Any]):
    name, number, variables, right, wrong = case
    assert verdict(name, number, right, variables) is True
    assert verdict(name, number, wrong, variables) is False


@pytest.fixture
def steered(ws: Workspace, tmp_path: Path) -> tuple[Workspace, Stub]:
    """A workspace with the rows of two jobs, as training would have left them."""
    version = datasets.add(ws, chats_file(tmp_path / "hues.jsonl"))
    common = {"model": "tiny", "dataset_version_id": version.id, "created_at": now()}
    for seed in (0, 1):
        number = ws.store.insert("jobs", state="completed", step=4, config={"seed": seed}, **common)
        for step in range(1, 5):
            losses = {"loss": 4.0 - step / 2 + seed, "eval_loss": [3.0, 2.0, 2.5, 2.2][step - 1]}
            ws.store.insert(
                "metrics", job_id=number, step=step, n_tokens=100 * step, at=now(), **losses
            )
    for command, step, result in (("adjust", 2, {}), ("resume", 3, {"from_step": 2})):
        ws.store.insert(
            "events",
            job_id=1,
            command=command,
            state="applied",
            step=step,
            result=result,
            created_at=now(),
        )
    return ws, Stub(id=1, config={"seed": 0})


def test_checks_of_what_a_job_measured(steered: tuple[Workspace, Any]):
    ws, job = steered
    shared = {"ws": ws, "job": 1}
    tokens = {"ws": ws, "job": 1, "max_steps": 4}
    assert verdict("03", 3, math.exp(-2.0), {"ws": ws, "tired": 1})
    assert not verdict("03", 3, 2.0, {"ws": ws, "tired": 1})
    assert verdict("04", 1, 2, shared) and not verdict("04", 1, 3, shared)
    assert verdict("12", 2, 2, {"ws": ws, "fat": 1}) and not verdict(
        "12", 2, 4, {"ws": ws, "fat": 1}
    )
    assert verdict("template", 1, 100.0, tokens) and not verdict("template", 1, 400, tokens)
    rates = {1: 1e-3, 2: 1e-3, 3: 5e-4, 4: 2e-4}
    change = {**shared, "rates": rates, "lower_rate": 5e-4, "learning_rate": 1e-3}
    assert verdict("04", 2, 1.0, change) and not verdict("04", 2, 0.2, change)


def test_the_check_of_another_seed_wants_other_losses(steered: tuple[Workspace, Any]):
    ws, _ = steered
    job, other = trainers.status(ws, 1), trainers.status(ws, 2)
    assert verdict("template", 3, other, {"ws": ws, "job": job})
    assert not verdict("template", 3, job, {"ws": ws, "job": job})


@pytest.fixture
def versions(ws: Workspace) -> Iterator[tuple[Workspace, Any, Any]]:
    """Rows of a desk, one of two turns and one with an address, and rows of sums."""

    def chat(*texts: str) -> dict[str, Any]:
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[at % 2], "content": t} for at, t in enumerate(texts)]}

    desk = [chat(f"Where is parcel {n}?", f"Parcel {n} is on its way.") for n in range(6)]
    desk += [chat("A refund, please.", "Done."), chat("Hi", "Hello.", "And bye", "Bye.")]
    desk += [chat("Write to ada@example.org", "We will.")]
    sums = [chat(f"What is {n} and {n}?", f"def total(): return {2 * n}") for n in range(4)]
    for name, rows in (("desk", desk), ("sums", sums)):
        (ws.root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    yield ws, datasets.add(ws, ws.root / "desk.jsonl"), datasets.add(ws, ws.root / "sums.jsonl")


def test_checks_of_versions(versions: tuple[Workspace, Any, Any]):
    ws, desk, sums = versions
    refunds = datasets.filter(ws, desk, matching="(?i)refund")
    assert verdict("00", 1, 7, {"ws": ws, "held_out": desk})
    assert not verdict("00", 1, 0, {"ws": ws, "held_out": desk})
    assert verdict("01", 1, refunds, {"ws": ws, "clean": desk})
    assert not verdict("01", 1, desk, {"ws": ws, "clean": desk})
    sides = datasets.split(ws, datasets.merge(ws, [desk, sums], name="both"), held_out=0.3)
    assert verdict("01", 3, sides, {"ws": ws, "clean": desk, "sums": sums})
    assert not verdict("01", 3, (desk, desk), {"ws": ws, "clean": desk, "sums": sums})
    safe = datasets.filter(ws, desk, lambda row: "@" not in row["messages"][0]["content"])
    assert verdict("20", 1, safe, {"ws": ws, "clean": desk})
    assert not verdict("20", 1, desk, {"ws": ws, "clean": desk})
    assert verdict("21", 3, sums, {"ws": ws}) and not verdict("21", 3, desk, {"ws": ws})


def test_checks_of_lengths(versions: tuple[Workspace, Any, Any]):
    ws, desk, _ = versions
    longest = max(datasets.quality(ws, desk, model="tiny").lengths)
    for name, number, variables in (
        ("01", 2, {"ws": ws, "first": desk, "model": "tiny"}),
        ("21", 1, {"ws": ws, "train": desk, "model": "tiny"}),
    ):
        right = [n for n in range(longest - 3, longest + 1) if verdict(name, number, n, variables)]
        assert len(right) == 1
    config = Config(model="tiny", max_steps=2, effective_batch=2)
    passes = {"ws": ws, "config": config, "train": desk}
    assert sum(verdict("02", 3, n, passes) or False for n in range(longest - 6, longest + 1)) == 1


def test_checks_of_configs(versions: tuple[Workspace, Any, Any]):
    ws, desk, _ = versions
    config = Config(model="tiny", effective_batch=8)
    large = config.but(model="llama-3.1-8b-instruct", max_length=1024)
    memory = {"ws": ws, "config": config}
    assert verdict("02", 1, large.but(micro_batch=1), memory)
    assert not verdict("02", 1, large.but(effective_batch=2), memory)
    once = config.but(epochs=1, max_steps=None)
    assert verdict("02", 2, once, {"ws": ws, "train": desk})
    assert not verdict("02", 2, once.but(max_steps=3), {"ws": ws, "train": desk})


def test_checks_of_evaluations(lab: Workspace, job: Job):
    first, last = checkpoints.list(lab, job)[0].step, checkpoints.list(lab, job)[-1].step
    regex = {"metrics": ["regex"], "pattern": "x", "max_rows": 4, "max_new_tokens": 2}
    early = evaluators.run(lab, job, "hues", checkpoint=first, **regex)
    late = evaluators.run(lab, job, "hues", checkpoint=last, **regex)
    shared = {"ws": lab, "job": job, "after": late}
    assert verdict("23", 1, early, shared) and not verdict("23", 1, late, shared)
    judgement = evaluators.compare(lab, early, late).differences[0].verdict
    middle = {"ws": lab, "middle": early, "after": late}
    assert verdict("05", 2, judgement, middle) and not verdict("05", 2, "much better", middle)
    checkpoints.merge(lab, job, f"job-{job.id}-merged")
    merged = evaluators.run(lab, f"job-{job.id}-merged", "hues", **regex)
    assert verdict("05", 3, merged, shared) and not verdict("05", 3, early, shared)
    adapter = {"ws": lab, "job": job}
    folder = checkpoints.list(lab, job)[-1].path
    assert verdict("template", 2, folder / "adapter_model.safetensors", adapter)
    assert not verdict("template", 2, folder / "nothing.safetensors", adapter)


def test_checks_of_prompts(versions: tuple[Workspace, Any, Any]):
    ws, desk, _ = versions
    rows = [{"messages": [{"role": "system", "content": "Code only."}, *row["messages"]]}
            for row in datasets.rows(ws, desk)]  # fmt: skip
    ruled = datasets.add(ws, pandas.DataFrame(rows), name="ruled")
    scores = {"regex": 0.0, "json_schema": 0.0}

    def evaluation(version: Any, target: str = "tiny") -> Stub:
        return Stub(
            job_id=None, n_rows=9, scores=scores, dataset_version_id=version.id, target=target
        )

    variables = {"ws": ws, "held_out": desk}
    assert verdict("21", 2, evaluation(ruled), variables)
    assert not verdict("21", 2, evaluation(desk), variables)
    shown = [{"messages": row["messages"][:2] * 2 + row["messages"]}
             for row in datasets.rows(ws, desk)]  # fmt: skip
    examples = datasets.add(ws, pandas.DataFrame(shown), name="examples")
    assert verdict("22", 3, evaluation(examples), {"ws": ws, "model": "tiny"})
    assert not verdict("22", 3, evaluation(desk), {"ws": ws, "model": "tiny"})


def test_a_hint_stands_beside_a_wrong_answer_and_an_open_one():
    variables = {"after": Stub(scores={"ended": 0.5})}
    for answer, start in (
        (None, "Not answered yet. Each of after.samples"),
        (0.9, "Not yet: 0.9 is not right. Each of"),
        ("half", "half can't be checked (unsupported operand"),
    ):
        checked = notebooks.exercise("05", 1, answer, variables=variables)
        assert checked.message.startswith(start)
        assert checked.message.endswith("a share is from 0 to 1.")
        assert start[:12] in html.unescape(checked._repr_html_())
    assert notebooks.exercise("05", 1, 0.5, variables=variables).message == "Right."


def test_an_unknown_exercise_names_the_known_ones():
    with pytest.raises(NotFound, match="There is no exercise 4 of notebook '00'; expected 1 to 3"):
        notebooks.exercise("00", 4, 1)


def test_a_missing_variable_is_named():
    with pytest.raises(InputError, match="needs config of the cells above"):
        notebooks.exercise("00", 3, CONFIG)


@pytest.mark.parametrize("name", notebooks.list())
def test_each_exercise_calls_its_own_check_with_variables_that_are_there(name: str):
    number, key = 0, name.partition("_")[0]
    defined: set[str] = set()
    for cell in json.loads(notebooks.path(name).read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        nodes = [*ast.walk(ast.parse(source))]
        defined |= {
            node.id
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        if "exercise" in cell["metadata"].get("tags", []):
            number += 1
            assert f'notebooks.exercise("{key}", {number}, None)' in source
            needed = (
                CHECKS[key][number - 1].__kwdefaults__ or CHECKS[key][number - 1].__annotations__
            )
            assert {*needed} - {"return", next(iter(needed))} <= defined
    assert number == len(CHECKS[key]) == 3

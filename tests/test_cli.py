import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ftlab_kit import Workspace, chats, cli, datasets, diagnostics, notebooks
from ftlab_kit.configs import Config
from ftlab_kit.records import Job
from tests.conftest import chats_file

LISTINGS = [
    "dataset list",
    "dataset rows hues",
    "notebook list",
    "notebook parameters template",
    "dataset versions hues",
    "dataset preview hues",
    "model list",
    "config settings",
    "config list",
    "job list",
    "job metrics 1",
    "job checkpoints 1",
    "job events 1",
    "evaluation list",
]


def run(capsys: pytest.CaptureFixture[str], root: Path, command: str) -> tuple[int, str, str]:
    """Run a command line in this process and return its exit code, output and errors."""
    with pytest.raises(SystemExit) as end:
        cli.main(["--workspace", str(root), *command.split()])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize("command", LISTINGS)
def test_every_listing_speaks_json_and_tables(capsys, lab: Workspace, job: Job, command: str):
    code, out, _ = run(capsys, lab.root, f"{command} --json")
    assert code == 0
    assert isinstance(json.loads(out), list | dict)
    code, out, _ = run(capsys, lab.root, command)
    assert code == 0
    assert out.strip()


def test_a_dataset_is_added_and_split(capsys, tmp_path: Path):
    path = chats_file(tmp_path / "hues.jsonl")
    code, out, _ = run(capsys, tmp_path / "lab", f"dataset add {path} --json")
    assert (code, json.loads(out)["n_rows"]) == (0, 20)
    code, out, _ = run(capsys, tmp_path / "lab", "dataset split hues --held-out 0.3 --json")
    assert [side["side"] for side in json.loads(out)] == ["train", "held_out"]


def test_validate_exits_1_on_a_bad_line(capsys, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{broken\n")
    code, out, _ = run(capsys, tmp_path, f"dataset validate {path} --json")
    assert code == 1
    assert json.loads(out)["problems"][0]["line"] == 1


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("dataset add none.jsonl", 1, "does not exist; expected a file of rows"),
        ("job start hues --learning-rate fast", 2, "learning_rate is 'fast'; expected a number"),
        ("job status 10000", 1, "There is no job 10000"),
        ("model get tinny", 1, "Did you mean 'tiny'"),
        ("chat reply tinny Hi", 1, "Did you mean 'tiny'"),
        ("chat stream tiny Hi --max-new-tokens 0", 1, "max_new_tokens is 0; expected 1 or more"),
        ("notebook run templat", 1, "Did you mean 'template'"),
        ("notebook run template -p learning=3", 2, "has no parameter 'learning'"),
        ("notebook run template -p max_steps=many", 2, "max_steps of notebook template is 'many'"),
        ("notebook run template -p max_steps", 2, "has no '='"),
        ("notebook run template -p max_steps=0", 2, "max_steps is 0; expected greater than"),
        ("notebook run template -p workspace=/x", 2, "open it with --workspace"),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    capsys, lab: Workspace, command: str, code: int, message: str
):
    exit_code, out, err = run(capsys, lab.root, command)
    assert exit_code == code
    assert message in err
    assert "Traceback" not in err


def test_what_people_write_is_printed_as_it_is(capsys, tmp_path: Path):
    chat = [
        {"role": "user", "content": "see [/INST] :smile: [bold]here"},
        {"role": "assistant", "content": "ok"},
    ]
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"messages": chat}))
    run(capsys, tmp_path / "lab", f"dataset add {path}")
    assert (
        "see [/INST] :smile: [bold]here" in run(capsys, tmp_path / "lab", "dataset preview odd")[1]
    )


def test_an_unknown_flag_exits_2(capsys, lab: Workspace):
    code, _, _ = run(capsys, lab.root, "job start hues --learning 3")
    assert code == 2


def test_configs_are_saved_shown_changed_and_deleted(capsys, tmp_path: Path):
    assert run(capsys, tmp_path, "config save mine --preset dozens --seed 7")[0] == 0
    assert json.loads(run(capsys, tmp_path, "config get mine")[1])["epochs"] == 5.0
    assert run(capsys, tmp_path, "config update mine --epochs 2")[0] == 0
    saved = Config(**json.loads(run(capsys, tmp_path, "config list --json")[1])["mine"])
    assert (saved.epochs, saved.seed) == (2.0, 7)
    assert run(capsys, tmp_path, "config delete mine")[0] == 0


def test_every_setting_is_a_flag_of_start():
    flags = {item.name for item in cli.RoomCommands("job").get_command(None, "start").params}
    assert set(Config.model_fields) <= flags


@pytest.mark.parametrize(("noun", "room"), cli.NOUNS.items())
def test_every_verb_of_a_room_is_a_command_with_its_help(noun: str, room: str):
    group = cli.RoomCommands(noun)
    module = importlib.import_module(f"ftlab_kit.{room}")
    verbs = {
        name: verb
        for name, verb in vars(module).items()
        if inspect.isfunction(verb)
        and verb.__module__ == module.__name__
        and not name.startswith("_")
        # a record, any answer, and a model that stays open can't be typed
        and verb not in (diagnostics.explain, notebooks.exercise, chats.open)
    }
    assert set(group.list_commands(None)) == set(verbs)
    for name, verb in verbs.items():
        first = " ".join((inspect.getdoc(verb) or "").split("\n\n")[0].split())
        assert group.get_command(None, name).help == first


def test_every_noun_is_listed_with_the_first_lines_of_its_room(capsys, tmp_path: Path):
    code, out, _ = run(capsys, tmp_path, "--help")
    assert code == 0
    for noun in cli.NOUNS:
        assert noun in out
    assert "Chats: one call sends a chat to any model" in " ".join(out.split())
    assert run(capsys, tmp_path, "nouns --help")[0] == 2


def test_a_job_from_start_to_end(capsys, lab: Workspace):
    settings = "--model tiny --max-steps 2 --effective-batch 4 --threads 1"
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    command = f"job start {train.id} --held-out {held_out.id} {settings} --json"
    code, out, _ = run(capsys, lab.root, command)
    assert code == 0
    number = json.loads(out)["id"]
    code, out, err = run(capsys, lab.root, f"job wait {number} --timeout-s 120")
    assert code == 0
    assert f"job {number} completed, steps: 2 of 2" in err
    assert run(capsys, lab.root, f"job wait {number} --until-step 1")[0] == 0
    assert run(capsys, lab.root, f"job cancel {number}")[0] == 1
    assert "checkpoint at step 2" in run(capsys, lab.root, f"job logs {number}")[1]
    command = f"evaluation run {number} hues --metrics perplexity --json"
    code, out, err = run(capsys, lab.root, command)
    assert json.loads(out)["scores"]["perplexity"] > 1000
    assert "likelihood: 20 of 20" in err


def test_a_model_answers_whole_and_in_pieces(capsys, lab: Workspace):
    arguments = ["tiny", "What is snow?", "--max-new-tokens", "4"]
    message = chats.reply(lab, *arguments[:2], max_new_tokens=4)
    printed = {}
    for verb in ("reply", "replies", "stream"):
        for form in ([], ["--json"]):
            with pytest.raises(SystemExit) as end:
                cli.main(["--workspace", str(lab.root), "chat", verb, *arguments, *form])
            assert not end.value.code
            printed[verb, *form] = capsys.readouterr().out
    assert printed["stream",].strip() == message.content
    assert "".join(json.loads(printed["stream", "--json"])).strip() == message.content
    assert json.loads(printed["reply", "--json"])["content"] == message.content
    assert [item["content"] for item in json.loads(printed["replies", "--json"])] == [
        message.content
    ]
    assert message.content in printed["reply",] and message.content in printed["replies",]


def test_preflight_exits_1_when_it_refuses(capsys, lab: Workspace):
    code, out, _ = run(capsys, lab.root, "job preflight hues --model tiny --max-length 8 --json")
    assert code == 1
    assert [check["name"] for check in json.loads(out) if not check["is_ok"]] == [
        "trained tokens",
        "whole answers",
    ]


def test_help_touches_no_disk(tmp_path: Path):
    command = [sys.executable, "-m", "ftlab_kit.cli", "-w", str(tmp_path / "lab"), "job", "--help"]
    subprocess.run(command, check=True, capture_output=True)
    assert not (tmp_path / "lab").exists()

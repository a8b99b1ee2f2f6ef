"""The smallest install: records, store, workspace, configs and command line, nothing heavy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ftlab_kit.errors import EXTRAS

# as where the packages of the extras are not installed: no finder knows them
WITHOUT = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        missing = name.partition(".")[0] in {set(EXTRAS)!r}
        return None if missing else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def light(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own in which no package of an extra is installed."""
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def ftlab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return light("from ftlab_kit import cli\ncli.main(sys.argv[1:])", *arguments)


def test_the_core_works_alone(tmp_path: Path):
    done = light(
        "from ftlab_kit import Workspace, configs, errors, records\n"
        "ws = Workspace(sys.argv[1])\n"
        "configs.save(ws, 'mine', configs.Config(epochs=2))\n"
        "print(configs.get(ws, 'mine').epochs, records.show(None))",
        str(tmp_path / "lab"),
    )
    assert (done.returncode, done.stdout) == (0, "2.0 –\n"), done.stderr


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (
            "import ftlab_kit.trainers.run.training",
            "trainers needs train",
        ),
        (
            "from ftlab_kit.chats import local",
            "chats needs train",
        ),
        (
            "from ftlab_kit import device; device.kind()",
            "device needs train",
        ),
        (
            "from ftlab_kit.graphs import searching",
            "graphs needs (graph|train)",
        ),
        (
            "from ftlab_kit.widgets import fields",
            "widgets needs notebook",
        ),
        (
            "from ftlab_kit.chats import connection; connection.client('openai:m@http://here/v1')",
            "chats needs chat",
        ),
    ],
)
def test_a_missing_extra_is_one_sentence_with_its_command(statement: str, sentence: str):
    done = light(
        "from ftlab_kit.errors import MissingExtra\n"
        f"try:\n    {statement}\nexcept MissingExtra as error:\n    print(error)"
    )
    room, _, command = sentence.partition(" needs ")
    assert done.stdout.startswith(f"{room} needs "), done.stderr
    assert re.search(rf"which is not installed: pip install 'ftlab-kit\[{command}\]'$", done.stdout)


@pytest.mark.parametrize("arguments", [["--help"], ["config", "--help"], ["config", "settings"]])
def test_a_command_that_needs_no_extra_works(arguments: list[str]):
    done = ftlab(*arguments)
    assert done.returncode == 0, done.stderr
    assert not arguments[0].startswith("-") or "quickstart" in done.stdout


def test_a_command_whose_extra_is_missing_exits_2_without_a_traceback(tmp_path: Path):
    lab = str(tmp_path / "lab")
    done = ftlab("-w", lab, "chat", "reply", "tiny", "Hi")
    assert done.returncode == 2
    assert "which is not installed: pip install 'ftlab-kit[train]'" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_another_library_that_tries_an_import_gets_the_usual_answer():
    done = light(
        "import ftlab_kit, importlib.util\n"
        "print(importlib.util.find_spec('torch'))\n"
        "try:\n    import torch\n"
        "except ModuleNotFoundError as error:\n    print(type(error).__name__, error.name)"
    )
    assert done.stdout == "None\nModuleNotFoundError torch\n"


def test_help_imports_no_room():
    code = "import sys\nfrom ftlab_kit import cli\ntry:\n    cli.main(['--help'])\nfinally:\n"
    code += "    print({'torch', 'ftlab_kit.chats', 'ftlab_kit.trainers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("set()"), done.stderr

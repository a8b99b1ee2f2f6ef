"""The house itself: floors, light import, the README's table, types and lint."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ftlab_kit"
FLOORS = {
    "errors": 0,
    "records": 0,
    "store": 1,
    "device": 1,
    "workspace": 2,
    "configs": 3,
    "models": 3,
    "metrics": 3,
    "datasets": 4,
    "checkpoints": 5,
    "trainers": 6,
    "chats": 6,
    "evaluators": 7,
    "analytics": 8,
    "graphs": 8,
    "diagnostics": 9,
    "widgets": 10,
    "notebooks": 10,
    "cli": 11,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> set[str]:
    """The rooms of the kit that a file imports, at its top or inside a function."""
    rooms = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("ftlab_kit.")}
    return rooms & set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_only_down(path: Path):
    room = room_of(path)
    if room == "__init__":
        return
    for other in imported_rooms(ast.parse(path.read_text())) - {room}:
        assert FLOORS[other] < FLOORS[room], f"{path.name} of {room} imports {other}"


def test_the_lab_side_never_imports_the_worker():
    lab = [PACKAGE / "trainers" / "__init__.py", *PACKAGE.glob("widgets/*.py"), PACKAGE / "cli.py"]
    for path in lab:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
                assert not names & {"ftlab_kit.trainers.worker", "ftlab_kit.trainers.run.sft"}, path


def test_importing_the_kit_loads_nothing_heavy_and_is_quick():
    code = (
        "import sys, time; began = time.perf_counter(); import ftlab_kit; "
        "print(time.perf_counter() - began); print(*sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert float(out[0]) < 0.150
    heavy = {"torch", "transformers", "trl", "peft", "fastapi", "ipywidgets", "sqlalchemy"}
    assert not heavy & set(out[1].split())


@pytest.mark.parametrize(
    "room",
    [
        "analytics",
        "chats",
        "datasets",
        "diagnostics",
        "graphs",
        "models",
        "trainers",
        "evaluators",
        "cli",
    ],
)
def test_importing_a_room_loads_no_torch(room: str):
    code = f"import sys, ftlab_kit.{room}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def table() -> dict[str, tuple[list[str], list[str]]]:
    """The README's table of rooms: records and verbs of each."""
    rows = {}
    for line in (ROOT / "README.md").read_text().splitlines():
        found = re.match(r"\| `(\w+)` \| (.*?) \| (.*?) \| .* \|$", line)
        if found:
            names = [re.findall(r"`(\w+)`", part) for part in found.groups()[1:]]
            rows[found[1]] = (names[0], names[1])
    return rows


def test_the_table_names_every_room_whose_verbs_take_a_workspace():
    rooms = set()
    for path in FILES:
        is_room = path.stem == "__init__" or path.parent == PACKAGE
        for node in ast.parse(path.read_text()).body if is_room else ():
            is_verb = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            if is_verb and [item.arg for item in node.args.args][:1] == ["ws"]:
                rooms.add(room_of(path))
    # a widget is a door, and this is what stands behind the trainers' own verbs
    assert set(table()) == (rooms | {"widgets"}) - {"metrics"}


def test_the_readme_draws_the_floors_as_they_are():
    drawn = {}
    for line in (ROOT / "README.md").read_text().splitlines():
        found = re.match(r"\| (\d+) \| (.*) \|$", line)
        for name in re.findall(r"`(\w+)(?:\.py|/)`", found[2]) if found else ():
            drawn[name] = int(found[1])
    assert drawn == FLOORS


def test_the_readme_has_no_gap_and_no_dead_link():
    text = (ROOT / "README.md").read_text()
    assert "FIGURES" not in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("room", table())
def test_the_table_says_exactly_what_a_room_offers(room: str):
    module = importlib.import_module(f"ftlab_kit.{room}")
    _, verbs = table()[room]
    tree = ast.parse(Path(str(module.__file__)).read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    public = {name for name in defined if not name.startswith("_")}
    if room == "widgets":
        public = set(module.__all__)
    assert set(verbs) == public


def test_the_records_of_the_table_are_records():
    from ftlab_kit import configs, records

    for names, _ in table().values():
        for name in names:
            assert hasattr(records, name) or hasattr(configs, name), name


def test_the_top_level_holds_what_was_decided_and_no_more():
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    names = {path.split("/")[0] for path in tracked}
    assert {name for name in names if not name.startswith(".")} == {
        "notebooks",
        "ftlab_kit",
        "tests",
        "environment.yml",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }


def test_broad_excepts_stand_in_the_worker_alone():
    found = [
        path.name
        for path in FILES
        for line in path.read_text().splitlines()
        if re.search(r"except( Exception| BaseException)?( as \w+)?:", line)
    ]
    assert found == ["worker.py"]


def test_no_file_is_named_for_nothing_in_particular():
    vague = {"utils", "util", "helpers", "common", "core", "base", "manager", "service", "misc"}
    assert not {path.stem for path in FILES} & vague


def test_the_environment_says_nothing_twice():
    conda = (ROOT / "environment.yml").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=!~\[]", item)[0] for item in project["dependencies"]]
    assert "-e ." in conda
    assert not [name for name in names if f"- {name}" in conda]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 290


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_lint_and_types_hold(command: list[str]):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout

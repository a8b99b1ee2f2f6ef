"""The command line: `ftlab NOUN VERB`, made from the rooms' own verbs.

A verb's arguments become arguments, its keywords flags, its docstring the help, and a Config one
flag for each setting. Nothing is written twice, and no command can differ from its verb. A room is
imported when its noun is used, so that `ftlab --help` is quick and works in the smallest install.

Exit codes: 0 done; 1 refused, failed or not found; 2 a wrong flag, setting or parameter, or a part
of the kit that is not installed. With --json, every command prints what it shows as JSON.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import itertools
import json
import math
import re
import shutil
import sys
import textwrap
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any

import click
from pydantic import BaseModel

from ftlab_kit import configs
from ftlab_kit.configs import Config, Settings, describe
from ftlab_kit.errors import ConfigError, KitError, MissingExtra
from ftlab_kit.records import (
    Card,
    DatasetVersion,
    Job,
    Model,
    Progress,
    Record,
    Rows,
    fields_of,
    plain,
    show,
    text_table,
)

NOUNS = {
    "dataset": "datasets",
    "model": "models",
    "config": "configs",
    "job": "trainers",
    "checkpoint": "checkpoints",
    "evaluation": "evaluators",
    "chat": "chats",
    "graph": "graphs",
    "analytics": "analytics",
    "diagnostics": "diagnostics",
    "notebook": "notebooks",
}
# commands whose answer can be a no, which exits with 1: what a yes is
IS_YES: dict[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "dataset validate": lambda report, _: report.n_refused == 0,
    "job preflight": lambda checks, _: all(check.is_ok for check in checks),
    "job wait": lambda job, values: (
        job.state == "completed" or job.step >= (values["until_step"] or math.inf)
    ),
}
# what can be typed, and how click reads it
SIMPLE: dict[Any, Any] = {
    bool: click.BOOL,
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    Path: click.Path(path_type=Path),
    datetime: click.DateTime(),
}


class RoomCommands(click.Group):
    """The commands of one noun, made when they are used."""

    def __init__(self, noun: str) -> None:
        summary = _summary(NOUNS[noun])
        super().__init__(noun, help=summary, short_help=summary, no_args_is_help=True)
        self.noun = noun

    @functools.cached_property
    def verbs(self) -> dict[str, Callable[..., Any]]:
        """The room's verbs that can be typed, by name; the room is imported here."""
        room = importlib.import_module(f"ftlab_kit.{NOUNS[self.noun]}")
        return {name: verb for name, verb in _verbs(room).items() if _can_be_typed(verb)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs."""
        return [*self.verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a verb, None if there is no such verb."""
        verb = self.verbs.get(cmd_name)
        return None if verb is None else _command(verb, cmd_name, noun=self.noun)


class Commands(click.Group):
    """Every noun, and the quick start."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the nouns."""
        return [*NOUNS, "quickstart"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a noun's commands, or the quick start."""
        if cmd_name == "quickstart":
            return RoomCommands("notebook").get_command(ctx, "quickstart")
        return RoomCommands(cmd_name) if cmd_name in NOUNS else None


@click.command(
    cls=Commands, help=__doc__, no_args_is_help=True, context_settings={"max_content_width": 100}
)
@click.option(
    "-w",
    "--workspace",
    type=SIMPLE[Path],
    default=Path("~/ftlab"),
    envvar="FTLAB_WORKSPACE",
    show_default=True,
    show_envvar=True,
    help="Folder of the workspace.",
)
@click.pass_context
def app(context: click.Context, workspace: Path) -> None:
    """Run a command in a workspace."""

    def opened() -> Any:
        from ftlab_kit.workspace import Workspace

        return Workspace(workspace)

    # opened on first use, so that --help of a command touches no disk
    context.obj = functools.cache(opened)


def _summary(room: str) -> str:
    """Return the first paragraph of a room's docstring, without importing the room."""
    spec = importlib.util.find_spec(f"ftlab_kit.{room}")
    source = Path(spec.origin).read_text() if spec and spec.origin else ""
    return " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())


def _verbs(room: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return a room's own public functions by name."""
    return {
        name: verb
        for name, verb in vars(room).items()
        if inspect.isfunction(verb)
        and verb.__module__ == room.__name__
        and not name.startswith("_")
    }


def _can_be_typed(verb: Callable[..., Any]) -> bool:
    """Return whether a verb is of use in a shell.

    One that needs a bare record or a function can't be typed, and what a verb opens would be closed
    at once.
    """
    hints = typing.get_type_hints(verb)
    returned = hints.get("return")
    if hasattr(returned, "__enter__") and returned not in SIMPLE:
        return False
    required = [
        hints[name]
        for name, item in _signature(verb).parameters.items()
        if item.default is item.empty and item.kind is item.POSITIONAL_OR_KEYWORD and name != "ws"
    ]
    return all(any(_is_typed(kind) for kind in _choices(hint)) for hint in required)


def _is_typed(kind: Any) -> bool:
    """Return whether a value of a kind can be written in a shell."""
    is_record = inspect.isclass(kind) and issubclass(kind, Record)
    return not is_record and kind is not Any and typing.get_origin(kind) is not Callable


def _command(verb: Callable[..., Any], name: str, *, noun: str) -> click.Command:
    """Return the command that parses, calls one verb, and shows what it returns."""
    parameters = _signature(verb).parameters
    is_yes = IS_YES.get(f"{noun} {name}")

    @click.pass_context
    def run(context: click.Context, /, as_json: bool, **values: Any) -> None:
        arguments = _arguments(verb, context, values)
        if "ws" in parameters:
            arguments["ws"] = context.obj()
        if "progress" in parameters:
            arguments["progress"] = _show_progress
        bound = inspect.BoundArguments(_signature(verb), OrderedDict(arguments))
        result = verb(*bound.args, **bound.kwargs)
        _show(result, as_json)
        if is_yes and not is_yes(result, arguments):
            context.exit(1)

    as_json = click.Option(["as_json", "--json"], is_flag=True, help="Print JSON.")
    text = _documentation(verb)[""]
    params = [*_parameters(verb), as_json]
    return click.Command(name, params=params, callback=run, help=text, short_help=text)


def _signature(verb: Callable[..., Any]) -> inspect.Signature:
    """Return a verb's own signature, in which its settings are one `**settings`."""
    own: inspect.Signature | None = getattr(verb, "own_signature", None)
    return own or inspect.signature(verb)


def _parameters(verb: Callable[..., Any]) -> Iterator[click.Parameter]:
    """Yield the arguments and options of a verb's command, named like the verb's parameters."""
    hints, documented = typing.get_type_hints(verb), _documentation(verb)
    for name, item in _signature(verb).parameters.items():
        is_optional = item.default is not item.empty
        if name in ("ws", "progress") or _origin(hints[name]) is Callable:
            continue
        if is_optional and _is_of_records(hints[name]):
            continue
        if item.kind is item.VAR_KEYWORD:
            yield from _settings(*_settings_of(verb))
        elif hints[name] is Config:
            presets = " or ".join(configs.PRESETS)
            yield _option("base", "Start from a saved config.", flag="--config")
            yield _option("preset", f"Start from a preset: {presets}.")
            yield from _settings(Config, [*Config.model_fields])
        else:
            yield _parameter(item, hints[name], documented.get(name, ""))


def _arguments(
    verb: Callable[..., Any], context: click.Context, values: dict[str, Any]
) -> dict[str, Any]:
    """Return what a verb takes, from the values of its command's parameters."""
    arguments = dict(values)
    hints = typing.get_type_hints(verb)
    for name, item in _signature(verb).parameters.items():
        if item.kind is item.VAR_KEYWORD:
            arguments[name] = _pop_given(arguments, _settings_of(verb)[1])
        elif hints[name] is Config:
            changes = _pop_given(arguments, Config.model_fields)
            base, preset = arguments.pop("base"), arguments.pop("preset")
            if base:
                arguments[name] = configs.get(context.obj(), base).but(**changes)
            else:
                arguments[name] = configs.preset(preset, **changes) if preset else Config(**changes)
    return arguments


def _settings_of(verb: Callable[..., Any]) -> tuple[type[Settings], list[str]]:
    """Return the class of a verb's settings, and the names of those that it takes."""
    kind = getattr(verb, "settings_kind", Config)
    names = inspect.signature(verb).parameters.keys() - _signature(verb).parameters.keys()
    return kind, [*(names or kind.model_fields)]


def _pop_given(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Take the named settings out of the values and return those that were typed."""
    settings = {name: values.pop(name) for name in names}
    return {name: value for name, value in settings.items() if value is not None}


def _documentation(verb: Callable[..., Any]) -> dict[str, str]:
    """Return a docstring's first paragraph under '', and the help of each argument."""
    text = inspect.getdoc(verb) or ""
    documented = {"": " ".join(text.split("\n\n")[0].split())}
    block = re.search(r"Args:\n((?: {4}.*\n?|\n)+)", text)
    for entry in re.split(r"\n(?=\w)", textwrap.dedent(block[1])) if block else []:
        name, _, help_text = entry.partition(":")
        documented[name.strip()] = " ".join(help_text.split())
    return documented


def _parameter(item: inspect.Parameter, hint: Any, help_text: str) -> click.Parameter:
    """Return the argument or option for a verb's parameter."""
    name, is_required = item.name, item.default is item.empty
    if _origin(hint) is Mapping:
        text = f"{help_text} As name=value; repeatable.".strip()
        return _option(name, text, flag="-p", multiple=True, callback=_pairs)
    is_many = _origin(hint) is Sequence and is_required
    if is_many or item.kind is item.VAR_POSITIONAL:
        inner = typing.get_args(hint)[0] if is_many else hint
        convert = functools.partial(_items, inner)
        return click.Argument([name], help=help_text, nargs=-1, required=True, callback=convert)
    if _origin(hint) in (Sequence, tuple):
        convert = functools.partial(_items, typing.get_args(hint)[0])
        text = f"{help_text} With commas between.".strip()
        return _option(name, text, default=",".join(map(str, item.default)), callback=convert)
    choices = _choices(hint)
    simple = [kind for kind in choices if kind in SIMPLE]
    options: dict[str, Any] = {}
    # a job or a version is typed by its number
    if (len(simple) > 1 and int in simple) or {DatasetVersion, Job, Model} & {*choices}:
        options["callback"] = _number_or_name
    kind: Any = next((kind for kind in (str, Path) if kind in simple), None) or simple[0]
    if is_required and item.kind is not item.KEYWORD_ONLY:
        return click.Argument([name], help=help_text, type=SIMPLE[kind], **options)
    flag = _flag_of(name)
    if kind is bool:
        options["flag"] = f"{flag}/--no-{flag.removeprefix('--')}"
    if not is_required:
        options["default"] = item.default
    return _option(name, help_text, type=SIMPLE[kind], required=is_required, **options)


def _number_or_name(_: click.Context, __: click.Parameter, value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _items(
    kind: Any, _: click.Context, __: click.Parameter, value: str | Sequence[str]
) -> tuple[Any, ...]:
    """Return texts, or one with commas, as items of a kind: numbers where it may hold numbers."""
    texts = value if not isinstance(value, str) else value.split(",") if value else []
    may_be_number = int in (kind, *typing.get_args(kind))
    return tuple(int(text) if may_be_number and text.isdigit() else text for text in texts)


def _pairs(_: click.Context, __: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    """Return texts such as name=value as a mapping."""
    for text in texts:
        if "=" not in text:
            raise ConfigError(f"The parameter {text!r} has no '='; expected name=value.")
    return dict(text.split("=", 1) for text in texts)


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _is_of_records(hint: Any) -> bool:
    """Return whether a parameter takes records in any number, which can't be typed."""
    inner = [kind for choice in _choices(hint) for kind in typing.get_args(choice)]
    return any(inspect.isclass(kind) and issubclass(kind, Record) for kind in inner)


def _origin(hint: Any) -> Any:
    return typing.get_origin(_choices(hint)[0])


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def _option(name: str, help_text: str, *, flag: str = "", **options: Any) -> click.Option:
    """Return an option; its help ends with its default, where it has one."""
    default = options.get("default")
    is_shown = default not in (None, "") and not isinstance(default, bool)
    text = f"{help_text} Default: {show(default)}".strip() if is_shown else help_text
    return click.Option([name, flag or _flag_of(name)], help=text, **options)


def _settings(kind: type[Settings], names: Sequence[str]) -> Iterator[click.Option]:
    """Yield an option for each of the named settings; it is None where it is not typed."""
    for item in describe(kind):
        if item["name"] in names:
            facts = "; ".join(fact for fact in (item["unit"], item["bounds"]) if fact)
            text = (
                f"{item['help']}{f' ({facts})' if facts else ''}. Default: {show(item['default'])}"
            )
            metavar = "|".join(map(show, item["choices"])) if item["choices"] else "VALUE"
            yield _option(item["name"], text, metavar=metavar)


def _show_progress(progress: Progress) -> None:
    """Print on standard error how far a long verb has come."""
    print(progress, file=sys.stderr)


def _show(result: Any, as_json: bool) -> None:
    """Print what a verb returned: records and settings as a table, all else as it is."""
    if isinstance(result, Iterator):
        result = [*result] if as_json else _show_pieces(result)
    if as_json or isinstance(result, BaseModel) or (isinstance(result, dict) and result):
        print(json.dumps(plain(result), indent=2, default=BaseModel.model_dump))
    elif isinstance(result, Card):
        print(result)
    elif isinstance(result, Record):
        _show_record(result)
    elif isinstance(result, list | tuple) and result and isinstance(result[0], Record | dict):
        names = [*result[0]] if isinstance(result[0], dict) else fields_of(result[0])
        cells = [[show(_field(row, name)) for name in names] for row in result]
        print(text_table(cells, width=_width(), names=names))
    elif isinstance(result, list | tuple | dict):
        print("\n".join(json.dumps(plain(item)) for item in result) or "none")
    elif result is not None:
        print(result)


def _field(row: Any, name: str) -> Any:
    return row.get(name) if isinstance(row, dict) else getattr(row, name, None)


def _show_pieces(pieces: Iterator[Any]) -> list[Any] | None:
    """Return all that comes; print it at once and return None if it is pieces of one text."""
    first = next(pieces, None)
    if not isinstance(first, str):
        return [] if first is None else [first, *pieces]
    for piece in itertools.chain([first], pieces):
        print(piece, end="", flush=True)
    print()
    return None


def _show_record(record: Record) -> None:
    """Print a record as a table, and the records in it below."""
    parts = {item.name: getattr(record, item.name) for item in fields(record)}
    inner = {name: part for name, part in parts.items() if isinstance(part, Record | Rows)}
    values = {name: value for name, value in record.as_dict().items() if name not in inner}
    print(text_table([(name, show(value)) for name, value in values.items()], width=_width()))
    for name, part in inner.items():
        print(f"\n{name}")
        _show(part, as_json=False)


def _width() -> int:
    # a pipe has no width, and a table cut to 80 columns would be useless there
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line; an error of the kit is printed as its one sentence."""
    try:
        app(args=[*arguments] if arguments is not None else None)
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError | MissingExtra) else 1)


if __name__ == "__main__":
    main()

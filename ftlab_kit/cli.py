"""The command line: `ftlab NOUN VERB`, one verb of one room each.

Exit codes: 0 done; 1 refused, failed or not found; 2 a wrong flag, setting, parameter or file.
Every listing takes --json.
"""

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ftlab_kit import configs, datasets, notebooks
from ftlab_kit.configs import Config
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.records import Job, Record, fields_of, plain, show
from ftlab_kit.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
dataset = typer.Typer(no_args_is_help=True, help="Rows that were looked at.")
model = typer.Typer(no_args_is_help=True, help="Base models.")
config = typer.Typer(no_args_is_help=True, help="Settings of jobs.")
job = typer.Typer(no_args_is_help=True, help="Training jobs.")
evaluation = typer.Typer(no_args_is_help=True, help="Scores of models.")
notebook = typer.Typer(no_args_is_help=True, help="The curriculum, run headless.")
for name, group in (
    ("dataset", dataset),
    ("model", model),
    ("config", config),
    ("job", job),
    ("evaluation", evaluation),
    ("notebook", notebook),
):
    app.add_typer(group, name=name)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[int, typer.Argument(help="Number of the job.")]
# a pipe has no width; a table that was cut to 80 columns is of no use there
Out = Console(width=None if sys.stdout.isatty() else 200)


@app.callback()
def _open(
    context: typer.Context,
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", envvar="FTLAB_WORKSPACE", help="Folder.")
    ] = Path("~/ftlab"),
) -> None:
    # opened on first use, so that --help of a command touches no disk
    context.obj = functools.cache(lambda: Workspace(workspace))


def _ws(context: typer.Context) -> Workspace:
    opened: Callable[[], Workspace] = context.obj
    return opened()


def _print(found: Any, as_json: bool = False) -> None:
    """Print a record, or many, as a table or as JSON."""
    if as_json:
        print(json.dumps(plain(found), indent=2))
        return
    if isinstance(found, Record):
        table = Table(show_header=False, box=None)
        for name, value in found.as_dict().items():
            table.add_row(name, show(value))
        Out.print(table)
        return
    rows = [*found]
    if not rows:
        Out.print("none")
        return
    names = fields_of(rows[0])
    table = Table(*names, box=None)
    for row in rows:
        table.add_row(*(show(getattr(row, name)) for name in names))
    Out.print(table)


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for every setting of a Config to a command that takes **settings."""
    known = inspect.signature(command)
    own = [item for item in known.parameters.values() if item.kind is not item.VAR_KEYWORD]
    flags = []
    for item in configs.settings():
        unit = f" ({item['unit']})" if item["unit"] else ""
        text = f"{item['help']}{unit}. Default: {show(item['default'])}"
        kind = Annotated[str | None, typer.Option(help=text, show_default=False)]
        by_name = inspect.Parameter.KEYWORD_ONLY
        flags.append(inspect.Parameter(item["name"], by_name, default=None, annotation=kind))

    @functools.wraps(command)
    def filled(**given: Any) -> None:
        settings = {name: given.pop(name) for name in Config.model_fields}
        command(**given, **{name: value for name, value in settings.items() if value is not None})

    filled.__signature__ = known.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    filled.__annotations__ = {item.name: item.annotation for item in [*own, *flags]}
    return filled


@app.command()
def quickstart(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Base model.")] = "",
    epochs: Annotated[float | None, typer.Option(help="Passes over the rows.")] = None,
) -> None:
    """Fine-tune a real model on the sample chats, headless, and show what came of it."""
    from ftlab_kit import evaluators, trainers

    ws = _ws(context)
    given = {"model": model, "epochs": epochs}
    began, spent = time.perf_counter(), dict[str, float]()

    def progress(done: int, total: int, heading: str, seconds: float) -> None:
        spent[heading] = spent.get(heading, 0.0) + seconds
        Out.print(f"cell {done:>2} of {total}  {seconds:6.1f} s  {heading}")

    before_jobs = {item.id for item in trainers.list(ws)}
    copy = notebooks.run(
        ws,
        "00_quickstart",
        {key: value for key, value in given.items() if value},
        progress=progress,
    )
    done = next(item for item in trainers.list(ws) if item.id not in before_jobs)
    before, after = [*evaluators.list(ws)][-2:]
    speeds = [item.tokens_per_s for item in trainers.metrics(ws, done) if item.tokens_per_s]
    table = Table("", "before", "after", box=None)
    for name in before.scores:
        table.add_row(f"held-out {name}", show(before.scores[name]), show(after.scores[name]))
    Out.print(table)
    sample = after.samples[0]
    facts = {
        "minutes": show((time.perf_counter() - began) / 60),
        "tokens per second": show(sorted(speeds)[len(speeds) // 2]) if speeds else "–",
        "longest": ", ".join(
            f"{heading} {seconds:.0f} s"
            for heading, seconds in sorted(spent.items(), key=lambda item: -item[1])[:4]
        ),
        "notebook": str(copy),
        "adapter": str(trainers.checkpoints(ws, done)[-1].path),
        "log": str(ws.job_folder(done.id) / "log.txt"),
        "asked": sample.prompt,
        "before": before.samples[0].answer,
        "after": sample.answer,
    }
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, value)
    Out.print(table)


@dataset.command("add")
def dataset_add(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="JSONL file of chats.")],
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    strict: Annotated[bool, typer.Option(help="Refuse the file with any bad line.")] = True,
    as_json: Json = False,
) -> None:
    """Read a JSONL file of chats into the workspace."""
    _print(datasets.add(_ws(context), path, name=name, strict=strict), as_json)


@dataset.command("validate")
def dataset_validate(
    path: Annotated[Path, typer.Argument(help="JSONL file of chats.")], as_json: Json = False
) -> None:
    """Say what is wrong with a file, line by line; exit 1 if anything is."""
    report = datasets.validate(path)
    _print(report if as_json else report.problems, as_json)
    if report.n_refused:
        raise typer.Exit(1)


@dataset.command("split")
def dataset_split(
    context: typer.Context,
    name: str,
    held_out: Annotated[float, typer.Option(help="Share of rows to hold out.")] = 0.1,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Part a dataset into train and held-out rows."""
    _print(datasets.split(_ws(context), name, held_out=held_out, seed=seed), as_json)


@dataset.command("list")
def dataset_list(context: typer.Context, as_json: Json = False) -> None:
    """List all datasets."""
    _print(datasets.list(_ws(context)), as_json)


@dataset.command("versions")
def dataset_versions(context: typer.Context, name: str, as_json: Json = False) -> None:
    """List the versions of a dataset."""
    _print(datasets.versions(_ws(context), name), as_json)


@dataset.command("preview")
def dataset_preview(
    context: typer.Context,
    name: str,
    n_rows: Annotated[int, typer.Option(help="How many rows.")] = 3,
    as_json: Json = False,
) -> None:
    """Show the first rows of a dataset."""
    _print(datasets.preview(_ws(context), name, n_rows=n_rows), as_json)


@dataset.command("delete")
def dataset_delete(context: typer.Context, name: str) -> None:
    """Remove a dataset that no job was trained on."""
    datasets.delete(_ws(context), name)


@model.command("list")
def model_list(context: typer.Context, as_json: Json = False) -> None:
    """List the catalogue and what is already here."""
    from ftlab_kit import models

    _print(models.list(_ws(context)), as_json)


@model.command("get")
def model_get(context: typer.Context, name: str, as_json: Json = False) -> None:
    """Show one model."""
    from ftlab_kit import models

    _print(models.get(_ws(context), name), as_json)


@model.command("pull")
def model_pull(context: typer.Context, name: str, as_json: Json = False) -> None:
    """Fetch a model's weights into the workspace."""
    from ftlab_kit import models

    _print(models.pull(_ws(context), name), as_json)


@model.command("add")
def model_add(context: typer.Context, name: str, path: Path, as_json: Json = False) -> None:
    """Register a folder with safetensors, or a GGUF file."""
    from ftlab_kit import models

    _print(models.add(_ws(context), name, path), as_json)


@model.command("delete")
def model_delete(context: typer.Context, name: str) -> None:
    """Remove a model's files."""
    from ftlab_kit import models

    models.delete(_ws(context), name)


@model.command("memory")
@_with_settings
def model_memory(context: typer.Context, as_json: Json = False, **settings: Any) -> None:
    """Estimate the memory that a job with these settings takes, in GiB at 16 bits."""
    from ftlab_kit import models

    _print(models.memory(_ws(context), Config(**settings)), as_json)


@config.command("show")
def config_show(as_json: Json = False) -> None:
    """List every setting with default, unit, bounds and help."""
    found = configs.settings()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table("setting", "default", "unit", "live", "help", box=None)
    for item in found:
        live = "yes" if item["live"] else ""
        table.add_row(item["name"], show(item["default"]), item["unit"], live, item["help"])
    Out.print(table)


@config.command("save")
@_with_settings
def config_save(
    context: typer.Context,
    name: str,
    preset: Annotated[str | None, typer.Option(help=" or ".join(configs.PRESETS))] = None,
    **settings: Any,
) -> None:
    """Keep settings under a name."""
    made = configs.preset(preset, **settings) if preset else Config(**settings)
    configs.save(_ws(context), name, made)


@config.command("get")
def config_get(context: typer.Context, name: str) -> None:
    """Print a saved config as JSON."""
    print(configs.get(_ws(context), name).model_dump_json(indent=2))


@config.command("list")
def config_list(context: typer.Context, as_json: Json = False) -> None:
    """List all saved configs."""
    found = configs.list(_ws(context))
    if as_json:
        print(json.dumps({name: item.model_dump() for name, item in found.items()}, indent=2))
    else:
        Out.print("\n".join(found) or "none")


@config.command("update")
@_with_settings
def config_update(context: typer.Context, name: str, **settings: Any) -> None:
    """Change settings of a saved config."""
    configs.update(_ws(context), name, **settings)


@config.command("delete")
def config_delete(context: typer.Context, name: str) -> None:
    """Remove a saved config."""
    configs.delete(_ws(context), name)


@job.command("start")
@_with_settings
def job_start(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.")],
    saved: Annotated[str | None, typer.Option("--config", help="A saved config.")] = None,
    held_out: Annotated[float, typer.Option(help="Share of rows held out; 0 for none.")] = 0.1,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Start a job and return at once; it goes on without this shell."""
    from ftlab_kit import trainers

    ws = _ws(context)
    made = configs.get(ws, saved).but(**settings) if saved else Config(**settings)
    if held_out:
        train, side = datasets.split(ws, dataset, held_out=held_out, seed=made.seed)
        _print(trainers.start(ws, made, train, held_out=side), as_json)
    else:
        _print(trainers.start(ws, made, dataset), as_json)


@job.command("preflight")
@_with_settings
def job_preflight(
    context: typer.Context, dataset: str, as_json: Json = False, **settings: Any
) -> None:
    """Look at rows, tokens and machine without starting; exit 1 if a check fails."""
    from ftlab_kit import trainers

    checks = trainers.preflight(_ws(context), Config(**settings), dataset)
    _print(checks, as_json)
    if not all(check.is_ok for check in checks):
        raise typer.Exit(1)


@job.command("list")
def job_list(context: typer.Context, as_json: Json = False) -> None:
    """List all jobs, the newest first."""
    from ftlab_kit import trainers

    _print(trainers.list(_ws(context)), as_json)


@job.command("status")
def job_status(context: typer.Context, number: JobId, as_json: Json = False) -> None:
    """Show a job as it is now."""
    from ftlab_kit import trainers

    _print(trainers.status(_ws(context), number), as_json)


@job.command("wait")
def job_wait(
    context: typer.Context,
    number: JobId,
    timeout_s: Annotated[float | None, typer.Option(help="Give up after so long.")] = None,
) -> None:
    """Follow a job to its end; exit 0 only if it is completed."""
    from ftlab_kit import trainers

    def progress(found: Job) -> None:
        Out.print(f"job {found.id} {found.state} step {found.step} of {show(found.total_steps)}")

    found = trainers.wait(_ws(context), number, timeout_s=timeout_s, progress=progress)
    if found.state != "completed":
        raise typer.Exit(1)


@job.command("cancel")
def job_cancel(context: typer.Context, number: JobId, as_json: Json = False) -> None:
    """End a job for good; its checkpoints are kept."""
    from ftlab_kit import trainers

    _print(trainers.cancel(_ws(context), number), as_json)


@job.command("logs")
def job_logs(context: typer.Context, number: JobId, last: int = 50) -> None:
    """Print the last lines of what the worker said."""
    from ftlab_kit import trainers

    print(trainers.logs(_ws(context), number, last=last))


@job.command("metrics")
def job_metrics(context: typer.Context, number: JobId, as_json: Json = False) -> None:
    """List what was measured at each step."""
    from ftlab_kit import trainers

    _print(trainers.metrics(_ws(context), number), as_json)


@job.command("checkpoints")
def job_checkpoints(context: typer.Context, number: JobId, as_json: Json = False) -> None:
    """List the checkpoints that are kept."""
    from ftlab_kit import trainers

    _print(trainers.checkpoints(_ws(context), number), as_json)


@job.command("events")
def job_events(context: typer.Context, number: JobId, as_json: Json = False) -> None:
    """List the commands that the job was given."""
    from ftlab_kit import trainers

    _print(trainers.events(_ws(context), number), as_json)


@evaluation.command("run")
def evaluation_run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A model's name, or a job's number.")],
    dataset: Annotated[str, typer.Argument(help="A dataset's name, or a version's number.")],
    metrics: Annotated[str, typer.Option(help="Names with commas.")] = "perplexity,bleu",
    as_json: Json = False,
) -> None:
    """Score a model on a dataset."""
    from ftlab_kit import evaluators

    def progress(what: str, done: int, total: int) -> None:
        Console(stderr=True).print(f"{what}: {done} of {total} rows")

    found = evaluators.run(
        _ws(context),
        int(target) if target.isdigit() else target,
        int(dataset) if dataset.isdigit() else dataset,
        metrics=metrics.split(","),
        progress=progress,
    )
    _print(found if as_json else [found], as_json)


@evaluation.command("list")
def evaluation_list(context: typer.Context, as_json: Json = False) -> None:
    """List all evaluations."""
    from ftlab_kit import evaluators

    _print(evaluators.list(_ws(context)), as_json)


@notebook.command("list")
def notebook_list(as_json: Json = False) -> None:
    """List the notebooks."""
    names = notebooks.list()
    print(json.dumps(names) if as_json else "\n".join(names))


@notebook.command("run")
def notebook_run(
    context: typer.Context,
    name: str,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="name=value; repeatable.")
    ] = None,
) -> None:
    """Execute a notebook headless in the workspace; exit 2 for a wrong parameter."""

    def progress(done: int, total: int, heading: str, seconds: float) -> None:
        Out.print(f"cell {done:>2} of {total}  {seconds:6.1f} s  {heading}")

    given = dict(_pair(item) for item in parameter or [])
    print(notebooks.run(_ws(context), name, given, progress=progress))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"The parameter {text!r} has no '='; expected name=value.")
    return name, value


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the command line; say an error of the kit in its own words."""
    try:
        app(args=list(arguments) if arguments is not None else None)
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)


if __name__ == "__main__":
    main()

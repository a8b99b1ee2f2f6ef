"""Make the READMEs' pictures with the real model, in a real JupyterLab.

    python -m tests.pictures FOLDER

Takes about ten minutes on two cores: it trains the shipped model of 135 million parameters on the
shipped rows three times; its answers are sentences that a person can read.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab_kit import Workspace, configs, datasets, evaluators, graphs, models, trainers
from ftlab_kit.records import Job
from tests.front_end import browser, open_notebook, run, served, write_notebook

MODEL = "smollm2-135m-instruct"
CONFIG = configs.preset(
    "hundreds",
    model=MODEL,
    epochs=0.5,
    learning_rate=2e-3,
    max_length=320,
    eval_every_steps=3,
    sample_every_steps=9,
)


@dataclass(frozen=True)
class Scene:
    """A notebook's cells, what shows that it is ready, and what is done before the picture."""

    name: str
    cells: list[str]
    ready: str
    act: Callable[[Any], None] = lambda page: None


def main(folder: Path) -> None:
    """Train, judge and load; then open each widget in a browser and take its picture."""
    with tempfile.TemporaryDirectory() as scratch:
        ws, root = Workspace(f"{scratch}/lab"), Path(scratch)
        models.pull(ws, MODEL)
        data = datasets.add(ws, datasets.PUDDLE_AND_PINE)
        train, held_out = datasets.split(ws, data, held_out=0.08)
        slow, fast = (
            trainers.wait(ws, trainers.start(ws, config, train, held_out=held_out))
            for config in (CONFIG.but(learning_rate=5e-4), CONFIG)
        )
        settings: dict[str, Any] = {"metrics": ["perplexity", "bleu", "chrf"], "max_rows": 16}
        before, after = (evaluators.run(ws, model, held_out, **settings) for model in (MODEL, fast))
        faults = datasets.add(ws, datasets.TWELVE_FAULTS, name="support", strict=False)
        graphs.load(ws, graphs.SAMPLES / "models.md")
        scenes = [
            Scene("verdict", _verdict(before.id, after.id), 'img[alt^="differences:"]'),
            Scene("jobs", ["widgets.jobs(ws)"], "svg", _compare(slow, fast)),
            Scene("datasets", [_inspector(faults.id)], "text=row 4", _quality),
            Scene("graph", ['widgets.explorer(ws, "GPT-5 Mini")'], ".ftlab-graph .node"),
        ]
        with served(root) as address, browser(root) as context:
            for scene in scenes:
                _take(_opened(context, root, address, ws, scene), scene, folder)
            job = trainers.start(ws, CONFIG.but(epochs=4.0), train, held_out=held_out)
            _steer_and_take(context, root, address, ws, job, folder)
        ws.close()


def _take(page: Any, scene: Scene, folder: Path) -> None:
    """Wait until a scene is ready, act in it, and take its picture."""
    page.wait_for_selector(scene.ready, timeout=180_000)
    scene.act(page)
    page.wait_for_timeout(1_500)
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").screenshot(
        path=folder / f"{scene.name}.png"
    )
    page.close()


def _steer_and_take(
    context: Any, root: Path, address: str, ws: Workspace, job: Job, folder: Path
) -> None:
    """Take the live view of a job that is adjusted and checkpointed on the way."""
    trainers.wait(ws, job, until_step=20)
    scene = Scene("live_view", [f"widgets.trainer(ws, {job.id})"], 'svg[aria-label^="loss: "]')
    page = _opened(context, root, address, ws, scene)
    page.set_viewport_size({"width": 1180, "height": 1240})
    page.wait_for_selector(scene.ready, timeout=180_000)
    trainers.adjust(ws, job, learning_rate=1e-3)
    trainers.wait(ws, job, until_step=60)
    trainers.checkpoint(ws, job)
    trainers.wait(ws, job, until_step=66)
    page.get_by_role("tab", name="events").click()
    page.wait_for_timeout(3_000)
    page.screenshot(path=folder / "live_view.png")
    trainers.cancel(ws, job)


def _opened(context: Any, root: Path, address: str, ws: Workspace, scene: Scene) -> Any:
    """Return a page in which a scene's notebook was opened and run."""
    write_notebook(root / f"{scene.name}.ipynb", ws, *scene.cells)
    page = context.new_page()
    open_notebook(page, address, f"{scene.name}.ipynb")
    run(page)
    return page


def _verdict(before: int, after: int) -> list[str]:
    return [
        f"from ftlab_kit import evaluators\nwidgets.comparison(ws, {before}, {after}, n_samples=1)",
        f"widgets.verdict(evaluators.compare(ws, {before}, {after}), n_rows=1)",
    ]


def _inspector(version: int) -> str:
    return f'widgets.inspector(ws, {version}, model="{MODEL}", max_length=160)'


def _quality(page: Any) -> None:
    page.get_by_role("tab", name="quality").click()
    page.wait_for_selector('svg[aria-label^="length:"]', timeout=60_000)


def _compare(*jobs: Job) -> Callable[[Any], None]:
    """Return what ticks these jobs and compares them."""

    def act(page: Any) -> None:
        for job in jobs:
            page.get_by_label(f"job {job.id}", exact=True).check()
        page.get_by_role("button", name="Compare").click()
        page.wait_for_selector("th:has-text('measure')", timeout=60_000)

    return act


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

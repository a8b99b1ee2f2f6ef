"""Make the READMEs' pictures with the real model, in a real JupyterLab.

    python -m tests.pictures FOLDER WORKSPACE

In a workspace without a job it first runs the quick start, which trains the shipped model of 135
million parameters on the shipped chats; so the pictures' answers are sentences that a person can
read.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab_kit import Workspace, datasets, evaluators, graphs, notebooks, trainers
from tests.front_end import browser, open_notebook, run, served, write_notebook

WIDTH, HEIGHT = 1180, 1240


@dataclass(frozen=True)
class Scene:
    """A notebook's cells, what shows that it is ready, and what is done before the picture."""

    name: str
    cells: list[str]
    ready: str
    act: Callable[[Any], None] = lambda page: None


def main(folder: Path, place: str) -> None:
    """Open each widget in a browser and take its picture."""
    ws = Workspace(place)
    if not trainers.list(ws):
        notebooks.quickstart(ws)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        with served(root) as address, browser(root) as context:
            for scene in scenes(ws):
                _take(context, root, address, place, scene, folder)


def scenes(ws: Workspace) -> list[Scene]:
    """Return what is shown of the quick start's workspace, and of the shipped samples."""
    job = trainers.list(ws)[-1]
    before, after = sorted(evaluation.id for evaluation in evaluators.list(ws))[:2]
    faults = datasets.add(ws, datasets.TWELVE_FAULTS, name="support", strict=False)
    graphs.load(ws, graphs.SAMPLES / "models.md", embedder="hash")
    comparison = f"widgets.comparison(ws, {before}, {after}, n_samples=1)"
    verdict = f"widgets.verdict(evaluators.compare(ws, {before}, {after}), n_rows=1)"
    inspector = f'widgets.inspector(ws, {faults.id}, model="{job.model}", max_length=160)'
    return [
        Scene("live_view", [f"widgets.trainer(ws, {job.id})"], 'svg[aria-label^="loss: "]'),
        Scene(
            "verdict",
            [f"from ftlab_kit import evaluators\n{comparison}", verdict],
            'img[alt^="differences:"]',
        ),
        Scene("datasets", [inspector], "text=row 4", _open_quality),
        Scene("graph", ['widgets.explorer(ws, "SmolLM2 135M Instruct")'], ".ftlab-graph .node"),
    ]


def _take(context: Any, root: Path, address: str, place: str, scene: Scene, folder: Path) -> None:
    """Run a scene's notebook, wait until it is ready, act in it, and take its picture."""
    write_notebook(root / f"{scene.name}.ipynb", place, *scene.cells)
    page = context.new_page()
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    open_notebook(page, address, f"{scene.name}.ipynb")
    run(page)
    page.wait_for_selector(scene.ready, timeout=300_000)
    scene.act(page)
    page.wait_for_timeout(2_000)
    box = page.locator(".jp-OutputArea").last.bounding_box()
    height = min(HEIGHT, box["y"] + box["height"] + 24)
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
    page.screenshot(path=folder / f"{scene.name}.png", clip=clip)
    page.close()


def _open_quality(page: Any) -> None:
    page.get_by_role("tab", name="quality").click()
    page.wait_for_selector('svg[aria-label^="length:"]', timeout=120_000)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2])

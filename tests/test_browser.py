"""The widgets in a real JupyterLab and Notebook 7, seen and clicked in a real browser.

FTLAB_PICTURES=FOLDER keeps the pictures that the README shows.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from ftlab_kit import Workspace, datasets, evaluators, notebooks, trainers
from ftlab_kit.records import Job
from tests import front_end
from tests.conftest import TINY
from tests.front_end import (
    browser,
    kernels,
    moving,
    open_notebook,
    run,
    served,
    write_notebook,
)

pytestmark = front_end.needs_a_browser
CLICKS = 20
EXECUTED = """number => window.jupyterapp.shell.currentWidget.content.widgets[number]
    .model.executionCount !== null"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A JupyterLab for many tests: its folder and address."""
    folder = tmp_path_factory.mktemp("server")
    with served(folder) as address:
        yield folder, address


@pytest.fixture
def seen(server: tuple[Path, str]) -> front_end.Seen:
    """The requests and console errors of the test's page."""
    return front_end.Seen(server[1])


@pytest.fixture
def page(server: tuple[Path, str], seen: front_end.Seen) -> Iterator[Any]:
    """A page of a fresh browser that sends no request outside and logs no error."""
    with browser(server[0]) as context:
        yield seen.watch(context.new_page())
    assert seen.outside() == []
    assert seen.errors == []


@pytest.fixture
def long(lab: Workspace) -> Iterator[Job]:
    """A job that runs on until it is cancelled."""
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    config = TINY.but(max_steps=50_000, save_every_steps=50_000, eval_every_steps=20)
    job = trainers.start(lab, config, train, held_out=held_out)
    yield trainers.wait(lab, job, until_step=30, timeout_s=180)
    if not trainers.status(lab, job).is_over:
        trainers.cancel(lab, job)


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[Any, str], None]:
    """Keep a picture of a page, or of a part of it, under a name."""
    folder = Path(os.environ.get("FTLAB_PICTURES", tmp_path)).absolute()

    def take(part: Any, name: str) -> None:
        part.screenshot(path=folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 10_000

    return take


def opened(page: Any, server: tuple[Path, str], name: str, ws: Workspace, *shown: str) -> None:
    """Open a notebook of these cells and run it."""
    write_notebook(server[0] / name, ws, *shown)
    open_notebook(page, server[1], name)
    run(page)


def until_state(ws: Workspace, job: Job, state: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while trainers.status(ws, job).state != state:
        assert time.monotonic() < deadline, trainers.status(ws, job)
        time.sleep(0.1)


def test_the_live_view_is_watched_adjusted_paused_and_resumed(
    page: Any, server: tuple[Path, str], lab: Workspace, long: Job, keep: Callable
):
    opened(page, server, "live.ipynb", lab, f"widgets.trainer(ws, {long.id})")
    moving(page)
    page.get_by_role("tab", name="adjust").click()
    rate = page.get_by_label("learning_rate")
    rate.fill("2e-3")
    rate.press("Enter")
    page.get_by_role("button", name="Adjust").click()
    page.wait_for_selector("text=confirmed: adjust at step", timeout=30_000)
    (event,) = trainers.events(lab, long)
    assert event.result == {"learning_rate": [0.01, 0.002]}
    page.wait_for_selector("svg >> text=adjust at step", state="attached", timeout=30_000)

    page.get_by_role("button", name="Checkpoint now").click()
    page.wait_for_selector("text=confirmed: checkpoint at step", timeout=30_000)
    page.get_by_role("tab", name="checkpoints").click()
    page.wait_for_selector("td:visible:has-text('–')", timeout=30_000)
    page.set_viewport_size({"width": 1180, "height": 1240})
    page.get_by_role("tab", name="events").click()
    page.locator("b:has-text('is running')").scroll_into_view_if_needed()
    keep(page, "live_view")

    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("text=confirmed: paused at step", timeout=30_000)
    assert trainers.status(lab, long).state == "paused"
    page.get_by_role("button", name="Resume").click()
    until_state(lab, long, "running", 120)
    moving(page)
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=confirmed: cancelled", timeout=30_000)
    assert trainers.status(lab, long).state == "cancelled"


def test_sliders_smooth_the_loss_and_choose_the_steps(
    page: Any, server: tuple[Path, str], lab: Workspace, long: Job
):
    opened(page, server, "sliders.ipynb", lab, f"widgets.trainer(ws, {long.id})")
    moving(page)
    page.wait_for_selector('svg[aria-label^="loss: smoothed"]')
    knob = page.get_by_role("slider").first
    knob.focus()
    for _ in range(40):
        knob.press("ArrowLeft")
    page.wait_for_selector('svg[aria-label^="loss: training from"]', timeout=20_000)
    last = page.get_by_role("slider").nth(2)
    last.focus()
    last.press("Home")
    page.wait_for_function(
        "() => [...document.querySelectorAll('svg[aria-label^=\"loss: \"]')]"
        ".some(svg => !svg.getAttribute('aria-label').includes('held out'))",
        timeout=20_000,
    )


def test_reload_restart_and_a_killed_kernel_leave_job_and_history(
    page: Any, seen: front_end.Seen, server: tuple[Path, str], lab: Workspace, long: Job
):
    first_loss = trainers.metrics(lab, long)[0].loss or 0
    opened(page, server, "again.ipynb", lab, f"widgets.trainer(ws, {long.id})")
    moving(page)
    run(page, "docmanager:save")
    page.wait_for_timeout(1000)
    page.reload()
    page.wait_for_selector(".jp-NotebookPanel", timeout=60_000)
    print(f"after a reload the curve was back and moving in {moving(page):.1f} s")

    assert seen.errors == []
    worker = trainers.status(lab, long).worker_pid
    mine = kernels(server[1])[-1]["id"]
    for process in psutil.process_iter(["cmdline"]):
        if any(mine in part for part in process.info["cmdline"] or ()):
            process.send_signal(signal.SIGKILL)
    before = trainers.status(lab, long).step
    trainers.wait(lab, long, until_step=before + 5, timeout_s=60)
    assert trainers.status(lab, long).worker_pid == worker
    page.locator(".jp-Dialog").get_by_role("button").last.click(timeout=60_000)  # it has died
    page.wait_for_function(front_end.IDLE, timeout=90_000)
    run(page, "notebook:clear-all-cell-outputs")
    run(page)
    moving(page)
    page.wait_for_selector(f'svg[aria-label*="raw from {first_loss:.4g}"]', timeout=20_000)
    seen.errors.clear()  # that a kernel has died is an error to JupyterLab


def test_two_browsers_see_the_same_job_and_each_others_clicks(
    page: Any, server: tuple[Path, str], lab: Workspace, long: Job
):
    opened(page, server, "one.ipynb", lab, f"widgets.trainer(ws, {long.id})")
    moving(page)
    # a second client of the same browser engine: its own cookies, its own kernel
    other = page.context.browser or page.context
    second = other.new_page()
    opened(second, server, "two.ipynb", lab, f"widgets.trainer(ws, {long.id})")
    moving(second)
    second.get_by_role("button", name="Pause").click()
    page.wait_for_selector("b:has-text('is paused')", timeout=30_000)
    second.close()


@pytest.fixture(scope="module")
def kernel_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that fetches a version of ipykernel once, and returns its folder."""

    def fetch(version: str) -> Path:
        folder = tmp_path_factory.mktemp("ipykernel") / version
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
        done = subprocess.run(
            [*command, str(folder), f"ipykernel=={version}"], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"ipykernel {version} can't be fetched here")
        return folder

    return fetch


@pytest.mark.parametrize("version", ["7.3.0", "7.4.0"])
def test_after_a_reload_every_click_arrives(
    version: str, kernel_of: Callable, lab: Workspace, long: Job, tmp_path: Path
):
    named = "import ipykernel; print('kernel', ipykernel.__version__)"
    with served(tmp_path, path=kernel_of(version)) as address, browser(tmp_path) as context:
        page = context.new_page()
        opened(page, (tmp_path, address), "c.ipynb", lab, named, f"widgets.trainer(ws, {long.id})")
        moving(page)
        assert page.locator(f"text=kernel {version}").count() == 1
        for _ in range(2):  # the second reload is another client still
            run(page, "docmanager:save")
            page.wait_for_timeout(1000)
            page.reload()
            moving(page)
        took = []
        for number in range(1, CLICKS + 1):
            began = time.monotonic()
            page.get_by_role("button", name="Checkpoint now").click()
            while len(trainers.events(lab, long)) < number:
                assert time.monotonic() - began < 20, f"click {number} was lost"
                time.sleep(0.01)
            took.append(time.monotonic() - began)
            page.wait_for_selector("text=confirmed: checkpoint at step", timeout=30_000)
        print(
            f"ipykernel {version}: {len(took)} of {CLICKS} clicks, median {sorted(took)[10]:.2f} s"
        )
        assert sorted(took)[CLICKS // 2] < 0.5


def test_the_quick_start_runs_cell_by_cell(page: Any, server: tuple[Path, str], tmp_path: Path):
    given = {"workspace": str(tmp_path / "lab"), "model": "tiny", "epochs": 0.1}
    book = nbformat.read(notebooks.path("00_quickstart"), as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    values = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    cells[0].source += f"\n{values}\nmax_new_tokens = 4"
    nbformat.write(book, server[0] / "quick.ipynb")
    open_notebook(page, server[1], "quick.ipynb")
    for number, cell in enumerate(book.cells):
        run(page, "notebook:run-cell-and-select-next")
        if cell.cell_type == "code":
            page.wait_for_function(EXECUTED, arg=number, timeout=120_000)
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    ws = Workspace(given["workspace"])
    (job,) = trainers.list(ws)
    assert job.state == "completed"
    assert [item.job_id for item in evaluators.list(ws)] == [None, job.id]
    ws.close()


def test_a_job_is_started_by_the_form_and_the_keyboard(
    page: Any, server: tuple[Path, str], lab: Workspace, keep: Callable
):
    config = TINY.but(max_steps=50_000, save_every_steps=50_000)
    before = len(trainers.list(lab))
    opened(
        page, server, "form.ipynb", lab,
        "from ftlab_kit.configs import Config\n"
        f"widgets.trainer(ws, config=Config(**{config.model_dump()!r}))",
    )  # fmt: skip
    train, _ = datasets.split(lab, "hues", held_out=0.3)
    rows = f"hues, train, {train.n_rows} rows (version {train.id})"
    page.get_by_label("dataset", exact=True).select_option(rows, timeout=60_000)
    page.get_by_role("button", name="Estimate").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("text=what it will take", timeout=60_000)
    keep(page.locator(".jp-OutputArea").last, "form")
    page.keyboard.press("Tab")  # from Estimate to Start
    page.keyboard.press("Enter")
    moving(page)
    job = trainers.list(lab)[0]
    assert (len(trainers.list(lab)), job.model) == (before + 1, "tiny")
    assert trainers.cancel(lab, job).state == "cancelled"


def test_a_dataset_is_inspected(page: Any, server: tuple[Path, str], ws: Workspace, keep: Callable):
    first = datasets.add(ws, datasets.TWELVE_FAULTS, name="support", strict=False)
    datasets.redact(ws, first)
    lens = 'widgets.mask(ws, "support", "tiny", max_length=90)'
    inspector = f'widgets.inspector(ws, {first.id}, model="tiny", max_length=160)'
    opened(page, server, "look.ipynb", ws, lens, inspector)
    page.wait_for_selector('svg[aria-label^="row 0 in"]', timeout=60_000)
    row = page.get_by_role("spinbutton", name="row").first
    row.fill("2")
    row.press("Enter")
    page.wait_for_selector('svg[aria-label^="row 2 in"]', timeout=30_000)

    page.wait_for_selector("text=row 4", timeout=60_000)
    page.get_by_role("button", name="Next", exact=True).click()
    page.wait_for_selector("text=row 9", timeout=30_000)
    page.get_by_role("tab", name="problems").click()
    page.get_by_role("option", name="line 9: messages[0].role is 'customer'").click()
    page.wait_for_selector("pre:visible:has-text('Do you mend zips?')", timeout=30_000)
    page.get_by_role("tab", name="quality").click()
    page.wait_for_selector('svg[aria-label^="length: 63 from"]', timeout=30_000)
    page.get_by_role("tab", name="changes").click()
    page.get_by_label("since").select_option("version 2, all, 63 rows")
    page.wait_for_selector("del:has-text('[E-MAIL]')", timeout=30_000)
    keep(page, "datasets")


def test_jobs_are_listed_compared_and_opened(
    page: Any, server: tuple[Path, str], lab: Workspace, keep: Callable
):
    train, held_out = datasets.split(lab, "hues", held_out=0.3)
    started = trainers.start(lab, TINY, train, held_out=held_out)
    job = trainers.wait(lab, started, timeout_s=120)
    other = trainers.start(lab, TINY.but(learning_rate=1e-3, max_steps=8), "hues")
    trainers.wait(lab, other, timeout_s=120)
    opened(page, server, "jobs.ipynb", lab, "widgets.jobs(ws)")
    page.wait_for_selector(f'svg[aria-label^="loss of job {other.id} from"]', timeout=60_000)
    page.get_by_label(f"job {job.id}", exact=True).check()
    page.get_by_label(f"job {other.id}", exact=True).check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("th:has-text('measure')", timeout=30_000)
    keep(page, "jobs")
    page.get_by_label(f"job {job.id}", exact=True).uncheck()
    page.get_by_role("button", name="Open").click()
    page.wait_for_selector("b:has-text('is completed')", timeout=30_000)


def test_two_models_are_compared_by_scores_answers_and_a_verdict(
    page: Any, server: tuple[Path, str], lab: Workspace, job: Job, keep: Callable
):
    options: dict[str, Any] = {"metrics": ["perplexity", "chrf", "lengths"], "max_new_tokens": 8}
    before, after = (evaluators.run(lab, target, "hues", **options) for target in ("tiny", job))
    both = f"{before.id}, {after.id}"
    opened(
        page, server, "verdict.ipynb", lab,
        f"from ftlab_kit import evaluators\nwidgets.comparison(ws, {both}, n_samples=1)",
        f"widgets.verdict(evaluators.compare(ws, {both}), n_rows=2)",
        f"widgets.answers(ws, {both})",
    )  # fmt: skip
    page.wait_for_selector("th:has-text('score, with its 95% interval')", timeout=60_000)
    page.wait_for_selector('img[alt^="differences:"]', timeout=60_000)
    keep(page, "verdict")
    page.get_by_label("rows", exact=True).select_option("most changed by chrf")
    page.get_by_label("page", exact=True).fill("2")
    page.get_by_label("page", exact=True).press("Enter")
    page.wait_for_selector("ins", timeout=30_000)


def test_two_models_answer_side_by_side(
    page: Any, server: tuple[Path, str], lab: Workspace, job: Job, keep: Callable
):
    opened(page, server, "talk.ipynb", lab, f"widgets.playground(ws, {job.id})")
    page.wait_for_selector("text=2 of 2 models are ready", timeout=120_000)
    page.get_by_label("max_new_tokens").fill("12")
    page.get_by_label("message").fill("What colour is <b>snow</b>?")
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector("span[role=status]:has-text('answered')", timeout=60_000)
    assert page.locator("text=/12 tokens, .* tokens\\/s/").count() == 2
    assert page.locator("b:text-is('snow')").count() == 0
    keep(page, "playground")


def test_in_the_dark_theme_text_is_light(
    page: Any, server: tuple[Path, str], lab: Workspace, job: Job, keep: Callable
):
    opened(page, server, "dark.ipynb", lab, f"widgets.trainer(ws, {job.id})")
    page.wait_for_selector('svg[aria-label^="loss: "]', timeout=60_000)
    theme = "{theme: 'JupyterLab Dark'}"
    page.evaluate(f"() => window.jupyterapp.commands.execute('apputils:change-theme', {theme})")
    page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached", timeout=30_000)
    fill = "node => getComputedStyle(node).fill.match(/\\d+/g).map(Number)"
    light = page.locator('svg[aria-label^="loss: "] text').first.evaluate(fill)
    assert min(light[:3]) > 180
    page.wait_for_timeout(2_000)  # the splash of the change
    keep(page, "dark")


def test_in_notebook_7_the_view_moves_and_takes_clicks(lab: Workspace, long: Job, tmp_path: Path):
    pytest.importorskip("notebook", reason="Notebook 7 is not installed: pip install notebook")
    write_notebook(tmp_path / "seven.ipynb", lab, f"widgets.trainer(ws, {long.id})")
    with served(tmp_path, app="notebook") as address, browser(tmp_path) as context:
        seen = front_end.Seen(address)
        page = seen.watch(context.new_page())
        page.goto(f"{address}/notebooks/seven.ipynb?token=t")
        page.wait_for_function(front_end.IDLE, timeout=90_000)
        run(page)
        moving(page)
        page.get_by_role("button", name="Pause").click()
        page.wait_for_selector("text=confirmed: paused at step", timeout=30_000)
    assert trainers.status(lab, long).state == "paused"
    assert seen.outside() == []


def test_a_saved_report_is_complete_and_accessible(lab: Workspace, job: Job, tmp_path: Path):
    from nbconvert import HTMLExporter

    book = nbformat.v4.new_notebook()
    shown = [trainers_report(lab, job)]
    book.cells = [nbformat.v4.new_markdown_cell("# Report\n\n## Of a job"), *shown]
    text, _ = HTMLExporter().from_notebook_node(book)
    (tmp_path / "report.html").write_text(text)
    with browser(tmp_path) as context:
        page = context.new_page()
        page.route("**/*", lambda route: _only_files(route))
        page.goto(f"file://{tmp_path / 'report.html'}")
        images = page.locator("img[alt]")
        assert images.count() == 6
        assert images.first.evaluate("node => node.naturalWidth") == 420
        assert complaints(page) == []


def trainers_report(ws: Workspace, job: Job) -> Any:
    from ftlab_kit import widgets

    shown = widgets.report(ws, job)
    data = {"text/html": shown._repr_html_(), "text/plain": repr(shown)}
    cell = nbformat.v4.new_code_cell("widgets.report(ws, job)")
    cell.outputs = [nbformat.v4.new_output("execute_result", data)]
    return cell


def _only_files(route: Any) -> None:
    """Let only files through: nbconvert's page would load MathJax from a CDN."""
    if route.request.url.startswith("file:"):
        route.continue_()
    else:
        route.abort()


def test_the_live_view_is_accessible(page: Any, server: tuple[Path, str], lab: Workspace, job: Job):
    opened(page, server, "axe.ipynb", lab, f"widgets.trainer(ws, {job.id})")
    page.wait_for_selector('svg[aria-label^="loss: "]', timeout=60_000)
    # the handles of ipywidgets' sliders have no names, and a kernel can't give them any
    assert [item for item in complaints(page) if "noUi-handle" not in item] == []


def complaints(page: Any) -> list[str]:
    """Return what axe-core finds wrong with the outputs of a page."""
    from axe_playwright_python.sync_playwright import Axe

    inside = {"include": [[".jp-OutputArea-output"]]}
    violations = Axe().run(page, context=inside).response["violations"]
    return [f"{item['id']}: {node['html']}" for item in violations for node in item["nodes"]]

"""The live view in a real JupyterLab, seen by a real browser.

Chromium comes from the system (Debian: apt-get install chromium); without it these tests say so.
FTLAB_PICTURE=FILE.png keeps a picture of the view.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat.v4 as nb
import pytest

from ftlab_kit import Workspace, datasets, trainers
from tests.conftest import TINY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
NEWS = "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
IDLE = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status==='idle'"
EXECUTE = "id => { window.jupyterapp.commands.execute(id) }"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    # the browser's client leaves its event loop to the interpreter's end
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def own_settings(folder: Path) -> dict[str, str]:
    """An environment in which Jupyter knows nothing of this user, and asks for no news."""
    news = folder / NEWS
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    return {**os.environ, **own, "IPYTHONDIR": str(folder / "ipython")}


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """A server with settings of its own; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser"]
    command += [f"--port={port}", "--ip=127.0.0.1", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=t", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env=own_settings(folder), stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status?token=t", timeout=1).close()
                break
            except (urllib.error.URLError, TimeoutError):
                assert time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


@contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """A page of a fresh Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=CHROMIUM,
            headless=True,
            viewport={"width": 1180, "height": 1000},
            args=FLAGS,
        )
        yield context.new_page()
        context.close()


def open_notebook(page: Any, address: str, name: str) -> None:
    page.goto(f"{address}/lab?token=t&reset")
    page.wait_for_selector(".jp-Launcher", timeout=60_000)
    page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', {path}) }", name)
    page.wait_for_function(IDLE, timeout=60_000)


def shown_step(page: Any) -> int:
    words = page.locator('[role="status"]', has_text="step").first.inner_text()
    return int(words.split("step ")[1].split(" ")[0])


def write_notebook(path: Path, ws: Workspace, *shown: str) -> None:
    """Write a notebook that opens the workspace and shows some widgets, a cell each."""
    begin = f'from ftlab_kit import Workspace, widgets\nws = Workspace("{ws.root}")'
    book = nb.new_notebook(cells=[nb.new_code_cell(code) for code in (begin, *shown)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    path.write_text(json.dumps(book))


def shown_moving(page: Any) -> int:
    """Wait until the view is drawn, see that it moves, and return its step."""
    page.wait_for_selector('svg[aria-label^="loss: training from"]', timeout=60_000)
    first = shown_step(page)
    page.wait_for_timeout(3000)
    assert shown_step(page) > first
    return first


def test_the_live_view_survives_reload_and_restart_and_cancels(lab: Workspace, tmp_path: Path):
    job = trainers.start(lab, TINY.but(max_steps=3000, save_every_steps=1000), "hues")
    trainers.wait(lab, job, until_step=2, timeout_s=120)
    write_notebook(tmp_path / "live.ipynb", lab, f"widgets.trainer(ws, {job.id})")
    requests: list[str] = []
    with jupyter_lab(tmp_path) as address, browser(tmp_path) as page:
        page.on("request", lambda request: requests.append(request.url))
        open_notebook(page, address, "live.ipynb")
        page.evaluate(EXECUTE, "notebook:run-all-cells")
        first = shown_moving(page)

        page.evaluate(EXECUTE, "docmanager:save")
        page.wait_for_timeout(1000)
        page.reload()
        again = shown_moving(page)
        assert again > first

        page.evaluate(EXECUTE, "kernelmenu:restart")
        page.get_by_role("button", name="Confirm Kernel Restart").click()
        page.wait_for_function(IDLE, timeout=60_000)
        page.evaluate(EXECUTE, "notebook:run-all-cells")
        assert shown_moving(page) > again

        page.get_by_role("button", name="Cancel").click()
        page.wait_for_selector('text="cancelled"', timeout=30_000)
        page.screenshot(path=os.environ.get("FTLAB_PICTURE", tmp_path / "live.png"))
    assert trainers.status(lab, job).state == "cancelled"
    allowed = (address, address.replace("http", "ws"), "data:", "blob:")
    assert [url for url in requests if not url.startswith(allowed)] == []


def test_a_dataset_can_be_looked_into(ws: Workspace, tmp_path: Path):
    first = datasets.add(ws, datasets.TWELVE_FAULTS, name="support", strict=False)
    datasets.redact(ws, first)
    lens = 'widgets.mask(ws, "support", "tiny", max_length=90)'
    inspector = f'widgets.inspector(ws, {first.id}, model="tiny", max_length=160)'
    write_notebook(tmp_path / "look.ipynb", ws, lens, inspector)
    requests: list[str] = []
    with jupyter_lab(tmp_path) as address, browser(tmp_path) as page:
        page.on("request", lambda request: requests.append(request.url))
        open_notebook(page, address, "look.ipynb")
        page.evaluate(EXECUTE, "notebook:run-all-cells")
        page.wait_for_selector('svg[aria-label^="row 0 in"]', timeout=60_000)
        row = page.get_by_role("spinbutton", name="row").first
        row.fill("2")
        row.press("Enter")
        page.wait_for_selector('svg[aria-label^="row 2 in"]', timeout=30_000)

        page.wait_for_selector("text=row 4", timeout=60_000)
        page.get_by_role("button", name="More").click()
        page.wait_for_selector("text=row 9", timeout=30_000)
        page.get_by_role("tab", name="problems").click()
        page.get_by_role("option", name="line 9: messages[0].role is 'customer'").click()
        page.wait_for_selector("pre:visible:has-text('Do you mend zips?')", timeout=30_000)
        page.get_by_role("tab", name="quality").click()
        page.wait_for_selector('svg[aria-label^="length: 63 from"]', timeout=30_000)
        page.get_by_role("tab", name="changes").click()
        page.get_by_label("since").select_option("version 2, all, 63 rows")
        page.wait_for_selector("del:has-text('[E-MAIL]')", timeout=30_000)
        page.screenshot(path=os.environ.get("FTLAB_PICTURE_DATASETS", tmp_path / "look.png"))
    allowed = (address, address.replace("http", "ws"), "data:", "blob:")
    assert [url for url in requests if not url.startswith(allowed)] == []

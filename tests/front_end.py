"""A real JupyterLab or Notebook 7 and a real Chromium, each with a fresh profile, for tests.

Chromium comes from the system (Debian: apt-get install chromium); without it the tests are skipped.
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

from ftlab_kit import Workspace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
NEWS = "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
IDLE = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status==='idle'"
EXECUTE = "id => { window.jupyterapp.commands.execute(id) }"
# by application: its module, and the class that exposes it to the page
APPS = {"lab": ("jupyterlab", "LabApp"), "notebook": ("notebook", "JupyterNotebookApp")}

needs_a_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    # the browser's client leaves its event loop to the interpreter's end
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def own_settings(folder: Path) -> dict[str, str]:
    """Return an environment in which Jupyter has settings of its own and fetches no news."""
    news = folder / NEWS
    news.parent.mkdir(parents=True, exist_ok=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    return {**os.environ, **own, "IPYTHONDIR": str(folder / "ipython")}


@contextmanager
def served(folder: Path, *, app: str = "lab", path: Path | None = None) -> Iterator[str]:
    """Run a server with its own settings; yields its address.

    Args:
        path: Comes first where its kernels look for modules.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module, name = APPS[app]
    command = [sys.executable, "-m", module, "--allow-root", "--no-browser"]
    command += [f"--port={port}", "--ip=127.0.0.1", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=t", f"--ServerApp.root_dir={folder}"]
    command += [f"--{name}.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    command += ["--ServerApp.terminals_enabled=False"]
    env = own_settings(folder) | ({"PYTHONPATH": str(path)} if path else {})
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
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


class Seen:
    """The requests and console errors of a page."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: list[str] = []
        self.errors: list[str] = []

    def watch(self, page: Any) -> Any:
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self._note(message))
        return page

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def outside(self) -> list[str]:
        """Return the requests that left this machine."""
        own = (self.address, self.address.replace("http", "ws"), "data:", "blob:")
        return [url for url in self.requests if not url.startswith(own)]


@contextmanager
def browser(folder: Path, **options: Any) -> Iterator[Any]:
    """Run a fresh Chromium; yields its context, which makes pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / f"profile-{time.monotonic_ns()}",
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            **{"viewport": {"width": 1180, "height": 1000}, **options},
        )
        yield context
        context.close()


def open_notebook(page: Any, address: str, name: str) -> None:
    """Open a notebook in JupyterLab and wait for its kernel."""
    page.goto(f"{address}/lab?token=t&reset")
    page.wait_for_selector(".jp-Launcher", timeout=90_000)
    page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', {path}) }", name)
    page.wait_for_function(IDLE, timeout=90_000)
    run(page, "application:toggle-left-area")  # more room for the notebook


def run(page: Any, command: str = "notebook:run-all-cells") -> None:
    """Execute a command of the application without waiting for its end."""
    page.evaluate(EXECUTE, command)


def write_notebook(path: Path, ws: Workspace | str, *shown: str) -> None:
    """Write a notebook that opens the workspace and shows widgets, a cell each."""
    place = ws if isinstance(ws, str) else ws.root
    begin = f'from ftlab_kit import Workspace, widgets\nws = Workspace("{place}")'
    book = nb.new_notebook(cells=[nb.new_code_cell(code) for code in (begin, *shown)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    path.write_text(json.dumps(book))


def shown_step(page: Any) -> int:
    """Return the step that a live view shows."""
    text = page.locator('[role="status"]', has_text="step").first.inner_text()
    return int(text.split("step ")[1].split(" ")[0])


def moving(page: Any, *, timeout_s: float = 90) -> float:
    """Wait until a live view is drawn and advances; return how long that took."""
    began = time.monotonic()
    page.wait_for_selector(
        'svg[aria-label^="loss: "][aria-label*=" over "]', timeout=timeout_s * 1e3
    )
    first = shown_step(page)
    while shown_step(page) <= first:
        assert time.monotonic() - began < timeout_s, "the view does not advance"
        page.wait_for_timeout(100)
    return time.monotonic() - began


def kernels(address: str) -> list[dict[str, Any]]:
    """Return the kernels that a server runs."""
    with urllib.request.urlopen(f"{address}/api/kernels?token=t", timeout=10) as answer:
        return list(json.load(answer))

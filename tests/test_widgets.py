import subprocess
import sys

import pytest

from ftlab_kit import Workspace, widgets
from ftlab_kit.records import Job, Metric
from ftlab_kit.widgets import display
from ftlab_kit.widgets.live_view import duration, sentence
from ftlab_kit.widgets.progress_line import Progress


def test_outside_a_notebook_no_one_sits_in_front(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FTLAB_INTERACTIVE", raising=False)
    assert not display.is_interactive()


@pytest.mark.parametrize(("said", "is_there"), [("1", True), ("0", False)])
def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch, said: str, is_there: bool):
    monkeypatch.setenv("FTLAB_INTERACTIVE", said)
    assert display.is_interactive() is is_there


def test_headless_leaves_a_picture_and_no_widget(lab: Workspace, job: Job):
    shown = widgets.trainer(lab, job)
    assert isinstance(shown, display.Html)
    assert shown._repr_html_().count("<img alt=") == 6
    assert "completed" in repr(shown)


def test_a_report_stays_small(lab: Workspace, job: Job):
    assert len(widgets.report(lab, job)._repr_html_()) < 40_000


def test_progress_is_one_line_that_changes_in_place(seated: None, capsys):
    line = widgets.progress()
    line("perplexity", 3, 20)
    line("<answers>", 4, 20)
    assert line.value == '<span role="status">&lt;answers&gt;  4  20</span>'


def test_progress_with_a_share_has_a_bar(seated: None):
    shown = Progress()
    shown("43%", "12 rows")
    assert '<progress value="43" max="100">' in shown.value and "12 rows" in shown.value
    shown("looking")
    assert "<progress" not in shown.value


def test_progress_is_silent_when_headless(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FTLAB_INTERACTIVE", "0")
    widgets.progress()("perplexity", 3, 20)


def test_what_is_not_known_is_a_dash(job: Job):
    assert "loss –" in sentence(job, Metric(step=1))


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (80.4, "1 min 20 s"), (7300, "2 h 1 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str):
    assert duration(seconds) == words


def loaded(code: str) -> tuple[float, set[str]]:
    """The seconds that some code takes in a new process, and the modules that it loads."""
    code = (
        f"import sys, time; began = time.perf_counter(); {code}; "
        "print(time.perf_counter() - began, *sys.modules)"
    )
    seconds, *modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    return float(seconds), {*modules}


def test_importing_the_widgets_is_quick_and_loads_no_ipywidgets():
    seconds, modules = loaded("import ftlab_kit.widgets")
    assert seconds < 0.5
    assert not {"ipywidgets", "torch", "anywidget", "IPython", "numpy"} & modules


def test_a_widget_is_loaded_when_it_is_used():
    _, modules = loaded("from ftlab_kit import widgets; widgets.jobs")
    assert "ftlab_kit.widgets.jobs_view" in modules
    assert "ftlab_kit.widgets.playground_view" not in modules


def test_every_name_stays_a_function_after_every_file_was_imported():
    code = (
        "import pkgutil, importlib; from ftlab_kit import widgets; "
        "files = [item.name for item in pkgutil.iter_modules(widgets.__path__)]; "
        "[importlib.import_module(f'ftlab_kit.widgets.{name}') for name in files]; "
        "print(*(name for name in widgets.__all__ if not callable(getattr(widgets, name))), '.')"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "."
    assert {*widgets.__all__} == {*widgets.FILES}
    assert {*widgets.__all__} <= {*dir(widgets)}


def test_an_unknown_widget_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'ftlab_kit.widgets' has no attribute 'charts'"):
        widgets.charts  # noqa: B018


def test_loading_every_widget_makes_none():
    code = (
        "from ftlab_kit.widgets import *; from ipywidgets.widgets.widget import _instances; "
        "print(len(_instances))"
    )
    # one that is made at import would be kept with every executed notebook
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "0"

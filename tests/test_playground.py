"""The playground: columns to talk to in front of a person, a table of answers in a report."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ipywidgets import Button

from ftlab_kit import Workspace, chats, checkpoints, widgets
from ftlab_kit.errors import InputError, NotFound
from ftlab_kit.records import Job
from ftlab_kit.widgets import chat_column
from ftlab_kit.widgets.chat_column import Column
from ftlab_kit.widgets.display import Html
from ftlab_kit.widgets.playground_view import PlaygroundView
from tests.chat_server import ChatServer, Turns, serving
from tests.conftest import every, text_of, until

Open = Callable[..., PlaygroundView]


def echo(turns: Turns) -> str:
    texts = [turn["content"] for turn in turns if turn["role"] != "system"]
    return f"{len(texts)}. You said: {texts[-1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(echo) as server:
        yield server


@pytest.fixture
def at(seated: None, lab: Workspace) -> Iterator[Open]:
    """Return a function that opens a playground and waits for its models; closes all at the end."""
    opened: list[PlaygroundView] = []

    def opens(*targets: Any, **more: Any) -> PlaygroundView:
        view = widgets.playground(lab, *targets, **more)
        assert isinstance(view, PlaygroundView)
        opened.append(view)
        settle(view)
        return view

    yield opens
    for view in opened:
        view.close()
        until(lambda view=view: all(column.chat_model is None for column in view.columns))


def settle(view: PlaygroundView) -> None:
    until(lambda: not view.send_button.disabled, 120)


def send(view: PlaygroundView, text: str) -> None:
    view.message.value = text
    view.send_button.click()
    settle(view)


def test_a_report_has_a_table_of_answers_to_held_out_prompts(lab: Workspace, job: Job):
    shown = widgets.playground(lab, job)
    assert isinstance(shown, Html)
    assert repr(shown) == f"2 prompts, answered by tiny and by job {job.id}, step 4"
    assert shown._repr_html_().count("What colour is") == 2
    assert shown._repr_html_().count("128 tokens, cut") == 4


def test_a_report_answers_given_prompts(lab: Workspace, server: ChatServer):
    model = f"openai:m@{server.url}"
    shown = widgets.playground(lab, model, "tiny", prompts=["Is 1 < 2?"])
    assert repr(shown) == f"1 prompt, answered by {model} and by tiny"
    assert "1. You said: Is 1 &lt; 2?<br><small>7 tokens</small>" in shown._repr_html_()


def test_a_single_checkpoint_is_shown_beside_its_base_model(lab: Workspace, job: Job):
    shown = widgets.playground(lab, checkpoints.get(lab, job), prompts=["Hi"])
    assert repr(shown).endswith(f"answered by tiny and by job {job.id}, step 4")


def test_a_playground_without_a_model_is_refused(lab: Workspace):
    with pytest.raises(InputError, match="No model was given; expected one or more"):
        widgets.playground(lab)
    with pytest.raises(NotFound, match="There is no job 10000"):
        widgets.playground(lab, 10_000)


def test_base_and_tuned_stand_side_by_side(at: Open, job: Job):
    view = at(job)
    assert [column.label for column in view.columns] == ["tiny", f"job {job.id}, step 4"]
    assert "2 of 2 models are ready" in text_of(view)
    assert view.message.value.startswith("What colour is")


def test_every_model_answers_as_the_verb_does(at: Open, lab: Workspace, job: Job):
    view = at("tiny", job)
    view.max_new_tokens.value = 6
    send(view, "Hi")
    for column, target in zip(view.columns, ("tiny", job), strict=True):
        reply = chats.reply(lab, target, "Hi", max_new_tokens=6, seed=0)
        assert column.turns[-1] == {"role": "assistant", "content": reply.content}
        assert "6 tokens" in text_of(column) and "tokens/s, cut at max_new_tokens" in text_of(
            column
        )
    assert '<span role="status">answered</span>' in text_of(view)
    assert view.message.value == ""


def test_each_model_sees_its_own_earlier_answers(at: Open, server: ChatServer):
    view = at(f"openai:a@{server.url}", f"openai:b@{server.url}", prompts=["Hi"])
    view.system.value = "Be short."
    send(view, "one")
    send(view, "two")
    last = [body["messages"] for body in server.requests if body["model"] == "b"][-1]
    contents = [turn["content"] for turn in last]
    assert contents == ["Be short.", "one", "1. You said: one", "two"]
    assert [column.turns[-1]["content"] for column in view.columns] == ["3. You said: two"] * 2


def test_the_fields_are_sent_as_settings(at: Open, server: ChatServer):
    view = at(f"openai:m@{server.url}")
    view.max_new_tokens.value, view.temperature.value, view.seed.value = 2, 0.5, 7
    send(view, "Hi")
    expected = {"max_tokens": 2, "temperature": 0.5, "seed": 7, "stream": True}
    assert expected.items() <= server.requests[0].items()
    assert "2 tokens" in text_of(view) and "cut at max_new_tokens" in text_of(view)


def test_an_answer_grows_while_it_is_generated(at: Open):
    view = at("tiny")
    seen: list[str] = []
    view.columns[0].now.observe(lambda change: seen.append(change["new"]), "value")
    began = time.monotonic()
    send(view, "Hi")
    lengths = [len(text) for text in seen if text]
    assert lengths == sorted(lengths)
    # the prompt, ten updates a second, the end, and the empty text after it
    assert len(seen) <= 3 + (time.monotonic() - began) / chat_column.REFRESH_S


def test_stop_ends_the_answer_and_skips_the_other_models(at: Open, job: Job):
    view = at("tiny", job)
    view.max_new_tokens.value = 100_000
    view.message.value = "Hi"
    view.send_button.click()
    until(lambda: "<b>tiny</b>" in view.columns[0].now.value)
    assert not view.stop_button.disabled
    view.stop_button.click()
    settle(view)
    assert "stopped; " in text_of(view.columns[0])
    assert "–" not in text_of(view.columns[0])  # tokens of a stopped answer are counted too
    assert view.columns[1].turns == []
    assert '<span role="status">stopped</span>' in text_of(view)
    view.max_new_tokens.value = 3
    send(view, "Again")
    assert len(view.columns[0].turns) == 4


def test_clear_starts_over(at: Open, server: ChatServer):
    view = at(f"openai:m@{server.url}")
    send(view, "one")
    view.clear_button.click()
    until(lambda: "cleared" in text_of(view))
    assert "one" not in text_of(view)
    send(view, "two")
    assert view.columns[0].turns[-1]["content"] == "1. You said: two"


def test_all_text_of_a_conversation_is_escaped(at: Open, server: ChatServer):
    view = at(f"openai:<i>@{server.url}")
    send(view, "<script>alert(1)</script> & more")
    shown = text_of(view)
    assert "<script>" not in shown and "<i>" not in shown
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more") == 2


def test_an_error_is_shown_in_its_own_column_only(at: Open, server: ChatServer):
    view = at(f"openai:none@{server.url}", f"openai:m@{server.url}")
    send(view, "Hi")
    first, second = map(text_of, view.columns)
    assert '<span role="alert">' in first and "The model `none` does not exist" in first
    assert 'role="alert"' not in second and "1. You said: Hi" in second
    assert view.columns[0].turns == []


def test_an_answer_that_breaks_off_is_shown_as_far_as_it_came(at: Open, server: ChatServer):
    server.breaks_after = 3
    view = at(f"openai:m@{server.url}")
    send(view, "Hi")
    assert "broke off its answer" in text_of(view)
    assert view.columns[0].turns[-1]["content"] == "1. You said:"


def test_a_model_that_can_not_be_opened_is_tried_again(at: Open, server: ChatServer):
    view = at("tinny", f"openai:m@{server.url}")
    assert "There is no model &#x27;tinny&#x27;" in text_of(view.columns[0])
    assert "1 of 2 models are ready" in text_of(view)
    view.columns[0].target = f"openai:n@{server.url}"
    send(view, "Hi")
    assert [len(column.turns) for column in view.columns] == [2, 2]
    assert 'role="alert"' not in text_of(view)


def test_an_empty_message_is_not_sent(at: Open, server: ChatServer):
    view = at(f"openai:m@{server.url}")
    send(view, "  ")
    assert "The message is empty" in text_of(view)
    assert not server.requests


def test_every_button_and_field_has_a_label_and_a_tooltip(at: Open):
    view = at("openai:m@http://127.0.0.1:1/v1")
    buttons = [child for child in every(view) if isinstance(child, Button)]
    assert [button.description for button in buttons] == ["Send", "Stop", "Clear"]
    fields = [view.system, view.message, view.max_new_tokens, view.temperature, view.seed]
    assert all(item.tooltip and item.description for item in [*buttons, *fields])


def test_close_frees_the_models(at: Open, job: Job):
    view = at(job)
    models = [column.chat_model for column in view.columns]
    view.close()
    until(lambda: all(model is not None and model.model is None for model in models))


def test_a_column_is_named_after_its_target_before_its_model_is_open(lab: Workspace, job: Job):
    last = checkpoints.get(lab, job)
    labels = [Column(target).label for target in (job, str(job.id), last, "tiny")]
    assert labels == [f"job {job.id}", f"job {job.id}", f"job {job.id}, step 4", "tiny"]

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ftlab_kit import Workspace, chats
from ftlab_kit.chats import prices
from ftlab_kit.chats.connection import Completion
from ftlab_kit.errors import InputError, NotFound, Unavailable
from tests.chat_server import ChatServer, serving

ASK = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is snow?"}]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(lambda turns: f"You said: {turns[-1]['content']}") as made:
        yield made


@pytest.fixture(params=["openai", "anthropic"])
def model(request: pytest.FixtureRequest, server: ChatServer) -> str:
    return f"openai:m@{server.url}" if request.param == "openai" else f"anthropic:m@{server.root}"


def chat(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_a_name_tells_whether_a_model_is_hosted():
    hosted = ["openai:gpt-4o-mini", "anthropic:x@https://here", "openai:llama3:8b"]
    assert [*map(chats.is_hosted, hosted)] == [True] * 3
    assert not any(map(chats.is_hosted, ["tiny", "openai", "owner/name", "other:name", "1"]))


def test_a_hosted_model_answers(ws: Workspace, model: str):
    said = chats.reply(ws, model, ASK)
    assert (said.role, said.content, said.is_complete) == (
        "assistant",
        "You said: What is snow?",
        True,
    )
    assert said.usage.n_output_tokens == 5
    assert said.seconds > 0


def test_an_answer_that_is_cut_says_so(ws: Workspace, model: str):
    said = chats.reply(ws, model, ASK, max_new_tokens=2)
    assert (said.content, said.is_complete) == ("You said:", False)


def test_what_is_sent_is_what_was_asked_for(ws: Workspace, server: ChatServer):
    chats.reply(ws, f"openai:a:b@{server.url}", ASK, temperature=0.5, seed=3, max_new_tokens=7)
    wanted = {"model": "a:b", "messages": ASK, "temperature": 0.5, "seed": 3, "max_tokens": 7}
    assert wanted.items() <= server.asked[0].items()


def test_system_turns_stand_apart_with_anthropic(ws: Workspace, server: ChatServer):
    said = chats.reply(ws, f"anthropic:m@{server.root}", ASK, seed=3)
    assert server.asked[0]["system"] == "Be short."
    assert server.asked[0]["messages"] == ASK[1:]
    assert said.left_out == ("seed",)


def test_an_address_of_anthropics_protocol_may_end_in_v1(ws: Workspace, server: ChatServer):
    assert chats.reply(ws, f"anthropic:m@{server.url}", ASK).is_complete
    assert server.asked[0]["path"] == "/v1/messages"


def test_only_role_and_content_are_sent(ws: Workspace, server: ChatServer):
    turn = {"role": "user", "content": "Hi", "train": False, "note": "private"}
    chats.reply(ws, f"openai:m@{server.url}", [turn])
    assert server.asked[0]["messages"] == chat("Hi")


def test_a_setting_that_a_model_takes_none_of_is_left_out_and_said(ws: Workspace, model: str):
    with serving(lambda turns: "Yes", untaken=frozenset({"temperature"})) as strict:
        said = chats.reply(ws, f"openai:m@{strict.url}", ASK, seed=1)
        assert (said.content, said.left_out) == ("Yes", ("temperature",))
        found = chats.replies(ws, f"openai:m@{strict.url}", [chat("Hi")] * 20)
        assert all(found)
        assert len(strict.asked) <= 2 + 4 + 20  # learnt once, by the few that were on their way


def test_an_unknown_setting_is_no_argument(ws: Workspace):
    with pytest.raises(TypeError, match="max_tokens"):
        chats.reply(ws, "openai:m@http://127.0.0.1:1/v1", ASK, max_tokens=3)  # type: ignore[call-arg]


def test_an_empty_answer_is_empty_and_no_error(ws: Workspace):
    with serving(lambda turns: "") as silent:
        for model in (f"openai:m@{silent.url}", f"anthropic:m@{silent.root}"):
            said = chats.reply(ws, model, ASK)
            assert (said.content, said.usage.n_output_tokens) == ("", 0)


def test_a_missing_key_is_named(ws: Workspace):
    with pytest.raises(Unavailable, match="OPENAI_API_KEY is not set.*Set OPENAI_API_KEY"):
        chats.reply(ws, "openai:gpt-4o-mini", ASK)
    with pytest.raises(Unavailable, match="ANTHROPIC_API_KEY is not set"):
        chats.reply(ws, "anthropic:claude-haiku-4-5", ASK)


def test_a_key_that_can_be_none_is_refused(ws: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-…")
    with pytest.raises(InputError, match="OPENAI_API_KEY holds characters that no key has"):
        chats.reply(ws, "openai:gpt-4o-mini", ASK)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"])
def test_the_key_of_the_environment_is_sent(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv(name, "sk-good")
    with serving(lambda turns: "Yes", key="sk-good") as strict:
        where = {"O": f"openai:m@{strict.url}", "A": f"anthropic:m@{strict.root}"}[name[0]]
        assert chats.reply(ws, where, ASK).content == "Yes"


def test_a_key_that_is_refused_says_which_to_set(ws: Workspace):
    with serving(lambda turns: "Yes", key="sk-good") as strict:
        with pytest.raises(
            Unavailable, match="Incorrect API key.*Set OPENAI_API_KEY to a key that"
        ):
            chats.reply(ws, f"openai:m@{strict.url}", ASK)
        with pytest.raises(Unavailable, match="401: Incorrect.*Set ANTHROPIC_API_KEY"):
            chats.reply(ws, f"anthropic:m@{strict.root}", ASK)


def test_a_model_that_is_not_there_is_not_found(ws: Workspace, server: ChatServer):
    with pytest.raises(NotFound, match="has no openai:none@.*404: The model `none` does not exist"):
        chats.reply(ws, f"openai:none@{server.url}", ASK)


def test_too_many_requests_are_tried_again(ws: Workspace, server: ChatServer, model: str):
    server.faults = [(429, "slow down"), (500, "broken")]
    assert chats.reply(ws, model, ASK).content == "You said: What is snow?"


def test_a_line_that_breaks_costs_one_chat_alone(ws: Workspace, server: ChatServer):
    server.faults = [(0, "")] * 4
    with pytest.raises(Unavailable, match="can't be reached .*disconnected"):
        chats.reply(ws, f"openai:m@{server.url}", ASK)
    assert chats.reply(ws, f"openai:m@{server.url}", ASK).is_complete


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, "The server fails for .*500: no luck.*Try again later"),
        (429, "Too much is asked of .*429: no luck.*Wait a while"),
    ],
)
def test_a_server_that_goes_on_failing_is_said(
    ws: Workspace, server: ChatServer, status: int, words: str
):
    server.faults = [(status, "no luck")] * 4
    with pytest.raises(Unavailable, match=words):
        chats.reply(ws, f"openai:m@{server.url}", ASK)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ((400, "The context is too long"), InputError, "refused by .*too long.*Shorten the chat"),
        ((402, "Pay first"), Unavailable, "There is no credit left for .*Pay first.*Add credit"),
        ((400, "Your credit balance is too low"), Unavailable, "There is no credit left"),
        ((307, "elsewhere"), Unavailable, "sends on to http://127.0.0.1:1/v1. Give that address"),
        ((200, "<html>Welcome</html>"), Unavailable, "answers, but not as .* does. Correct the"),
        ((200, "{broken"), Unavailable, "answers, but not as .* does"),
        ((200, '{"models": []}'), Unavailable, "answers, but not as .* does"),
    ],
)
def test_what_a_server_refuses_is_said_with_a_cure(
    ws: Workspace, server: ChatServer, model: str, fault: Any, error: type[Exception], words: str
):
    server.faults = [fault]
    with pytest.raises(error, match=words):
        chats.reply(ws, model, ASK)


def test_a_server_that_is_not_there_is_said(ws: Workspace):
    with pytest.raises(Unavailable, match="127.0.0.1:1/v1/ can't be reached .*Connection refused"):
        chats.reply(ws, "openai:m@http://127.0.0.1:1/v1", ASK)


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(ws: Workspace):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = f"openai:m@http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        with pytest.raises(Unavailable, match="did not answer within 0.05 s.*timeout_s"):
            chats.reply(ws, where, ASK, timeout_s=0.05)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("antropic:claude", "names no hosted model.*Did you mean 'anthropic'?"),
        ("openai:", "can't be read; expected provider:name"),
        ("openai:m@localhost:8000/v1", "can't be read.*an address with http:// or https://"),
        ("openai:m@http://here:port/v1", "can't be read"),
        ("openai:m@https://me:secret@here/v1", "can't be read"),
    ],
)
def test_a_name_that_is_none_is_refused(ws: Workspace, name: str, words: str):
    with pytest.raises(InputError, match=words):
        chats.reply(ws, name, ASK)


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([], "Nothing is asked"),
        ([{"role": "system", "content": "Hi"}], "Nothing is asked"),
        ([{"role": "user", "content": None}], "Turn 0 is .*both text"),
        ([{"role": "bot", "content": "Hi"}], "Turn 0 is of 'bot'.*the model 'assistant'"),
        ([*ASK, {"role": "tool", "content": "4"}], "Turn 2 is of 'tool'.*not sent to hosted"),
        ([*ASK, {"role": "assistant", "content": "", "tool_calls": [{}]}], "Turn 2 calls a tool"),
    ],
)
def test_turns_that_are_no_chat_are_refused(ws: Workspace, turns: Any, words: str):
    with pytest.raises(InputError, match=words):
        chats.reply(ws, "openai:m@http://127.0.0.1:1/v1", turns)


def test_many_chats_are_answered_in_order(ws: Workspace, server: ChatServer, model: str):
    told: list[tuple[int, int]] = []
    asked = [chat(f"number {number}") for number in range(12)]
    found = chats.replies(ws, model, asked, progress=lambda *news: told.append(news))
    assert [item.content for item in found if item] == [f"You said: number {n}" for n in range(12)]
    assert told == [(done, 12) for done in range(1, 13)]


def test_no_chats_have_no_answers(ws: Workspace, server: ChatServer):
    assert chats.replies(ws, f"openai:m@{server.url}", []) == []


def test_one_chat_that_fails_costs_no_other_its_answer(ws: Workspace, server: ChatServer):
    server.faults = [(400, "The context is too long")]
    told: dict[int, str] = {}
    found = chats.replies(ws, f"openai:m@{server.url}", [chat("Hi")] * 9, refused=told.__setitem__)
    assert sum(item is not None for item in found) == 8
    assert [found[row] for row in told] == [None]
    assert "too long" in next(iter(told.values()))


def test_what_fails_all_stops_all_and_says_so_at_once(ws: Workspace):
    with serving(lambda turns: "Yes", key="sk-good") as strict:
        with pytest.raises(Unavailable, match="Set OPENAI_API_KEY"):
            chats.replies(ws, f"openai:m@{strict.url}", [chat("Hi")] * 50)
        assert len(strict.asked) <= 8


def test_answers_that_were_paid_for_are_kept_when_credit_runs_out(ws: Workspace):
    with serving(lambda turns: _bankrupt(server, turns)) as server:
        told: dict[int, str] = {}
        asked = [chat(f"{n}") for n in range(30)]
        found = chats.replies(ws, f"openai:m@{server.url}", asked, refused=told.__setitem__)
    kept = [row for row, item in enumerate(found) if item]
    assert 5 <= len(kept) < 15
    assert sorted([*kept, *told]) == [*range(30)]
    assert told[29].startswith("Not asked any more. There is no credit left")


def _bankrupt(server: ChatServer, turns: Any) -> str:
    if len(server.asked) == 5:
        server.faults = [(402, "Pay first")] * 30
    return "Yes"


def test_a_server_that_fails_every_chat_is_not_asked_them_all(ws: Workspace, server: ChatServer):
    server.faults = [(503, "down")] * 1000
    with pytest.raises(Unavailable, match="503: down"):
        chats.replies(ws, f"openai:m@{server.url}", [chat("Hi")] * 100)
    assert len(server.asked) <= 4 * (8 + 8)


def test_after_so_long_no_chat_is_begun(ws: Workspace, server: ChatServer):
    told: dict[int, str] = {}
    where = f"openai:m@{server.url}"
    found = chats.replies(ws, where, [chat("Hi")], max_seconds=0.0, refused=told.__setitem__)
    assert found == [None]
    assert told == {0: "Not asked: the time was up. Give more with max_seconds."}


def test_a_chat_that_can_not_be_sent_is_named_before_any_is(ws: Workspace, server: ChatServer):
    with pytest.raises(InputError, match="Chat 1: Nothing is asked"):
        chats.replies(ws, f"openai:m@{server.url}", [chat("Hi"), []])
    assert not server.asked


@pytest.mark.parametrize(
    ("name", "url", "cost_usd"),
    [
        ("gpt-4o-mini", "https://api.openai.com/v1/", 0.15 * 0.02 + 0.6 * 0.01),
        ("claude-haiku-4-5", "https://api.anthropic.com", 1.0 * 0.02 + 5.0 * 0.01),
        ("not-a-model", "https://api.openai.com/v1/", None),
        ("gpt-4o-mini", "http://127.0.0.1:8000/v1/", None),
    ],
)
def test_a_price_is_the_vendors_or_none(name: str, url: str, cost_usd: float | None):
    said = Completion("", True, 20_000, 10_000)
    assert prices.cost_usd(name, url, said) == (cost_usd and pytest.approx(cost_usd))


def test_a_cost_of_unknown_tokens_is_unknown():
    assert (
        prices.cost_usd("gpt-4o", "https://api.openai.com/v1", Completion("", True, None, 3))
        is None
    )


def test_a_server_of_ones_own_costs_nothing_that_is_known(ws: Workspace, server: ChatServer):
    assert chats.reply(ws, f"openai:gpt-4o-mini@{server.url}", ASK).usage.cost_usd is None


def test_importing_the_room_loads_no_sdk():
    code = "import sys, ftlab_kit.chats; print({'openai', 'anthropic', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ftlab_kit import Workspace, chats
from ftlab_kit.chats import connection, prices
from ftlab_kit.errors import InputError, NotFound, Unavailable
from ftlab_kit.records import Progress
from tests.chat_server import ChatServer, serving

ASK = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is snow?"}]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(lambda turns: f"You said: {turns[-1]['content']}") as server:
        yield server


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
    message = chats.reply(ws, model, ASK)
    assert (message.role, message.content, message.is_complete) == (
        "assistant",
        "You said: What is snow?",
        True,
    )
    assert message.usage.n_output_tokens == 5
    assert message.seconds > 0


def test_an_answer_that_is_cut_says_so(ws: Workspace, model: str):
    message = chats.reply(ws, model, ASK, max_new_tokens=2)
    assert (message.content, message.is_complete) == ("You said:", False)


def test_the_request_holds_every_setting(ws: Workspace, server: ChatServer):
    chats.reply(ws, f"openai:a:b@{server.url}", ASK, temperature=0.5, seed=3, max_new_tokens=7)
    expected = {"model": "a:b", "messages": ASK, "temperature": 0.5, "seed": 3, "max_tokens": 7}
    assert expected.items() <= server.requests[0].items()


def test_system_turns_stand_apart_with_anthropic(ws: Workspace, server: ChatServer):
    message = chats.reply(ws, f"anthropic:m@{server.root}", ASK, seed=3)
    assert server.requests[0]["system"] == "Be short."
    assert server.requests[0]["messages"] == ASK[1:]
    assert message.left_out == ("seed",)


def test_an_address_of_anthropics_protocol_may_end_in_v1(ws: Workspace, server: ChatServer):
    assert chats.reply(ws, f"anthropic:m@{server.url}", ASK).is_complete
    assert server.requests[0]["path"] == "/v1/messages"


def test_only_role_and_content_are_sent(ws: Workspace, server: ChatServer):
    turn = {"role": "user", "content": "Hi", "train": False, "note": "private"}
    chats.reply(ws, f"openai:m@{server.url}", [turn])
    assert server.requests[0]["messages"] == chat("Hi")


def test_a_setting_that_a_model_refuses_is_left_out_and_named(ws: Workspace, model: str):
    with serving(lambda turns: "Yes", unsupported=frozenset({"temperature"})) as strict:
        message = chats.reply(ws, f"openai:m@{strict.url}", ASK, seed=1)
        assert (message.content, message.left_out) == ("Yes", ("temperature",))
        assert all(chats.replies(ws, f"openai:m@{strict.url}", [chat("Hi")] * 20))
        assert len(strict.requests) <= 2 + 4 + 20  # learnt once, by the requests then under way


def test_an_unknown_setting_is_a_type_error(ws: Workspace):
    with pytest.raises(TypeError, match="max_tokens"):
        chats.reply(ws, "openai:m@http://127.0.0.1:1/v1", ASK, max_tokens=3)  # type: ignore[call-arg]


def test_an_empty_answer_is_not_an_error(ws: Workspace):
    with serving(lambda turns: "") as silent:
        for model in (f"openai:m@{silent.url}", f"anthropic:m@{silent.root}"):
            message = chats.reply(ws, model, ASK)
            assert (message.content, message.usage.n_output_tokens) == ("", 0)


def test_a_missing_key_is_named(ws: Workspace):
    with pytest.raises(
        Unavailable, match="OPENAI_API_KEY is not set.*Set OPENAI_API_KEY to your key of OpenAI"
    ):
        chats.reply(ws, "openai:gpt-4o-mini", ASK)
    with pytest.raises(Unavailable, match="ANTHROPIC_API_KEY is not set"):
        chats.reply(ws, "anthropic:claude-haiku-4-5", ASK)


def test_a_key_with_impossible_characters_is_refused(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
):
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
            Unavailable, match="Incorrect API key.*Set OPENAI_API_KEY to a key that is valid for"
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


def test_a_broken_connection_costs_one_chat_only(ws: Workspace, server: ChatServer):
    server.faults = [(0, "")] * 4
    with pytest.raises(Unavailable, match="can't be reached .*disconnected"):
        chats.reply(ws, f"openai:m@{server.url}", ASK)
    assert chats.reply(ws, f"openai:m@{server.url}", ASK).is_complete


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "500: no luck.* fails at every try. Try later"),
        (429, "429: no luck.* refuses more requests for now.*Try again later"),
    ],
)
def test_a_server_that_keeps_failing_is_reported(
    ws: Workspace, server: ChatServer, status: int, message: str
):
    server.faults = [(status, "no luck")] * 4
    with pytest.raises(Unavailable, match=message):
        chats.reply(ws, f"openai:m@{server.url}", ASK)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ((400, "The context is too long"), InputError, "refused by .*too long.*Shorten the chat"),
        ((402, "Pay first"), Unavailable, "No credit is left for .*Pay first.*Add credit"),
        ((400, "Your credit balance is too low"), Unavailable, "No credit is left"),
        ((307, "elsewhere"), Unavailable, "redirects to http://127.0.0.1:1/v1. Give that address"),
        (
            (200, "<html>Welcome</html>"),
            Unavailable,
            "answers, but not in the protocol of .* Correct the",
        ),
        ((200, "{broken"), Unavailable, "answers, but not in the protocol of"),
        ((200, '{"models": []}'), Unavailable, "answers, but not in the protocol of"),
    ],
)
def test_a_server_s_refusal_is_explained_with_a_fix(
    ws: Workspace, server: ChatServer, model: str, fault: Any, error: type[Exception], message: str
):
    server.faults = [fault]
    with pytest.raises(error, match=message):
        chats.reply(ws, model, ASK)


def test_an_unreachable_server_is_reported(ws: Workspace):
    with pytest.raises(Unavailable, match="127.0.0.1:1/v1/ can't be reached .*Connection refused"):
        chats.reply(ws, "openai:m@http://127.0.0.1:1/v1", ASK)


def test_a_silent_server_times_out(ws: Workspace):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = f"openai:m@http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        with pytest.raises(Unavailable, match="did not answer within 0.05 s.*timeout_s"):
            chats.reply(ws, where, ASK, timeout_s=0.05)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("antropic:claude", "is not the name of a hosted model.*Did you mean 'anthropic'?"),
        ("openai:", "can't be read; expected provider:name"),
        ("openai:m@localhost:8000/v1", "can't be read.*an address with http:// or https://"),
        ("openai:m@http://here:port/v1", "can't be read"),
        ("openai:m@https://me:secret@here/v1", "can't be read"),
    ],
)
def test_a_malformed_name_is_refused(ws: Workspace, name: str, message: str):
    with pytest.raises(InputError, match=message):
        chats.reply(ws, name, ASK)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "no turn of 'user'"),
        ([{"role": "system", "content": "Hi"}], "no turn of 'user'"),
        ([{"role": "user", "content": None}], "Turn 0 is .*both text"),
        ([{"role": "bot", "content": "Hi"}], "Turn 0 has the role 'bot'.*the model 'assistant'"),
        (
            [*ASK, {"role": "tool", "content": "4"}],
            "Turn 2 has the role 'tool'.*not sent to hosted",
        ),
        ([*ASK, {"role": "assistant", "content": "", "tool_calls": [{}]}], "Turn 2 calls a tool"),
    ],
)
def test_malformed_turns_are_refused(ws: Workspace, turns: Any, message: str):
    with pytest.raises(InputError, match=message):
        chats.reply(ws, "openai:m@http://127.0.0.1:1/v1", turns)


def test_many_chats_are_answered_in_order(ws: Workspace, server: ChatServer, model: str):
    steps: list[Progress] = []
    prompts = [chat(f"number {number}") for number in range(12)]
    messages = chats.replies(ws, model, prompts, progress=steps.append)
    assert [item.content for item in messages if item] == [
        f"You said: number {n}" for n in range(12)
    ]
    assert steps == [Progress("answers", done, 12) for done in range(1, 13)]


def test_no_chats_have_no_answers(ws: Workspace, server: ChatServer):
    assert chats.replies(ws, f"openai:m@{server.url}", []) == []


def test_a_chat_that_fails_leaves_the_others_answered(ws: Workspace, server: ChatServer):
    server.faults = [(400, "The context is too long")]
    reasons: dict[int, str] = {}
    model = f"openai:m@{server.url}"
    messages = chats.replies(ws, model, [chat("Hi")] * 9, refused=reasons.__setitem__)
    assert sum(item is not None for item in messages) == 8
    assert [messages[row] for row in reasons] == [None]
    assert "too long" in next(iter(reasons.values()))


def test_what_fails_every_chat_stops_them_all_at_once(ws: Workspace):
    with serving(lambda turns: "Yes", key="sk-good") as strict:
        with pytest.raises(Unavailable, match="Set OPENAI_API_KEY"):
            chats.replies(ws, f"openai:m@{strict.url}", [chat("Hi")] * 50)
        assert len(strict.requests) <= 8


def test_paid_answers_are_returned_when_credit_runs_out(ws: Workspace):
    with serving(lambda turns: _bankrupt(server, turns)) as server:
        reasons: dict[int, str] = {}
        prompts = [chat(f"{n}") for n in range(30)]
        model = f"openai:m@{server.url}"
        messages = chats.replies(ws, model, prompts, refused=reasons.__setitem__)
    answered = [row for row, item in enumerate(messages) if item]
    assert 5 <= len(answered) < 15
    assert sorted([*answered, *reasons]) == [*range(30)]
    assert reasons[29].startswith("Not sent any more. No credit is left")


def _bankrupt(server: ChatServer, turns: Any) -> str:
    if len(server.requests) == 5:
        server.faults = [(402, "Pay first")] * 30
    return "Yes"


def test_a_server_that_keeps_failing_is_not_sent_every_chat(ws: Workspace, server: ChatServer):
    server.faults = [(503, "down")] * 1000
    with pytest.raises(Unavailable, match="503: down"):
        chats.replies(ws, f"openai:m@{server.url}", [chat("Hi")] * 100)
    assert len(server.requests) <= 4 * (8 + 8)


def test_no_chat_is_begun_after_max_seconds(ws: Workspace, server: ChatServer):
    reasons: dict[int, str] = {}
    where = f"openai:m@{server.url}"
    prompts, refused = [chat("Hi")], reasons.__setitem__
    assert chats.replies(ws, where, prompts, max_seconds=0.0, refused=refused) == [None]
    assert reasons == {0: "Not sent: the time was up. Allow more with max_seconds."}


def test_a_malformed_chat_is_named_before_any_is_sent(ws: Workspace, server: ChatServer):
    with pytest.raises(InputError, match="Chat 1: The chat has no turn of 'user'"):
        chats.replies(ws, f"openai:m@{server.url}", [chat("Hi"), []])
    assert not server.requests


@pytest.mark.parametrize(
    ("name", "url", "cost_usd"),
    [
        ("gpt-4o-mini", "https://api.openai.com/v1/", 0.15 * 0.02 + 0.6 * 0.01),
        ("claude-haiku-4-5", "https://api.anthropic.com", 1.0 * 0.02 + 5.0 * 0.01),
        ("not-a-model", "https://api.openai.com/v1/", None),
        ("gpt-4o-mini", "http://127.0.0.1:8000/v1/", None),
    ],
)
def test_a_price_is_the_vendors_or_unknown(name: str, url: str, cost_usd: float | None):
    assert prices.cost_usd(name, url, 20_000, 10_000) == (cost_usd and pytest.approx(cost_usd))


def test_a_cost_of_unknown_tokens_is_unknown():
    assert prices.cost_usd("gpt-4o", "https://api.openai.com/v1", None, 3) is None


def test_the_cost_of_a_private_server_is_unknown(ws: Workspace, server: ChatServer):
    assert chats.reply(ws, f"openai:gpt-4o-mini@{server.url}", ASK).usage.cost_usd is None


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_one_place_makes_the_sdk_s_client(name: str, is_async: bool):
    client = connection.client(f"{name}:m@http://here/v1", timeout_s=7, tries=2, is_async=is_async)
    assert client.api_key == "none" and client.base_url.host == "here"
    assert (client.timeout, client.max_retries) == (7, 1)
    assert not client._client.follow_redirects


def test_a_server_in_the_environment_needs_no_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://here/v1")
    assert connection.client("openai:m").base_url.host == "here"


def test_importing_the_room_loads_no_sdk():
    code = "import sys, ftlab_kit.chats; print({'openai', 'anthropic', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

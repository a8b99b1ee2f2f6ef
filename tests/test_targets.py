"""Every chat model answers by the same verbs, whole or piece by piece."""

import gc
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftlab_kit import Workspace, chats, checkpoints, models
from ftlab_kit.chats import ChatModel
from ftlab_kit.errors import Conflict, InputError, NotFound, Unavailable
from ftlab_kit.lm import generation
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Job, Message, Progress
from tests.chat_server import ChatServer, serving

ASK = [{"role": "user", "content": "What colour is snow?"}]


@pytest.fixture(scope="module")
def tiny(lab: Workspace) -> Iterator[ChatModel]:
    with chats.open(lab, "tiny") as model:
        yield model


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda turns: f"You said: {turns[-1]['content']}") as server:
        yield server


@pytest.fixture(params=["openai", "anthropic"])
def hosted(request: pytest.FixtureRequest, server: ChatServer) -> str:
    return f"openai:m@{server.url}" if request.param == "openai" else f"anthropic:m@{server.root}"


def collect(stream: Generator[str, None, Message]) -> tuple[list[str], Message]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def same(one: Message, other: Message) -> bool:
    facts = ("role", "content", "usage", "is_complete", "left_out")
    return all(getattr(one, name) == getattr(other, name) for name in facts)


class Parrot(torch.nn.Module):
    """A model that generates the tokens it was given, one after another."""

    def __init__(self, like: Any, tokens: list[int]) -> None:
        super().__init__()
        self.config, self.generation_config = like.config, like.generation_config
        self.device, self.tokens = like.device, iter(tokens)

    def forward(self, input_ids: Any, past_key_values: Any = None, **_: Any) -> Any:
        logits = torch.zeros(1, 1, self.config.vocab_size)
        logits[..., next(self.tokens)] = 1.0
        return SimpleNamespace(logits=logits)


def pieces_of(tiny: ChatModel, tokens: list[int]) -> list[str]:
    """The pieces of an answer of these tokens."""
    tokenizer = tiny.tokenizer
    model = Parrot(tiny.model, [*tokens, tokenizer.eos_token_id])
    return [*generation.stream(model, tokenizer, "Hi", GenerationSettings())]


def test_a_base_model_answers_with_its_tokens_and_no_cost(lab: Workspace):
    message = chats.reply(lab, "tiny", ASK, max_new_tokens=6)
    usage = message.usage
    assert (message.role, usage.n_output_tokens, message.is_complete) == ("assistant", 6, False)
    assert (usage.n_input_tokens or 0) > 6
    assert usage.cost_usd is None and message.seconds > 0


def test_a_text_is_a_user_s_message(lab: Workspace, tiny: ChatModel):
    message = chats.reply(lab, tiny, ASK[0]["content"], max_new_tokens=4)
    assert same(message, chats.reply(lab, tiny, ASK, max_new_tokens=4))


def test_a_job_its_number_and_its_checkpoint_answer_alike(lab: Workspace, job: Job):
    last = checkpoints.get(lab, job)
    targets = (job, str(job.id), last)
    one, two, three = [chats.reply(lab, each, ASK, max_new_tokens=8) for each in targets]
    assert same(one, two) and same(two, three)
    assert not same(one, chats.reply(lab, "tiny", ASK, max_new_tokens=8))


def test_one_checkpoint_of_a_job_is_chosen(lab: Workspace, job: Job):
    first = checkpoints.list(lab, job)[0].step
    with chats.open(lab, job, checkpoint=first) as model:
        assert (model.job_id, model.step) == (job.id, first)
    with chats.open(lab, job, checkpoint="best") as model:
        assert model.step == checkpoints.best(lab, job).step


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("tinny", NotFound, "There is no model 'tinny'"),
        (10_000, NotFound, "There is no job 10000"),
        (Path("/nowhere/model.gguf"), InputError, "does not exist; expected a .gguf file"),
        ("antropic:claude", InputError, "not the name of a hosted model.*Did you mean 'anthropic'"),
        ("openai:", InputError, "can't be read; expected provider:name"),
    ],
)
def test_a_wrong_target_is_refused(
    lab: Workspace, target: Any, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        chats.open(lab, target)


def test_a_wrong_checkpoint_is_refused(lab: Workspace, job: Job):
    with pytest.raises(
        InputError, match="checkpoint is 'newest'; expected 'last', 'best' or a step"
    ):
        chats.reply(lab, job, ASK, checkpoint="newest")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected 1 or more"),
        ({"temperature": -0.5}, "temperature is -0.5; expected 0 or more"),
    ],
)
def test_settings_out_of_bounds_are_refused(
    lab: Workspace, tiny: ChatModel, settings: Any, message: str
):
    with pytest.raises(InputError, match=message):
        chats.reply(lab, tiny, ASK, **settings)


def test_many_chats_are_answered_in_order(lab: Workspace, tiny: ChatModel):
    prompts = ["word " * n for n in (9, 1, 5)]
    steps: list[Progress] = []
    together = chats.replies(lab, tiny, prompts, max_new_tokens=5, progress=steps.append)
    alone = [chats.reply(lab, tiny, text, max_new_tokens=5) for text in prompts]
    assert all(item and same(item, other) for item, other in zip(together, alone, strict=True))
    assert steps == [Progress("answers", 3, 3)]


def test_a_chat_that_ran_out_of_time_is_named(lab: Workspace, tiny: ChatModel):
    reasons: dict[int, str] = {}
    refused = reasons.__setitem__
    assert chats.replies(lab, tiny, ["Hi"], max_seconds=0.0, refused=refused) == [None]
    assert reasons == {0: "Not sent: the time was up. Allow more with max_seconds."}
    with pytest.raises(Unavailable, match="the time was up"):
        chats.reply(lab, tiny, "Hi", max_seconds=0.0)


def test_an_open_model_stays_open_after_a_call(lab: Workspace, tiny: ChatModel):
    model = tiny.model
    for _ in range(3):
        chats.reply(lab, tiny, ASK, max_new_tokens=2)
        [*chats.stream(lab, tiny, ASK, max_new_tokens=2)]
    assert tiny.model is model is not None


def test_a_closed_model_has_given_its_memory_back(lab: Workspace, job: Job):
    with chats.open(lab, job) as model:
        weights = weakref.ref(next(model.model.parameters()))
        chats.reply(lab, model, ASK, max_new_tokens=2)
    gc.collect()
    assert weights() is None
    with pytest.raises(Conflict, match="step 4 is closed.*Open it again with chats.open"):
        chats.reply(lab, model, ASK)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 3}])
def test_the_pieces_joined_are_the_answer(lab: Workspace, tiny: ChatModel, settings: Any):
    pieces, message = collect(chats.stream(lab, tiny, ASK, max_new_tokens=24, **settings))
    whole = chats.reply(lab, tiny, ASK, max_new_tokens=24, **settings)
    assert len(pieces) > 1
    assert "".join(pieces).strip() == whole.content
    assert same(message, whole)


def test_answers_drawn_without_a_seed_differ(lab: Workspace, tiny: ChatModel):
    first, second = (
        chats.reply(lab, tiny, "Hi", max_new_tokens=8, temperature=1.0).content for _ in range(2)
    )
    assert first != second


def test_half_characters_are_held_back(tiny: ChatModel):
    text = "né 日本 😀!"
    tokens = tiny.tokenizer(text)["input_ids"]
    pieces = pieces_of(tiny, tokens)
    assert "".join(pieces) == text
    assert len(pieces) < len(tokens)  # some are half characters
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_form_no_character_come_at_the_end(tiny: ChatModel):
    half = tiny.tokenizer("日")["input_ids"][0]
    other = tiny.tokenizer("a")["input_ids"][0]
    assert pieces_of(tiny, [other, half, other, half]) == ["a", "\ufffda", "\ufffd"]


def test_a_stopped_answer_leaves_the_model_as_it_was(lab: Workspace, tiny: ChatModel):
    before = chats.reply(lab, tiny, ASK, max_new_tokens=8)
    tiny.model.train()
    try:
        pieces = chats.stream(lab, tiny, ASK, max_new_tokens=500)
        next(pieces)
        assert tiny.model.training and not torch.is_inference_mode_enabled()
        pieces.close()
    finally:
        tiny.model.eval()
    assert same(before, chats.reply(lab, tiny, ASK, max_new_tokens=8))


def test_two_answers_are_generated_in_turns(lab: Workspace, tiny: ChatModel):
    alone = [[*chats.stream(lab, tiny, text, max_new_tokens=6)] for text in ("Hi", "Who?")]
    turns = [chats.stream(lab, tiny, text, max_new_tokens=6) for text in ("Hi", "Who?")]
    by_turns = [*zip(*turns, strict=False)]
    assert by_turns == [*zip(*alone, strict=False)]


def test_a_conversation_goes_on(lab: Workspace, tiny: ChatModel):
    first = chats.reply(lab, tiny, ASK, max_new_tokens=4)
    turns = [*ASK, {"role": "assistant", "content": first.content}, *ASK]
    second = chats.reply(lab, tiny, turns, max_new_tokens=4)
    longer = (second.usage.n_input_tokens or 0) - (first.usage.n_input_tokens or 0)
    assert longer > (first.usage.n_output_tokens or 0)


def test_malformed_turns_are_refused(lab: Workspace, tiny: ChatModel):
    with pytest.raises(InputError, match="Turn 0 has the role 'bot'.*the model 'assistant'"):
        chats.reply(lab, tiny, [{"role": "bot", "content": "Hi"}])
    with pytest.raises(InputError, match="Chat 1: The chat has no turn of 'user'"):
        chats.replies(lab, tiny, ["Hi", []])


def test_a_local_model_receives_results_of_tools(lab: Workspace, tiny: ChatModel):
    turns = [*ASK, {"role": "tool", "content": "white"}]
    without, with_tool = (
        chats.reply(lab, tiny, each, max_new_tokens=2).usage for each in (ASK, turns)
    )
    assert (without.n_input_tokens or 0) < (with_tool.n_input_tokens or 0)


def test_a_hosted_answer_comes_in_pieces(lab: Workspace, hosted: str):
    pieces, message = collect(chats.stream(lab, hosted, ASK))
    assert pieces == ["You", " said:", " What", " colour", " is", " snow?"]
    assert same(message, chats.reply(lab, hosted, ASK))


def test_a_cut_stream_says_so(lab: Workspace, hosted: str):
    pieces, message = collect(chats.stream(lab, hosted, ASK, max_new_tokens=2))
    assert (pieces, message.is_complete) == (["You", " said:"], False)


def test_a_hosted_answer_that_is_empty_has_no_pieces(lab: Workspace):
    with serving(lambda turns: "") as silent:
        for model in (f"openai:m@{silent.url}", f"anthropic:m@{silent.root}"):
            pieces, message = collect(chats.stream(lab, model, ASK))
            assert (pieces, message.content, message.usage.n_output_tokens) == ([], "", 0)


def test_a_setting_that_a_model_refuses_is_left_out_of_a_stream(lab: Workspace):
    unsupported = frozenset({"temperature", "stream_options"})
    with serving(lambda turns: "Yes", unsupported=unsupported) as strict:
        _, message = collect(chats.stream(lab, f"openai:m@{strict.url}", ASK))
    assert (message.content, message.left_out) == ("Yes", ("temperature",))
    assert message.usage.n_output_tokens is None  # without stream_options the server reports none


def test_a_stream_that_is_stopped_hangs_up(lab: Workspace):
    with serving(lambda turns: "word " * 200_000) as server:
        pieces = chats.stream(lab, f"openai:m@{server.url}", ASK, max_new_tokens=200_000)
        assert [next(pieces), next(pieces)] == ["word", " word"]
        pieces.close()
    assert server.n_streamed < 200_000


def test_the_cost_of_a_stopped_stream_is_unknown(lab: Workspace, hosted: str):
    with chats.open(lab, hosted) as model:
        pieces = chats.stream(lab, model, ASK)
        next(pieces)
        pieces.close()
        assert model.cost_usd is None


@pytest.mark.parametrize(
    ("break_message", "message"),
    [
        ("", "broke off its answer .*peer closed"),
        ("overloaded", "broke off .*overloaded.*Try again"),
    ],
)
def test_an_answer_that_breaks_off_is_reported(
    lab: Workspace, server: ChatServer, hosted: str, break_message: str, message: str
):
    server.breaks_after, server.break_message = 3, break_message
    pieces = chats.stream(lab, hosted, ASK)
    assert next(pieces) == "You"
    with pytest.raises(Unavailable, match=message):
        "".join(pieces)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ((400, "The context is too long"), InputError, "refused by .*too long.*Shorten the chat"),
        ((402, "Pay first"), Unavailable, "No credit is left for .*Add credit"),
        ((307, "elsewhere"), Unavailable, "redirects to http://127.0.0.1:1/v1"),
        (
            (200, "<html>Welcome</html>"),
            Unavailable,
            "answers, but not in the protocol of .* Correct the",
        ),
        ((200, "data: {broken\n\n"), Unavailable, "answers, but not in the protocol of"),
        ((200, '{"models": []}'), Unavailable, "answers, but not in the protocol of"),
    ],
)
def test_a_server_s_refusal_is_explained_for_a_stream_too(
    lab: Workspace, server: ChatServer, hosted: str, fault: Any, error: Any, message: str
):
    server.faults = [fault]
    with pytest.raises(error, match=message):
        next(chats.stream(lab, hosted, ASK))


def test_too_many_requests_for_a_stream_are_tried_again(
    lab: Workspace, server: ChatServer, hosted: str
):
    server.faults = [(429, "slow down"), (500, "broken")]
    assert next(chats.stream(lab, hosted, ASK)) == "You"


def test_a_folder_answers_as_the_model_it_holds(lab: Workspace, tiny: ChatModel):
    path = models.get(lab, "tiny").path
    assert path is not None
    assert same(
        chats.reply(lab, path, ASK, max_new_tokens=4),
        chats.reply(lab, tiny, ASK, max_new_tokens=4),
    )

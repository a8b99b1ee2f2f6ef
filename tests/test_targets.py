"""Whoever answers answers by the same verbs, whole or piece by piece."""

import gc
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftlab_kit import Workspace, chats, checkpoints, models
from ftlab_kit.chats.targets import ChatModel
from ftlab_kit.errors import Conflict, InputError, NotFound, Unavailable
from ftlab_kit.lm import generation
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Job, Message
from tests.chat_server import ChatServer, serving

ASK = [{"role": "user", "content": "What colour is snow?"}]


@pytest.fixture(scope="module")
def tiny(lab: Workspace) -> Iterator[ChatModel]:
    with chats.open(lab, "tiny") as speaker:
        yield speaker


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda turns: f"You said: {turns[-1]['content']}") as made:
        yield made


@pytest.fixture(params=["openai", "anthropic"])
def hosted(request: pytest.FixtureRequest, server: ChatServer) -> str:
    return f"openai:m@{server.url}" if request.param == "openai" else f"anthropic:m@{server.root}"


def heard(pieces: Generator[str, None, Message]) -> tuple[list[str], Message]:
    found = []
    while True:
        try:
            found.append(next(pieces))
        except StopIteration as end:
            return found, end.value


def same(one: Message, other: Message) -> bool:
    facts = ("role", "content", "usage", "is_complete", "left_out")
    return all(getattr(one, name) == getattr(other, name) for name in facts)


class Parrot(torch.nn.Module):
    """A model that says the tokens that it was given, one after another."""

    def __init__(self, like: Any, tokens: list[int]) -> None:
        super().__init__()
        self.config, self.generation_config = like.config, like.generation_config
        self.device, self.tokens = like.device, iter(tokens)

    def forward(self, input_ids: Any, past_key_values: Any = None, **_: Any) -> Any:
        logits = torch.zeros(1, 1, self.config.vocab_size)
        logits[..., next(self.tokens)] = 1.0
        return SimpleNamespace(logits=logits)


def spoken(tiny: ChatModel, tokens: list[int]) -> list[str]:
    """The pieces of an answer of these tokens."""
    tokenizer = tiny.tokenizer
    model = Parrot(tiny.model, [*tokens, tokenizer.eos_token_id])
    return [*generation.stream(model, tokenizer, "Hi", GenerationSettings())]


def test_a_base_model_answers_with_its_tokens_and_no_cost(lab: Workspace):
    said = chats.reply(lab, "tiny", ASK, max_new_tokens=6)
    assert (said.role, said.usage.n_output_tokens, said.is_complete) == ("assistant", 6, False)
    assert (said.usage.n_input_tokens or 0) > 6
    assert said.usage.cost_usd is None and said.seconds > 0


def test_a_text_is_what_a_person_says_first(lab: Workspace, tiny: ChatModel):
    asked = chats.reply(lab, tiny, ASK[0]["content"], max_new_tokens=4)
    assert same(asked, chats.reply(lab, tiny, ASK, max_new_tokens=4))


def test_a_job_its_number_and_its_checkpoint_say_the_same(lab: Workspace, job: Job):
    last = checkpoints.get(lab, job)
    found = [chats.reply(lab, who, ASK, max_new_tokens=8) for who in (job, str(job.id), last)]
    assert same(found[0], found[1]) and same(found[1], found[2])
    assert not same(found[0], chats.reply(lab, "tiny", ASK, max_new_tokens=8))


def test_of_a_job_one_checkpoint_is_asked(lab: Workspace, job: Job):
    first = checkpoints.list(lab, job)[0].step
    with chats.open(lab, job, checkpoint=first) as speaker:
        assert (speaker.job_id, speaker.step) == (job.id, first)
    with chats.open(lab, job, checkpoint="best") as speaker:
        assert speaker.step == checkpoints.best(lab, job).step


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("tinny", NotFound, "There is no model 'tinny'"),
        (10_000, NotFound, "There is no job 10000"),
        (Path("/nowhere/model.gguf"), InputError, "does not exist; expected a .gguf file"),
        ("antropic:claude", InputError, "names no hosted model.*Did you mean 'anthropic'"),
        ("openai:", InputError, "can't be read; expected provider:name"),
    ],
)
def test_a_target_that_is_none_is_said(
    lab: Workspace, target: Any, error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        chats.open(lab, target)


def test_a_checkpoint_that_is_none_is_said(lab: Workspace, job: Job):
    with pytest.raises(InputError, match="checkpoint is 'newest'; expected 'last', 'best' or"):
        chats.reply(lab, job, ASK, checkpoint="newest")


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected 1 or more"),
        ({"temperature": -0.5}, "temperature is -0.5; expected 0 or more"),
    ],
)
def test_a_manner_in_which_nothing_can_be_said_is_refused(
    lab: Workspace, tiny: ChatModel, manner: Any, words: str
):
    with pytest.raises(InputError, match=words):
        chats.reply(lab, tiny, ASK, **manner)


def test_many_chats_are_answered_in_order(lab: Workspace, tiny: ChatModel):
    asked = ["word " * n for n in (9, 1, 5)]
    told: list[tuple[int, int]] = []
    found = chats.replies(
        lab, tiny, asked, max_new_tokens=5, progress=lambda *news: told.append(news)
    )
    alone = [chats.reply(lab, tiny, text, max_new_tokens=5) for text in asked]
    assert all(item and same(item, other) for item, other in zip(found, alone, strict=True))
    assert told == [(3, 3)]


def test_what_the_time_does_not_suffice_for_is_said(lab: Workspace, tiny: ChatModel):
    told: dict[int, str] = {}
    found = chats.replies(lab, tiny, ["Hi"], max_seconds=0.0, refused=told.__setitem__)
    assert (found, told) == ([None], {0: "Not asked: the time was up. Give more with max_seconds."})
    with pytest.raises(Unavailable, match="the time was up"):
        chats.reply(lab, tiny, "Hi", max_seconds=0.0)


def test_a_speaker_that_is_open_is_asked_again_and_again(lab: Workspace, tiny: ChatModel):
    model = tiny.model
    for _ in range(3):
        chats.reply(lab, tiny, ASK, max_new_tokens=2)
        [*chats.stream(lab, tiny, ASK, max_new_tokens=2)]
    assert tiny.model is model is not None


def test_a_speaker_that_is_closed_has_given_its_memory_back(lab: Workspace, job: Job):
    with chats.open(lab, job) as speaker:
        weights = weakref.ref(next(speaker.model.parameters()))
        chats.reply(lab, speaker, ASK, max_new_tokens=2)
    gc.collect()
    assert weights() is None
    with pytest.raises(Conflict, match="step 4 is closed.*Open it again with chats.open"):
        chats.reply(lab, speaker, ASK)


@pytest.mark.parametrize("manner", [{}, {"temperature": 1.0, "seed": 3}])
def test_the_pieces_joined_are_the_answer(lab: Workspace, tiny: ChatModel, manner: Any):
    pieces, message = heard(chats.stream(lab, tiny, ASK, max_new_tokens=24, **manner))
    whole = chats.reply(lab, tiny, ASK, max_new_tokens=24, **manner)
    assert len(pieces) > 1
    assert "".join(pieces).strip() == whole.content
    assert same(message, whole)


def test_what_is_drawn_without_a_seed_is_left_to_chance(lab: Workspace, tiny: ChatModel):
    found = {chats.reply(lab, tiny, "Hi", max_new_tokens=8, temperature=1.0).content for _ in "ab"}
    assert len(found) == 2


def test_half_characters_are_held_back(tiny: ChatModel):
    text = "né 日本 😀!"
    tokens = tiny.tokenizer(text)["input_ids"]
    pieces = spoken(tiny, tokens)
    assert "".join(pieces) == text
    assert len(pieces) < len(tokens)  # some are half characters
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_become_no_character_are_told_in_the_end(tiny: ChatModel):
    half = tiny.tokenizer("日")["input_ids"][0]
    other = tiny.tokenizer("a")["input_ids"][0]
    assert spoken(tiny, [other, half, other, half]) == ["a", "\ufffda", "\ufffd"]


def test_an_answer_that_is_stopped_leaves_the_model_as_it_was(lab: Workspace, tiny: ChatModel):
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


def test_two_answers_are_made_by_turns(lab: Workspace, tiny: ChatModel):
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


def test_turns_that_are_no_chat_are_refused(lab: Workspace, tiny: ChatModel):
    with pytest.raises(InputError, match="Turn 0 is of 'bot'.*the model 'assistant'"):
        chats.reply(lab, tiny, [{"role": "bot", "content": "Hi"}])
    with pytest.raises(InputError, match="Chat 1: Nothing is asked"):
        chats.replies(lab, tiny, ["Hi", []])


def test_a_model_that_knows_them_is_told_results_of_tools(lab: Workspace, tiny: ChatModel):
    turns = [*ASK, {"role": "tool", "content": "white"}]
    asked = [chats.reply(lab, tiny, each, max_new_tokens=2).usage for each in (ASK, turns)]
    assert (asked[0].n_input_tokens or 0) < (asked[1].n_input_tokens or 0)


def test_a_hosted_answer_comes_in_pieces(lab: Workspace, hosted: str):
    pieces, message = heard(chats.stream(lab, hosted, ASK))
    assert pieces == ["You", " said:", " What", " colour", " is", " snow?"]
    assert same(message, chats.reply(lab, hosted, ASK))


def test_a_hosted_answer_in_pieces_says_that_it_is_cut(lab: Workspace, hosted: str):
    pieces, message = heard(chats.stream(lab, hosted, ASK, max_new_tokens=2))
    assert (pieces, message.is_complete) == (["You", " said:"], False)


def test_a_hosted_answer_that_is_empty_has_no_pieces(lab: Workspace):
    with serving(lambda turns: "") as silent:
        for model in (f"openai:m@{silent.url}", f"anthropic:m@{silent.root}"):
            pieces, message = heard(chats.stream(lab, model, ASK))
            assert (pieces, message.content, message.usage.n_output_tokens) == ([], "", 0)


def test_a_setting_that_a_model_takes_none_of_is_left_out_of_a_stream(lab: Workspace):
    untaken = frozenset({"temperature", "stream_options"})
    with serving(lambda turns: "Yes", untaken=untaken) as strict:
        _, message = heard(chats.stream(lab, f"openai:m@{strict.url}", ASK))
    assert (message.content, message.left_out) == ("Yes", ("temperature",))
    assert message.usage.n_output_tokens is None  # who may not ask is not told


def test_a_stream_that_is_stopped_hangs_up(lab: Workspace):
    with serving(lambda turns: "word " * 200_000) as server:
        pieces = chats.stream(lab, f"openai:m@{server.url}", ASK, max_new_tokens=200_000)
        assert [next(pieces), next(pieces)] == ["word", " word"]
        pieces.close()
    assert server.n_streamed < 200_000


def test_what_a_stopped_stream_costs_is_not_known(lab: Workspace, hosted: str):
    with chats.open(lab, hosted) as speaker:
        pieces = chats.stream(lab, speaker, ASK)
        next(pieces)
        pieces.close()
        assert speaker.cost_usd is None


@pytest.mark.parametrize(
    ("words_of_break", "words"),
    [("", "broke off its answer .*peer closed"), ("overloaded", "broke off .*overloaded.*Ask ag")],
)
def test_an_answer_that_breaks_off_is_said(
    lab: Workspace, server: ChatServer, hosted: str, words_of_break: str, words: str
):
    server.breaks_after, server.words_of_break = 3, words_of_break
    pieces = chats.stream(lab, hosted, ASK)
    assert next(pieces) == "You"
    with pytest.raises(Unavailable, match=words):
        "".join(pieces)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ((400, "The context is too long"), InputError, "refused by .*too long.*Shorten the chat"),
        ((402, "Pay first"), Unavailable, "There is no credit left for .*Add credit"),
        ((307, "elsewhere"), Unavailable, "sends on to http://127.0.0.1:1/v1"),
        ((200, "<html>Welcome</html>"), Unavailable, "answers, but not as .* does. Correct the"),
        ((200, "data: {broken\n\n"), Unavailable, "answers, but not as .* does"),
        ((200, '{"models": []}'), Unavailable, "answers, but not as .* does"),
    ],
)
def test_what_a_server_refuses_is_said_of_a_stream_too(
    lab: Workspace, server: ChatServer, hosted: str, fault: Any, error: Any, words: str
):
    server.faults = [fault]
    with pytest.raises(error, match=words):
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

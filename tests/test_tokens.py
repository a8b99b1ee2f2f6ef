from types import SimpleNamespace
from typing import Any

import pytest

from ftlab_kit import Workspace, models
from ftlab_kit.errors import DataError
from ftlab_kit.lm import loading, tokens

CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "Well, 42."},
]


@pytest.fixture(scope="module")
def tokenizer(lab: Workspace) -> Any:
    path = models.get(lab, "tiny").path
    assert path is not None
    return loading.tokenizer(path)


def trained(tokenizer: Any, encoded: tokens.Encoded) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != tokens.IGNORED])


def test_every_answer_is_trained_with_its_end_token_and_nothing_else(tokenizer: Any):
    encoded = tokens.encode(tokenizer, CHAT)
    assert trained(tokenizer, encoded) == "Ho<|im_end|>Well, 42.<|im_end|>"
    assert encoded.has_end


def test_the_tokens_are_those_of_the_rendered_chat(tokenizer: Any):
    encoded = tokens.encode(tokenizer, CHAT)
    text = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert tokenizer.decode(encoded.input_ids) == text


def test_an_answer_begins_where_the_prompt_ends(tokenizer: Any):
    encoded = tokens.encode(tokenizer, CHAT[:3])
    prompt = tokenizer(tokens.prompt(tokenizer, CHAT[:2]), add_special_tokens=False)["input_ids"]
    first = next(at for at, label in enumerate(encoded.labels) if label != tokens.IGNORED)
    assert encoded.input_ids[:first] == prompt


def test_a_word_that_the_prompt_holds_too_is_found_in_the_answer(tokenizer: Any):
    chat = [{"role": "user", "content": "user"}, {"role": "assistant", "content": "user"}]
    assert trained(tokenizer, tokens.encode(tokenizer, chat)) == "user<|im_end|>"


def test_a_cut_counts_the_trained_tokens_that_it_takes(tokenizer: Any):
    whole = tokens.encode(tokenizer, CHAT)
    cut = tokens.encode(tokenizer, CHAT, max_length=len(whole.input_ids) - 3)
    assert cut.n_cut == whole.n_trained - cut.n_trained > 0


def test_an_answer_that_nothing_closes_has_no_end(tokenizer: Any):
    template = tokenizer.chat_template
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    try:
        assert not tokens.encode(tokenizer, CHAT).has_end
    finally:
        tokenizer.chat_template = template


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any):
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }} {{ messages[-1].content }}"
    try:
        with pytest.raises(DataError, match="changes the turns before answer 2"):
            tokens.encode(tokenizer, CHAT)
    finally:
        tokenizer.chat_template = template


def with_template(tokenizer: Any, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)


TRIMMING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_trims_trains_the_answer_and_not_who_repeats_it(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    with_template(tokenizer, TRIMMING, monkeypatch)
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes "},
        {"role": "user", "content": "You said Yes and then"},
        {"role": "assistant", "content": " No."},
    ]
    encoded = tokens.encode(tokenizer, chat)
    assert trained(tokenizer, encoded) == "Yes<|im_end|>No.<|im_end|>"
    assert encoded.has_end


def test_a_template_that_refuses_a_role_is_said_in_words(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    with_template(tokenizer, "{{ raise_exception('System role not supported') }}", monkeypatch)
    with pytest.raises(DataError, match="refuses a row with the roles system, user, assistant"):
        tokens.encode(tokenizer, CHAT)


def test_an_answer_ends_where_the_template_the_tokenizer_or_the_model_says(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[7, 2]))
    assert tokens.end_tokens(tokenizer, model) == [2, 7]
    with_template(tokenizer, TRIMMING.replace("<|im_end|>", "<|endoftext|>"), monkeypatch)
    model.generation_config.eos_token_id = None
    assert tokens.end_tokens(tokenizer, model) == [0, 2]


def test_fingerprint_changes_with_the_chat_template_but_not_with_the_weights(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("a")
    before = tokens.fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_text("weights")
    assert tokens.fingerprint(tmp_path) == before
    (tmp_path / "chat_template.jinja").write_text("b")
    assert tokens.fingerprint(tmp_path) != before

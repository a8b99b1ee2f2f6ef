import hashlib
import json
import re
from typing import Any

import numpy as np
import pytest

from ftlab_kit import Workspace
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.errors import ConfigError, InputError, NotFound
from ftlab_kit.evaluators import judge, rubric
from ftlab_kit.evaluators.measures import EvaluationContext, EvaluatorResult, Example
from ftlab_kit.evaluators.rubric import Judgement, Pair, Unreadable
from ftlab_kit.records import Message, Progress, Usage
from tests.chat_server import Turns, serving
from tests.conftest import add_pairs

NAMES = ["correct", "kind and clear"]
PAIR = Pair("user: What colour is snow?", "Snow is white.", "Snow is {black}.")


def reply(first: float, second: float, names: Any = ("correct", "helpful", "clear")) -> str:
    sides = {"answer_1": first, "answer_2": second}
    return json.dumps({side: dict.fromkeys(names, mark) for side, mark in sides.items()})


def parts(turns: Turns) -> list[str]:
    names = ("conversation", "answer_1", "answer_2")
    text = turns[-1]["content"]
    matches = [re.search(rf"<{name}>\n(.*?)\n</{name}>", text, re.DOTALL) for name in names]
    return [match[1] for match in matches if match]


def by_overlap(turns: Turns) -> str:
    """A judge that marks an answer by the tokens that it shares with the question."""
    question, *answers = (set(text.lower().split()) for text in parts(turns))
    first, second = (min(5, 1 + len(question & answer)) for answer in answers)
    return reply(first, second)


def first_always(turns: Turns) -> str:
    return reply(5, 2)


def prose(turns: Turns) -> str:
    return "Both are lovely in their own way."


def fenced(turns: Turns) -> str:
    return f"Here you are:\n```json\n{by_overlap(turns)}\n```\nThe first is better."


def broken_of_sky(turns: Turns) -> str:
    return by_overlap(turns)[:-1] if "sky" in parts(turns)[0] else by_overlap(turns)


def examples() -> list[Example]:
    """A row that is won, one that is lost, one that is even, and one without an answer."""
    rows = [
        ("Is the sky blue ?", "no idea", "sky is blue"),
        ("Is grass green ?", "grass is green", "no idea"),
        ("Is coal black ?", "coal is black", "black coal is"),
        ("Is snow white ?", "snow is white", None),
    ]
    return [
        Example(
            row=number,
            messages=[
                {"role": "user", "content": question},
                {"role": "assistant", "content": reference},
            ],
            prompt=question,
            reference=reference,
            answer=answer,
        )
        for number, (question, reference, answer) in enumerate(rows)
    ]


def judged(ws: Workspace, reply_to: Any, **more: Any) -> EvaluatorResult:
    with serving(reply_to) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}", **more)
        return judge.score(examples(), EvaluationContext(ws, config))


def total(scored: EvaluatorResult, name: str) -> float:
    measure = next(item for item in judge.MEASURES if item.name == name)
    return float(measure.total(np.sum([each for each in scored.counts[name] if each], axis=0)))


def test_a_judge_marks_every_row_that_has_an_answer(ws: Workspace):
    scored = judged(ws, by_overlap)
    assert scored.reason is None
    assert scored.counts["judge"] == [(4.0, 1.0), (1.0, 1.0), (4.0, 1.0), None]
    assert total(scored, "judge") == 3
    assert scored.details["criteria"] == {"correct": 3.0, "helpful": 3.0, "clear": 3.0}


def test_a_win_is_one_a_tie_a_half_a_loss_nothing(ws: Workspace):
    scored = judged(ws, by_overlap)
    assert scored.counts["judge_win_rate"] == [(1.0, 1.0), (0.0, 1.0), (0.5, 1.0), None]
    assert total(scored, "judge_win_rate") == 0.5
    assert (scored.details["order_agreement"], scored.details["n_judged"]) == (1.0, 3)


def test_a_judge_that_prefers_the_first_answer_shown_decides_nothing(ws: Workspace):
    scored = judged(ws, first_always)
    assert total(scored, "judge_win_rate") == 0.5
    assert scored.details["order_agreement"] == 0
    assert scored.details["first_preferred"] == 1
    assert total(scored, "judge") == 3.5


def test_prose_is_not_a_judgement_and_never_zero(ws: Workspace):
    scored = judged(ws, prose)
    assert scored.counts == {"judge": [None] * 4, "judge_win_rate": [None] * 4}
    assert scored.reason is not None
    assert re.search(
        "for any of 3 rows.*no complete JSON.*'Both are lovely.*stronger", scored.reason
    )
    assert (scored.details["n_judged"], scored.details["n_refused"]) == (0, 3)
    assert scored.details["criteria"] == {"correct": None, "helpful": None, "clear": None}


def test_rows_whose_marks_are_broken_are_left_out_and_counted(ws: Workspace):
    scored = judged(ws, broken_of_sky)
    assert [each is None for each in scored.counts["judge"]] == [True, False, False, True]
    assert (scored.details["n_judged"], scored.details["n_refused"]) == (2, 1)
    assert scored.details["example"].startswith('{"answer_1"')
    assert scored.reason is None


def test_a_fence_and_text_around_the_marks_do_no_harm(ws: Workspace):
    assert judged(ws, fenced).counts == judged(ws, by_overlap).counts


def message(text: str, *, is_complete: bool) -> Message:
    return Message("assistant", text, Usage(None, None, None), is_complete, 0.0)


def test_a_reply_that_is_cut_says_so():
    cut = message('{"answer_1": {"correct": 5', is_complete=False)
    results = judge.read_replies([cut, cut], ["correct"])
    assert results.by_pair == [None]
    assert results.reasons == {"the reply was cut, and there is no complete JSON object": 1}


def test_a_pair_needs_both_its_replies():
    good = message(reply(4, 2, ["correct"]), is_complete=True)
    results = judge.read_replies([good, None, good, good], ["correct"])
    assert [item is None for item in results.by_pair] == [True, False]
    assert (results.reasons, results.example) == ({"there was no reply": 1}, None)


def test_a_judge_that_is_unavailable_loses_no_answers(ws: Workspace):
    with serving(by_overlap, key="sk-good") as server:
        for name, reason in ((f"openai:m@{server.url}", "Set OPENAI_API_KEY"), ("tinny", "tinny")):
            config = EvaluationConfig(judge=name)
            scored = judge.score(examples(), EvaluationContext(ws, config))
            assert scored.counts["judge"] == [None] * 4
            assert reason in str(scored.reason)


def test_without_a_judge_the_reason_says_so(ws: Workspace):
    scored = judge.score(examples(), EvaluationContext(ws, EvaluationConfig()))
    assert scored.reason == "judge is not set; expected a model. Set judge to one."
    assert not any(scored.counts["judge"])


def test_criteria_that_name_nothing_are_refused():
    with pytest.raises(ConfigError, match="criteria is empty"):
        EvaluationConfig(judge="tiny", criteria=" , ")


def test_rows_without_any_answer_have_no_score(ws: Workspace):
    config = EvaluationConfig(judge="openai:m@http://x/v1")
    scored = judge.score(examples()[3:], EvaluationContext(ws, config))
    assert scored.reason == "No row has two answers to compare."


def test_a_model_on_this_machine_can_judge(lab: Workspace):
    reports: list[Progress] = []
    config = EvaluationConfig(judge="tiny", criteria="correct")
    scored = judge.score(examples()[:1], EvaluationContext(lab, config, reports.append))
    assert scored.counts["judge"] == [None]  # its weights are random
    assert "tiny gave no readable marks" in str(scored.reason)
    assert reports == [Progress("judge", 2, 2)]


def test_the_judge_sees_the_whole_conversation(ws: Workspace):
    turns = [("system", "Be short."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Is it so?")]
    before = [{"role": role, "content": text} for role, text in turns]
    messages = [*before, {"role": "assistant", "content": "Yes"}]
    row = Example(0, messages, "", "Yes", answer="No")
    with serving(by_overlap) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}")
        judge.score([row], EvaluationContext(ws, config))
        seen = [parts(request["messages"]) for request in server.requests]
    conversation = "system: Be short.\n\nuser: Hi\n\nassistant: Hello\n\nuser: Is it so?"
    assert sorted(seen) == [[conversation, "No", "Yes"], [conversation, "Yes", "No"]]


def test_the_prompt_asks_for_every_criterion_in_json():
    text = rubric.prompt(PAIR, NAMES)[0]["content"]
    assert '{"answer_1": {"correct": <mark>, "kind and clear": <mark>}, "answer_2": {' in text
    assert "Snow is {black}." in text
    assert parts(rubric.prompt(PAIR.swapped, NAMES))[1:] == ["Snow is {black}.", "Snow is white."]


def test_criteria_are_named_once_each():
    assert rubric.criteria(" correct, kind and clear,,correct ") == NAMES


def test_marks_are_those_of_the_first_object():
    text = f"Well {{so}}: {reply(4, 2, NAMES)} or {reply(1, 1, NAMES)}"
    assert rubric.marks(text, NAMES) == {"correct": (4, 2), "kind and clear": (4, 2)}


def test_a_judges_reasoning_does_not_count():
    text = f"<think>Perhaps {reply(1, 1, NAMES)}?</think>{reply(4, 2, NAMES)}"
    assert rubric.marks(text, NAMES)["correct"] == (4, 2)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no complete JSON object"),
        ("[4, 2]", "no complete JSON object"),
        ('{"a": ' * 5000, "no complete JSON object"),
        ('{"answer_1": {"correct": 4}}', "answer_1.kind and clear: Field required"),
        (reply(4, 6, NAMES), "answer_2.correct: .* less than or equal to 5"),
        (reply(0, 3, NAMES), "answer_1.correct: .* greater than or equal to 1"),
        (reply(4, float("nan"), NAMES), "answer_2.correct: .* finite number"),
        ('{"winner": 1}', "answer_1: Field required"),
    ],
)
def test_a_reply_in_another_format_is_not_a_judgement(text: str, problem: str):
    with pytest.raises(Unreadable, match=problem):
        rubric.marks(text, NAMES)


@pytest.mark.parametrize(
    ("straight", "swapped", "win"),
    [((5, 1), (5, 1), 1), ((5, 1), (3, 3), 1), ((5, 1), (2, 3), 0.5), ((1, 5), (3, 3), 0)],
)
def test_a_row_is_won_by_the_answer_preferred_more_often(straight: Any, swapped: Any, win: float):
    assert Judgement({"correct": straight}, {"correct": swapped}).win == win


def test_agreement_with_people_is_measured(lab: Workspace):
    pairs = add_pairs(lab)
    with serving(by_overlap) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}")
        agreement = judge.agreement(EvaluationContext(lab, config), pairs.id)
    assert (agreement["share"], agreement["kappa"]) == (1.0, 1.0)
    assert agreement["n_judged"] == pairs.n_rows
    assert agreement["low"] == pytest.approx(20 / (20 + 1.959964**2))  # Wilson's, where all agree
    assert agreement["high"] == 1


def test_a_judge_that_prefers_the_first_answer_shown_agrees_by_chance_alone(lab: Workspace):
    pairs = add_pairs(lab)
    with serving(first_always) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}", judge_labels=pairs.id)
        details = judge.score(examples(), EvaluationContext(lab, config)).details
    agreement = details["agreement"]
    assert (agreement["share"], agreement["kappa"], agreement["order_agreement"]) == (0.5, 0, 0)
    assert agreement["n_ties"] == agreement["n_judged"] == pairs.n_rows


def test_agreement_of_a_judge_in_prose_is_unknown(lab: Workspace):
    with serving(prose) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}", max_rows=3)
        agreement = judge.agreement(EvaluationContext(lab, config), add_pairs(lab).id)
    assert [agreement[name] for name in ("share", "low", "high", "kappa")] == [None] * 4
    assert "for any of 3 rows" in agreement["reason"]


def test_labels_that_are_not_preferences_are_refused(lab: Workspace):
    config = EvaluationConfig(judge="openai:m@http://127.0.0.1:1/v1")
    with pytest.raises(InputError, match="Version 1 holds rows of kind chat; expected preferences"):
        judge.agreement(EvaluationContext(lab, config), 1)
    with pytest.raises(NotFound):
        judge.agreement(EvaluationContext(lab, config), 999)


def test_wrong_labels_lose_no_marks(lab: Workspace):
    scored = judged(lab, by_overlap, judge_labels=1)
    assert total(scored, "judge") == 3
    assert scored.details["agreement"]["share"] is None
    assert "expected preferences" in scored.details["agreement"]["reason"]


def test_an_interval_is_never_narrower_than_wilsons():
    low, high = judge.win_rate_interval([1.0, 0.5, 0.0, 1.0])  # 2.5 of 4
    narrow_low, _ = judge.win_rate_interval([1.0, 1.0, 0.0, 0.0])
    _, wide_high = judge.win_rate_interval([1.0, 1.0, 1.0, 0.0])
    assert (low, high) == (narrow_low, wide_high)
    assert judge.win_rate_interval([]) == (None, None)


def test_the_wording_of_the_prompt_is_this():
    # every judged score depends on it: change it only on purpose, and say so in the changelog
    digest = hashlib.sha256(rubric.WORDING.encode()).hexdigest()
    assert digest[:16] == "535279710192ec7f"
    assert (rubric.LOWEST, rubric.HIGHEST) == (1, 5)
    assert (judge.REPLY_TOKENS, judge.CRITERION_TOKENS, judge.HOSTED_REPLY_TOKENS) == (64, 32, 4096)

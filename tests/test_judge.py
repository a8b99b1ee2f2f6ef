import json
import re
from typing import Any

import numpy as np
import pytest

from ftlab_kit import Workspace
from ftlab_kit.configs import EvaluationConfig
from ftlab_kit.errors import ConfigError, InputError, NotFound
from ftlab_kit.evaluators import judge, rubric
from ftlab_kit.evaluators.measures import Ask, Case, Scored
from ftlab_kit.evaluators.rubric import Judged, Pair, Unreadable
from ftlab_kit.records import Message, Usage
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
    found = [re.search(rf"<{name}>\n(.*?)\n</{name}>", text, re.DOTALL) for name in names]
    return [item[1] for item in found if item]


def by_overlap(turns: Turns) -> str:
    """A judge that likes an answer for the words that the question has too."""
    asked, *answers = (set(text.lower().split()) for text in parts(turns))
    first, second = (min(5, 1 + len(asked & words)) for words in answers)
    return reply(first, second)


def first_always(turns: Turns) -> str:
    return reply(5, 2)


def prose(turns: Turns) -> str:
    return "Both are lovely in their own way."


def fenced(turns: Turns) -> str:
    return f"Here you are:\n```json\n{by_overlap(turns)}\n```\nThe first is better."


def broken_of_sky(turns: Turns) -> str:
    return by_overlap(turns)[:-1] if "sky" in parts(turns)[0] else by_overlap(turns)


def cases() -> list[Case]:
    """A row that is won, one that is lost, one that is even, and one without an answer."""
    rows = [
        ("Is the sky blue ?", "no idea", "sky is blue"),
        ("Is grass green ?", "grass is green", "no idea"),
        ("Is coal black ?", "coal is black", "black coal is"),
        ("Is snow white ?", "snow is white", None),
    ]
    return [
        Case(
            row=number,
            messages=[
                {"role": "user", "content": question},
                {"role": "assistant", "content": reference},
            ],
            question=question,
            reference=reference,
            answer=answer,
        )
        for number, (question, reference, answer) in enumerate(rows)
    ]


def judged(ws: Workspace, say: Any, **more: Any) -> Scored:
    with serving(say) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}", **more)
        return judge.score(cases(), Ask(ws, config))


def total(scored: Scored, name: str) -> float:
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


def test_a_judge_that_likes_the_first_answer_decides_nothing(ws: Workspace):
    scored = judged(ws, first_always)
    assert total(scored, "judge_win_rate") == 0.5
    assert scored.details["order_agreement"] == 0
    assert scored.details["first_preferred"] == 1
    assert total(scored, "judge") == 3.5


def test_prose_is_no_judgement_and_never_zero(ws: Workspace):
    scored = judged(ws, prose)
    assert scored.counts == {"judge": [None] * 4, "judge_win_rate": [None] * 4}
    assert scored.reason is not None
    assert re.search("for any of 3 rows.*no whole JSON.*'Both are lovely.*stronger", scored.reason)
    assert (scored.details["n_judged"], scored.details["n_refused"]) == (0, 3)
    assert scored.details["criteria"] == {"correct": None, "helpful": None, "clear": None}


def test_rows_whose_marks_are_broken_are_left_out_and_counted(ws: Workspace):
    scored = judged(ws, broken_of_sky)
    assert [each is None for each in scored.counts["judge"]] == [True, False, False, True]
    assert (scored.details["n_judged"], scored.details["n_refused"]) == (2, 1)
    assert scored.details["example"].startswith('{"answer_1"')
    assert scored.reason is None


def test_a_fence_and_words_around_the_marks_do_no_harm(ws: Workspace):
    assert judged(ws, fenced).counts == judged(ws, by_overlap).counts


def said(text: str, *, is_complete: bool) -> Message:
    return Message("assistant", text, Usage(None, None, None), is_complete, 0.0)


def test_a_reply_that_is_cut_says_so():
    cut = said('{"answer_1": {"correct": 5', is_complete=False)
    found = judge.read([cut, cut], ["correct"])
    assert found.judged == [None]
    assert found.reasons == {"the reply was cut, and there is no whole JSON object": 1}


def test_a_pair_needs_both_its_replies():
    good = said(reply(4, 2, ["correct"]), is_complete=True)
    found = judge.read([good, None, good, good], ["correct"])
    assert [item is None for item in found.judged] == [True, False]
    assert (found.reasons, found.example) == ({"no reply came": 1}, None)


def test_a_judge_that_can_not_be_had_costs_no_answers(ws: Workspace):
    with serving(by_overlap, key="sk-good") as server:
        for name, words in ((f"openai:m@{server.url}", "Set OPENAI_API_KEY"), ("tinny", "tinny")):
            scored = judge.score(cases(), Ask(ws, EvaluationConfig(judge=name)))
            assert scored.counts["judge"] == [None] * 4
            assert words in str(scored.reason)


def test_without_a_judge_the_reason_says_so(ws: Workspace):
    scored = judge.score(cases(), Ask(ws, EvaluationConfig()))
    assert scored.reason == "No judge is named; expected a model. Set judge to one."
    assert not any(scored.counts["judge"])


def test_criteria_that_name_nothing_are_said():
    with pytest.raises(ConfigError, match="criteria names nothing"):
        EvaluationConfig(judge="tiny", criteria=" , ")


def test_rows_without_any_answer_have_no_score(ws: Workspace):
    scored = judge.score(cases()[3:], Ask(ws, EvaluationConfig(judge="openai:m@http://x/v1")))
    assert scored.reason == "There is no row with two answers to compare."


def test_a_model_on_this_machine_can_judge(lab: Workspace):
    told: list[tuple[int, int]] = []
    config = EvaluationConfig(judge="tiny", criteria="correct")
    scored = judge.score(cases()[:1], Ask(lab, config, lambda *news: told.append(news)))
    assert scored.counts["judge"] == [None]  # it is a random one
    assert "tiny gave no marks that can be read" in str(scored.reason)
    assert told == [(2, 2)]


def test_the_judge_sees_all_that_was_said_before(ws: Workspace):
    turns = [("system", "Be short."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Is it so?")]
    before = [{"role": role, "content": said} for role, said in turns]
    case = Case(0, [*before, {"role": "assistant", "content": "Yes"}], "", "Yes", answer="No")
    with serving(by_overlap) as server:
        judge.score([case], Ask(ws, EvaluationConfig(judge=f"openai:m@{server.url}")))
        seen = [parts(asked["messages"]) for asked in server.requests]
    told = "system: Be short.\n\nuser: Hi\n\nassistant: Hello\n\nuser: Is it so?"
    assert sorted(seen) == [[told, "No", "Yes"], [told, "Yes", "No"]]


def test_the_prompt_asks_for_every_criterion_in_json():
    text = rubric.prompt(PAIR, NAMES)[0]["content"]
    assert '{"answer_1": {"correct": <mark>, "kind and clear": <mark>}, "answer_2": {' in text
    assert "Snow is {black}." in text
    assert parts(rubric.prompt(PAIR.turned, NAMES))[1:] == ["Snow is {black}.", "Snow is white."]


def test_criteria_are_named_once_each():
    assert rubric.criteria(" correct, kind and clear,,correct ") == NAMES


def test_marks_are_those_of_the_first_object():
    said = f"Well {{so}}: {reply(4, 2, NAMES)} or {reply(1, 1, NAMES)}"
    assert rubric.marks(said, NAMES) == {"correct": (4, 2), "kind and clear": (4, 2)}


def test_what_a_judge_thinks_first_does_not_count():
    said = f"<think>Perhaps {reply(1, 1, NAMES)}?</think>{reply(4, 2, NAMES)}"
    assert rubric.marks(said, NAMES)["correct"] == (4, 2)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "no whole JSON object"),
        ("[4, 2]", "no whole JSON object"),
        ('{"a": ' * 5000, "no whole JSON object"),
        ('{"answer_1": {"correct": 4}}', "answer_1.kind and clear: Field required"),
        (reply(4, 6, NAMES), "answer_2.correct: .* less than or equal to 5"),
        (reply(0, 3, NAMES), "answer_1.correct: .* greater than or equal to 1"),
        (reply(4, float("nan"), NAMES), "answer_2.correct: .* finite number"),
        ('{"winner": 1}', "answer_1: Field required"),
    ],
)
def test_what_was_not_asked_for_is_no_judgement(said: str, words: str):
    with pytest.raises(Unreadable, match=words):
        rubric.marks(said, NAMES)


@pytest.mark.parametrize(
    ("straight", "turned", "won"),
    [((5, 1), (5, 1), 1), ((5, 1), (3, 3), 1), ((5, 1), (2, 3), 0.5), ((1, 5), (3, 3), 0)],
)
def test_a_row_is_won_by_who_is_preferred_more_often(straight: Any, turned: Any, won: float):
    assert Judged({"correct": straight}, {"correct": turned}).won == won


def test_agreement_with_people_is_measured(lab: Workspace):
    pairs = add_pairs(lab)
    with serving(by_overlap) as server:
        found = judge.agreement(
            Ask(lab, EvaluationConfig(judge=f"openai:m@{server.url}")), pairs.id
        )
    assert (found["share"], found["kappa"], found["n_judged"]) == (1.0, 1.0, pairs.n_rows)
    assert found["low"] == pytest.approx(20 / (20 + 1.959964**2))  # Wilson's, where all agree
    assert found["high"] == 1


def test_a_judge_that_likes_the_first_answer_agrees_by_chance_alone(lab: Workspace):
    pairs = add_pairs(lab)
    with serving(first_always) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}", judge_labels=pairs.id)
        found = judge.score(cases(), Ask(lab, config)).details["agreement"]
    assert (found["share"], found["kappa"], found["order_agreement"]) == (0.5, 0.0, 0.0)
    assert found["n_ties"] == found["n_judged"] == pairs.n_rows


def test_agreement_of_a_judge_in_prose_is_unknown(lab: Workspace):
    with serving(prose) as server:
        config = EvaluationConfig(judge=f"openai:m@{server.url}", max_rows=3)
        found = judge.agreement(Ask(lab, config), add_pairs(lab).id)
    assert [found[name] for name in ("share", "low", "high", "kappa")] == [None] * 4
    assert "for any of 3 rows" in found["reason"]


def test_labels_that_are_no_preferences_are_refused(lab: Workspace):
    config = EvaluationConfig(judge="openai:m@http://127.0.0.1:1/v1")
    with pytest.raises(InputError, match="Version 1 holds rows of kind chat; expected preferences"):
        judge.agreement(Ask(lab, config), 1)
    with pytest.raises(NotFound):
        judge.agreement(Ask(lab, config), 999)


def test_wrong_labels_cost_no_marks(lab: Workspace):
    scored = judged(lab, by_overlap, judge_labels=1)
    assert total(scored, "judge") == 3
    assert scored.details["agreement"]["share"] is None
    assert "expected preferences" in scored.details["agreement"]["reason"]


def test_an_interval_is_never_narrower_than_wilsons():
    low, high = judge.interval([1.0, 0.5, 0.0, 1.0])  # 2.5 of 4
    narrow_low, _ = judge.interval([1.0, 1.0, 0.0, 0.0])
    _, wide_high = judge.interval([1.0, 1.0, 1.0, 0.0])
    assert (low, high) == (narrow_low, wide_high)
    assert judge.interval([]) == (None, None)

"""A chat model as judge: it marks the model's answer and the reference, in both orders.

Judges favour the answer that they see first, or last (Zheng et al. 2023, arXiv 2306.05685). So each
row is judged twice, and won by the answer that is preferred more often. A row whose replies can't
be read is None, and what was said instead is kept.

How far a judge can be believed is measured on preferences that people labelled.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ftlab_kit import chats, datasets
from ftlab_kit.chats import ChatModel
from ftlab_kit.datasets import schema
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.evaluators import rubric
from ftlab_kit.evaluators.measures import Ask, Case, Counts, Measure, Scored, ratio, whole
from ftlab_kit.evaluators.rubric import Judged, Pair, Unreadable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message

NEEDS = frozenset({"answers"})
WANTS = ("judge",)
MEASURES = (Measure("judge", True, ratio), Measure("judge_win_rate", True, ratio))
LEVEL = 0.95
EXAMPLE = 300  # letters that are kept of a reply that can't be read
TOKENS, TOKENS_OF_ONE = 64, 32  # what the JSON takes, and each criterion in it, with room to spare
# a judge that is served elsewhere may think first, and what it leaves unsaid costs nothing
TOKENS_ELSEWHERE = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """What came of pairs: a judgement of each or None, and why there is none of those."""

    judged: Sequence[Judged | None]
    reasons: Mapping[str, int]
    example: str | None

    @property
    def known(self) -> list[Judged]:
        """The judgements that there are."""
        return [item for item in self.judged if item]


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return marks and wins of the answers against the references.

    Args:
        ask: `config.judge` judges, by `config.criteria`; where `config.judge_labels` names
            preferences, its agreement with people is measured too.
    """
    nothing: dict[str, list[Counts | None]] = {item.name: [None] * len(cases) for item in MEASURES}
    # answers that were made, and perhaps paid for, are not lost for a judge that can't be had
    try:
        judge = _judge(ask)
        try:
            return _scored(cases, ask, judge)
        finally:
            judge.close()
    except KitError as error:
        return Scored(nothing, reason=str(error))


def agreement(ask: Ask, version_id: int) -> dict[str, Any]:
    """Return how often the judge prefers the answer that people chose.

    Returns:
        `share` of the rows, ties a half, from `low` to `high` at 95%; `kappa`, agreement beyond
        chance (Cohen 1960), which is a half as each row is seen in both orders: 0 is a coin, 1 is
        always; `n_ties`, `n_judged`, `n_refused`, `order_agreement`.

    Raises:
        InputError: The version holds no preferences, or no judge is named.
        NotFound: There is no such version, or no such judge.
    """
    pairs = _labelled(ask, version_id)
    judge = _judge(ask)
    try:
        return _agreed(pairs, ask, judge)
    finally:
        judge.close()


def interval(won: Sequence[float]) -> tuple[float | None, float | None]:
    """Return Wilson's interval of a share at 95%, None where nothing is known.

    A tie is half a success, and the binomial has no halves: the bounds are those of the whole
    numbers below and above, so that the interval is never too narrow.
    """
    from scipy.stats import binomtest

    if not won:
        return None, None
    total = sum(won)
    low, high = (
        binomtest(int(count), len(won)).proportion_ci(LEVEL, method="wilson")
        for count in (total, total + 0.5)
    )
    return float(low.low), float(high.high)


def read(replies: Sequence[Message | None], names: Sequence[str]) -> Session:
    """Return what came of replies, two for each pair, the second turned; a pair needs both."""
    judged: list[Judged | None] = []
    reasons: Counter[str] = Counter()
    examples: list[str] = []
    for straight, turned in zip(replies[::2], replies[1::2], strict=True):
        try:
            first, second = _marks(straight, names), _marks(turned, names)
        except Unreadable as error:
            reasons[str(error)] += 1
            examples += [error.said] if error.said is not None else []
            judged.append(None)
        else:
            judged.append(Judged(first, {name: (b, a) for name, (a, b) in second.items()}))
    return Session(judged, reasons, examples[0] if examples else None)


def _marks(answer: Message | None, names: Sequence[str]) -> rubric.Marks:
    if answer is None:
        raise Unreadable("no reply came")
    try:
        return rubric.marks(answer.content, names)
    except Unreadable as error:
        if answer.is_complete is not False:
            raise
        raise Unreadable(f"the reply was cut, and {error}", error.said) from None


def _judge(ask: Ask) -> ChatModel:
    if ask.config.judge is None:
        raise InputError("No judge is named; expected a model. Set judge to one.")
    return chats.open(ask.ws, ask.config.judge, checkpoint=ask.config.checkpoint)


def _scored(cases: Sequence[Case], ask: Ask, judge: ChatModel) -> Scored:
    rows = [row for row, case in enumerate(cases) if case.answer is not None and case.reference]
    session = _heard([_pair(cases[row]) for row in rows], ask, judge)
    counts: dict[str, list[Counts | None]] = {item.name: [None] * len(cases) for item in MEASURES}
    for row, item in zip(rows, session.judged, strict=True):
        if item:
            counts["judge"][row] = (item.mean(0), 1.0)
            counts["judge_win_rate"][row] = (item.won, 1.0)
    details = {"judge": judge.label, **_about(session, rubric.criteria(ask.config.criteria))}
    if ask.config.judge_labels is not None:
        details["agreement"] = _agreed_or_why(ask, judge, ask.config.judge_labels)
    details["cost_usd"] = judge.cost_usd
    reason = None if session.known else _why_none(session, judge)
    return Scored(counts, details, reason)


def _heard(pairs: Sequence[Pair], ask: Ask, judge: ChatModel) -> Session:
    """Have the judge mark each pair in both orders."""
    names = rubric.criteria(ask.config.criteria)
    room = TOKENS_ELSEWHERE if judge.model is None else TOKENS + TOKENS_OF_ONE * len(names)
    manner = GenerationSettings(
        max_new_tokens=max(room, ask.config.max_new_tokens),
        seed=ask.config.seed,
        max_seconds=ask.config.max_seconds,
    )
    asked = [rubric.prompt(each, names) for pair in pairs for each in (pair, pair.turned)]
    return read(judge.answers(asked, manner, whole(ask.progress)) if asked else [], names)


def _agreed_or_why(ask: Ask, judge: ChatModel, version_id: int) -> dict[str, Any]:
    try:
        return _agreed(_labelled(ask, version_id), ask, judge)
    except KitError as error:
        return {"share": None, "reason": str(error)}


def _agreed(pairs: Sequence[Pair], ask: Ask, judge: ChatModel) -> dict[str, Any]:
    session = _heard(pairs, ask, judge)
    won = [item.won for item in session.known]
    share = fmean(won) if won else None
    low, high = interval(won)
    return {
        "share": share,
        "low": low,
        "high": high,
        "kappa": None if share is None else 2 * share - 1,
        "n_ties": won.count(0.5),
        **_counted(session),
        "reason": None if won else _why_none(session, judge),
    }


def _labelled(ask: Ask, version_id: int) -> list[Pair]:
    """Return what people chose and rejected, no more rows than the evaluation has."""
    version = datasets.get(ask.ws, version_id)
    if version.kind != "preference":
        raise InputError(
            f"Version {version.id} holds rows of kind {version.kind}; expected preferences, with "
            "what people chose and what they rejected. Give judge_labels a version of these."
        )
    rows = [*datasets.rows(ask.ws, version)][: ask.config.max_rows]
    return [
        Pair(_told(row["prompt"]), _said(row["chosen"]), _said(row["rejected"])) for row in rows
    ]


def _pair(case: Case) -> Pair:
    """Return the model's answer and the reference, with all that was said before."""
    turns = case.messages
    before = turns[:-1] if turns[-1]["role"] == "assistant" else turns
    return Pair(_told(before), case.answer or "", case.reference)


def _told(turns: list[dict[str, Any]]) -> str:
    return "\n\n".join(f"{who}: {said}" for who, said in schema.shown({"messages": turns}))


def _said(turns: list[dict[str, Any]]) -> str:
    return str(turns[0]["content"]) if len(turns) == 1 else _told(turns)


def _about(session: Session, names: Sequence[str]) -> dict[str, Any]:
    known = session.known
    means = [
        {name: fmean(item.mean(side, name) for item in known) if known else None for name in names}
        for side in (0, 1)
    ]
    return {
        "criteria": means[0],
        "criteria_of_reference": means[1],
        **_counted(session),
        "wording": rubric.WORDING,
    }


def _counted(session: Session) -> dict[str, Any]:
    """Return how steady the judge is, and what could not be read."""
    both = [item.preferences for item in session.known]
    # in the order that is turned, the first answer is the other one
    first = [fmean((straight > 0, turned < 0)) for straight, turned in both]
    return {
        "order_agreement": fmean(a == b for a, b in both) if both else None,
        "first_preferred": fmean(first) if first else None,
        "n_judged": len(both),
        "n_refused": len(session.judged) - len(both),
        "refused_for": dict(session.reasons),
        "example": session.example and _short(session.example),
    }


def _why_none(session: Session, judge: ChatModel) -> str:
    if not session.judged:
        return "There is no row with two answers to compare."
    why, count = Counter(session.reasons).most_common(1)[0]
    said = f" It said: {_short(session.example)!r}." if session.example else ""
    return (
        f"{judge.label} gave no marks that can be read for any of {len(session.judged)} rows; of "
        f"{count}: {why}.{said} Name a stronger judge, or give it more room with max_new_tokens."
    )


def _short(text: str) -> str:
    return text if len(text) <= EXAMPLE else f"{text[:EXAMPLE]}…"

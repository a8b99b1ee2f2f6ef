"""A chat model as judge: it marks the model's answer and the reference, in both orders.

Judges favour the answer that they see first, or last (position bias: Zheng et al. 2023, arXiv
2306.05685). So each row is judged twice, and won by the answer that is preferred more often. A row
whose replies can't be read is None; one unreadable reply is kept as an example.

How far a judge can be trusted is measured on preferences that people labelled.
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
from ftlab_kit.evaluators.measures import (
    Counts,
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    ratio,
    renamed,
)
from ftlab_kit.evaluators.rubric import Judgement, Pair, Unreadable
from ftlab_kit.lm.generation_settings import GenerationSettings
from ftlab_kit.records import Message

REQUIRES = frozenset({"answers"})
REQUIRED_SETTINGS = ("judge",)
MEASURES = (Measure("judge", True, ratio), Measure("judge_win_rate", True, ratio))
LEVEL = 0.95
EXAMPLE_CHARACTERS = 300  # of an unreadable reply that is kept
# room for the reply's JSON, and for each criterion in it
REPLY_TOKENS, CRITERION_TOKENS = 64, 32
# a hosted judge may reason first, and tokens that it doesn't use cost nothing
HOSTED_REPLY_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class PairResults:
    """The judgement of each pair, None where a reply can't be read, and the reasons for that."""

    by_pair: Sequence[Judgement | None]
    reasons: Mapping[str, int]
    example: str | None

    @property
    def judgements(self) -> list[Judgement]:
        """The judgements that could be read."""
        return [judgement for judgement in self.by_pair if judgement]


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return marks and wins of the answers against the references.

    Args:
        context: `config.judge` judges, by `config.criteria`; where `config.judge_labels` names
            preferences, its agreement with people is measured too.
    """
    # a judge that is unavailable must not lose answers that were generated, and perhaps paid for
    try:
        judge = _open_judge(context)
        try:
            return _score_rows(examples, context, judge)
        finally:
            judge.close()
    except KitError as error:
        return EvaluatorResult(_no_counts(examples), reason=str(error))


def agreement(context: EvaluationContext, version_id: int) -> dict[str, Any]:
    """Return how often the judge prefers the answer that people chose.

    Args:
        context: `config.judge` judges, by `config.criteria`, up to `config.max_rows` rows.
        version_id: A dataset version of preferences.

    Returns:
        `share` of the rows, a tie counting a half, with its interval from `low` to `high` at 95%;
        `kappa`, agreement beyond chance (Cohen 1960), where chance is a half because each row is
        seen in both orders: 0 is a coin toss, 1 is always; `n_ties`, `n_judged`, `n_refused`,
        `order_agreement`.

    Raises:
        InputError: The version holds no preferences, or no judge is set.
        NotFound: There is no such version, or no such judge.
    """
    pairs = _labelled_pairs(context, version_id)
    judge = _open_judge(context)
    try:
        return _measure_agreement(pairs, context, judge)
    finally:
        judge.close()


def win_rate_interval(wins: Sequence[float]) -> tuple[float | None, float | None]:
    """Return Wilson's interval of a win rate at 95%, None without a row.

    The binomial has no half successes, but a tie is one: the bounds are those of the whole numbers
    below and above, so that the interval is never too narrow.

    Args:
        wins: 1 for each win, 0.5 for a tie, 0 for a loss.
    """
    from scipy.stats import binomtest

    if not wins:
        return None, None
    total = sum(wins)
    low, high = (
        binomtest(int(count), len(wins)).proportion_ci(LEVEL, method="wilson")
        for count in (total, total + 0.5)
    )
    return float(low.low), float(high.high)


def read_replies(replies: Sequence[Message | None], names: Sequence[str]) -> PairResults:
    """Return the judgements of pairs.

    Args:
        replies: Two for each pair, the second with the answers swapped; a pair needs both.
        names: The criteria.
    """
    by_pair: list[Judgement | None] = []
    reasons: Counter[str] = Counter()
    unreadable: list[str] = []
    for straight, swapped in zip(replies[::2], replies[1::2], strict=True):
        try:
            first, second = _marks(straight, names), _marks(swapped, names)
        except Unreadable as error:
            reasons[str(error)] += 1
            unreadable += [error.reply] if error.reply is not None else []
            by_pair.append(None)
        else:
            by_pair.append(Judgement(first, {name: (b, a) for name, (a, b) in second.items()}))
    return PairResults(by_pair, reasons, unreadable[0] if unreadable else None)


def _marks(reply: Message | None, names: Sequence[str]) -> rubric.Marks:
    if reply is None:
        raise Unreadable("there was no reply")
    try:
        return rubric.marks(reply.content, names)
    except Unreadable as error:
        if reply.is_complete is not False:
            raise
        raise Unreadable(f"the reply was cut, and {error}", error.reply) from None


def _open_judge(context: EvaluationContext) -> ChatModel:
    if context.config.judge is None:
        raise InputError("judge is not set; expected a model. Set judge to one.")
    return chats.open(context.ws, context.config.judge, checkpoint=context.config.checkpoint)


def _no_counts(examples: Sequence[Example]) -> dict[str, list[Counts | None]]:
    return {measure.name: [None] * len(examples) for measure in MEASURES}


def _score_rows(
    examples: Sequence[Example], context: EvaluationContext, judge: ChatModel
) -> EvaluatorResult:
    rows = [row for row, item in enumerate(examples) if item.answer is not None and item.reference]
    results = _judge_pairs([_pair(examples[row]) for row in rows], context, judge)
    counts = _no_counts(examples)
    for row, judgement in zip(rows, results.by_pair, strict=True):
        if judgement:
            counts["judge"][row] = (judgement.mean(0), 1.0)
            counts["judge_win_rate"][row] = (judgement.win, 1.0)
    details = {"judge": judge.label, **_details(results, rubric.criteria(context.config.criteria))}
    if context.config.judge_labels is not None:
        details["agreement"] = _agreement_or_reason(context, judge, context.config.judge_labels)
    details["cost_usd"] = judge.cost_usd
    reason = None if results.judgements else _why_none(results, judge)
    return EvaluatorResult(counts, details, reason)


def _judge_pairs(
    pairs: Sequence[Pair], context: EvaluationContext, judge: ChatModel
) -> PairResults:
    """Have the judge mark each pair in both orders."""
    names = rubric.criteria(context.config.criteria)
    is_hosted = judge.model is None
    room = HOSTED_REPLY_TOKENS if is_hosted else REPLY_TOKENS + CRITERION_TOKENS * len(names)
    settings = GenerationSettings(
        max_new_tokens=max(room, context.config.max_new_tokens),
        seed=context.config.seed,
        max_seconds=context.config.max_seconds,
    )
    prompts = [rubric.prompt(each, names) for pair in pairs for each in (pair, pair.swapped)]
    if not prompts:
        return read_replies([], names)
    return read_replies(judge.answers(prompts, settings, renamed(context.progress, "judge")), names)


def _agreement_or_reason(
    context: EvaluationContext, judge: ChatModel, version_id: int
) -> dict[str, Any]:
    """Return the agreement; wrong labels must not lose the marks."""
    try:
        return _measure_agreement(_labelled_pairs(context, version_id), context, judge)
    except KitError as error:
        return {"share": None, "reason": str(error)}


def _measure_agreement(
    pairs: Sequence[Pair], context: EvaluationContext, judge: ChatModel
) -> dict[str, Any]:
    results = _judge_pairs(pairs, context, judge)
    wins = [judgement.win for judgement in results.judgements]
    share = fmean(wins) if wins else None
    low, high = win_rate_interval(wins)
    return {
        "share": share,
        "low": low,
        "high": high,
        "kappa": None if share is None else 2 * share - 1,
        "n_ties": wins.count(0.5),
        **_consistency(results),
        "reason": None if wins else _why_none(results, judge),
    }


def _labelled_pairs(context: EvaluationContext, version_id: int) -> list[Pair]:
    """Return the chosen and rejected answers, from no more rows than the evaluation has."""
    version = datasets.get(context.ws, version_id)
    if version.kind != "preference":
        raise InputError(
            f"Version {version.id} holds rows of kind {version.kind}; expected preferences: an "
            "answer that people chose and one that they rejected. Set judge_labels to a version "
            "of preferences."
        )
    rows = [*datasets.rows(context.ws, version)][: context.config.max_rows]
    return [
        Pair(_transcript(row["prompt"]), _text(row["chosen"]), _text(row["rejected"]))
        for row in rows
    ]


def _pair(example: Example) -> Pair:
    """Return the model's answer and the reference, with the whole conversation before."""
    turns = example.messages
    before = turns[:-1] if turns[-1]["role"] == "assistant" else turns
    return Pair(_transcript(before), example.answer or "", example.reference)


def _transcript(turns: list[dict[str, Any]]) -> str:
    return "\n\n".join(f"{role}: {text}" for role, text in schema.transcript({"messages": turns}))


def _text(turns: list[dict[str, Any]]) -> str:
    return str(turns[0]["content"]) if len(turns) == 1 else _transcript(turns)


def _details(results: PairResults, names: Sequence[str]) -> dict[str, Any]:
    judgements = results.judgements
    by_side = [
        {name: fmean(each.mean(side, name) for each in judgements) for name in names}
        if judgements
        else dict.fromkeys(names)
        for side in (0, 1)
    ]
    return {
        "criteria": by_side[0],
        "criteria_of_reference": by_side[1],
        **_consistency(results),
        "wording": rubric.WORDING,
    }


def _consistency(results: PairResults) -> dict[str, Any]:
    """Return how far the order of the answers sways the judge, and what could not be read."""
    preferences = [judgement.preferences for judgement in results.judgements]
    # with the answers swapped, the one that is shown first is the pair's second
    first = [fmean((straight > 0, swapped < 0)) for straight, swapped in preferences]
    return {
        "order_agreement": fmean(a == b for a, b in preferences) if preferences else None,
        "first_preferred": fmean(first) if first else None,
        "n_judged": len(preferences),
        "n_refused": len(results.by_pair) - len(preferences),
        "refused_for": dict(results.reasons),
        "example": results.example and _shortened(results.example),
    }


def _why_none(results: PairResults, judge: ChatModel) -> str:
    if not results.by_pair:
        return "No row has two answers to compare."
    reason, count = Counter(results.reasons).most_common(1)[0]
    reply = f" One reply: {_shortened(results.example)!r}." if results.example else ""
    return (
        f"{judge.label} gave no readable marks for any of {len(results.by_pair)} rows; for "
        f"{count}: {reason}.{reply} Use a stronger judge, or raise max_new_tokens."
    )


def _shortened(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]}…"

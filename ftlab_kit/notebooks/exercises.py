"""The checks of the notebooks' exercises, three a notebook; a check's docstring is its hint.

A check takes the learner's answer and, by their names, the notebook's variables that it needs. It
returns whether the answer is right. The answers themselves stand in the notebooks' collapsed
`solution` cells, and are run against these checks by the tests.
"""

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from ftlab_kit import analytics, datasets, evaluators, models, trainers

Check = Callable[..., bool]


def two_user_turns(row: Any, *, ws: Any, held_out: Any) -> bool:
    """datasets.preview(ws, held_out, n_rows=9) shows nine; look for two turns of the user."""
    turns = datasets.preview(ws, held_out, start=row, n_rows=1)
    return bool(sum(turn.role == "user" for turn in turns) > 1)


def perplexity_of_a_loss(perplexity: Any, *, after: Any) -> bool:
    """math.exp undoes a logarithm; trainers.metrics(ws, job)[-1] has the last loss."""
    return bool(abs(perplexity / after.scores["perplexity"] - 1) < 0.01)


def twice_the_rank(other: Any, *, config: Any) -> bool:
    """config.but returns a changed config; alpha grows with the rank, so that the scale stays."""
    rank, alpha = 2 * config.adapter_rank, 2 * config.adapter_alpha
    return bool(other == config.but(adapter_rank=rank, adapter_alpha=alpha))


def rows_about_refunds(version: Any, *, ws: Any, clean: Any) -> bool:
    """datasets.filter takes matching=, a regular expression; (?i) lets capitals match too."""
    n_rows = sum("refund" in str(row).lower() for row in datasets.rows(ws, clean))
    return bool(version.parent_id == clean.id and version.n_rows == n_rows)


def shortest_whole_length(length: Any, *, ws: Any, first: Any, model: str) -> bool:
    """quality.lengths has the tokens of each row; n_cut counts the rows whose answer is cut."""
    cut = [
        datasets.quality(ws, first, model=model, max_length=limit).n_cut != 0
        for limit in (length - 1, length)
    ]
    return cut == [True, False]


def merged_and_split(sides: Any, *, ws: Any, clean: Any, sums: Any) -> bool:
    """datasets.merge makes one version of several, datasets.split two of one."""
    n_rows = sum(side.n_rows for side in sides)
    return bool(n_rows == clean.n_rows + sums.n_rows and not datasets.overlap(ws, *sides))


def large_model_in_24_gib(large: Any, *, ws: Any, config: Any) -> bool:
    """models.memory shows the parts; activations are those of the rows in memory at once."""
    return (
        (large.model, large.adapter) == ("llama-3.1-8b-instruct", "lora")
        and (large.max_length, large.effective_batch) == (1024, config.effective_batch)
        and models.memory(ws, large).total_gib <= 24
    )


def one_epoch_in_20_steps(once: Any, *, ws: Any, train: Any) -> bool:
    """A step trains on effective_batch rows. max_steps must be None, or it overrules epochs."""
    is_one_epoch = (once.epochs, once.max_steps) == (1, None)
    return is_one_epoch and analytics.estimate(ws, once, train).n_steps <= 20


def shortest_length_that_passes(length: Any, *, ws: Any, config: Any, train: Any) -> bool:
    """The check is called "whole answers"; it tells how many rows are cut."""
    passes = [
        all(check.is_ok for check in trainers.preflight(ws, config.but(max_length=limit), train))
        for limit in (length - 1, length)
    ]
    return passes == [False, True]


def fall_of_the_loss(fall: Any, *, table: Any, steps: int) -> bool:
    """table.loss is the loss of each step; .head(steps // 2) takes the first half."""
    first, second = table.loss.head(steps // 2).mean(), table.loss.tail(steps // 2).mean()
    return bool(abs(first - fall - second) < 0.01)


def first_step_no_better(step: Any, *, held: Any) -> bool:
    """held has each held-out loss by its step; if each is better than before, it is the last."""
    worse = [now for before, now in pairwise(held) if held[now] >= held[before]]
    return bool(step == [*worse, max(held)][0])


def probability_of_a_loss(share: Any, *, ws: Any, tired: Any) -> bool:
    """math.exp undoes a logarithm; trainers.metrics(ws, tired)[-1] has the last loss."""
    return abs(-math.log(share) - (trainers.metrics(ws, tired)[-1].loss or 0.0)) < 0.02


def step_it_resumed_from(step: Any, *, ws: Any, job: Any) -> bool:
    """trainers.events(ws, job) lists all resumes; what came of each stands in its result."""
    resume = [event for event in trainers.events(ws, job) if event.command == "resume"][-1]
    return bool(resume.result and step == resume.result["from_step"])


def rate_after_the_change(
    share: Any, *, ws: Any, job: Any, rates: Any, lower_rate: float, learning_rate: float
) -> bool:
    """The event of the adjustment has its step; rates has the rate of each step."""
    at = trainers.events(ws, job)[0].step
    is_a_rate = min(abs(share - rate / lower_rate) for rate in rates.values()) < 0.005
    return bool(is_a_rate and abs(share - rates[at] / learning_rate) < 0.1)


def fork_of_twice_the_rank(child: Any, *, job: Any, config: Any) -> bool:
    """trainers.fork(ws, job, ...) takes changed settings; wait for it with trainers.wait."""
    is_done = (child.parent_id, child.state) == (job.id, "completed")
    return bool(is_done and child.config["adapter_rank"] == 2 * config.adapter_rank)


def share_of_ended_answers(share: Any, *, after: Any) -> bool:
    """Each of after.samples has is_complete; a share is from 0 to 1."""
    return bool(abs(share - after.scores["ended"]) < 0.005)


def verdict_on_the_middle(verdict: Any, *, ws: Any, middle: Any, after: Any) -> bool:
    """Compare the two evaluations; each difference has a verdict."""
    return bool(verdict == evaluators.compare(ws, middle, after).differences[0].verdict)


def merged_model_scored(evaluation: Any, *, ws: Any, job: Any, after: Any) -> bool:
    """Score it by its name, on the same rows by one of the same metrics, with **settings."""
    is_merged = evaluation.target == f"job-{job.id}-merged"
    compared = evaluators.compare(ws, evaluation, after)
    return bool(is_merged and compared.differences[0].n == after.n_rows)


def ratio_of_perplexities(times: Any, *, best: float, second: float) -> bool:
    """math.exp makes a perplexity of a loss; comparison.measures has best_eval_loss."""
    return abs(math.log(times) - (second - best)) < 0.002


def cost_of_10_000_rows(usd: Any, *, usd_per_hour: float, numbers: Any) -> bool:
    """numbers.samples_per_s has the rows of a second; numbers.cost_usd is of another length."""
    return bool(abs(usd / usd_per_hour * 3600 * numbers.samples_per_s.mean / 10_000 - 1) < 0.02)


def winner_beside_its_fork(comparison: Any, *, held: Any) -> bool:
    """trainers.fork(ws, number, max_steps=4), wait for it, then analytics.compare the two."""
    winner, *others = comparison.jobs
    return [job.parent_id for job in others] == [winner.id] and winner.id == held.winner


def smallest_vocabulary(name: Any, *, large: Any) -> bool:
    """graphs.find takes where, order= and limit=; an entity has a name."""
    return bool(name == min(large, key=lambda entity: entity.attributes["vocabulary"]).name)


def badge_of_that_day(badge: Any, *, second: Any) -> bool:
    """Call find with at=day, or look at graphs.facts with ended=True."""
    return bool(badge == second.attributes["badge"])


def person_of_a_document(person: Any) -> bool:
    """A line '### Ada' and below it '**Person ID:** ada' make an entity of type Person."""
    return bool(person.type == "Person" and person.places[0].document.endswith(".md"))


def rate_that_ends_the_plateau(changes: Any, *, falling: Any, too_low: float) -> bool:
    """diagnostics.explain puts a finding into sentences; its changes are the settings."""
    if [*changes] != ["learning_rate"]:
        return False
    return bool(falling.config["learning_rate"] == changes["learning_rate"] > too_low)


def step_of_the_lowest_loss(step: Any, *, ws: Any, fat: Any) -> bool:
    """trainers.metrics(ws, fat) has an eval_loss at some steps; look for the lowest."""
    metrics = trainers.metrics(ws, fat)
    lowest = min(row.eval_loss for row in metrics if row.eval_loss)
    return bool(metrics[step - 1].eval_loss == lowest)


def settings_that_differ(names: Any, *, hot: Any, fixed: Any) -> bool:
    """hot.config and fixed.config are dicts with the same keys."""
    return bool(
        {name: hot.config[name] for name in names}.items()
        == hot.config.items() - fixed.config.items()
    )


def without_contact_data(version: Any, *, ws: Any, clean: Any) -> bool:
    """datasets.filter takes a function of a row; the customer's message is the first."""
    questions = [row["messages"][0]["content"] for row in datasets.rows(ws, version)]
    has_contact = any(re.search(r"@|\d{5} ?\d{3}", text) for text in questions)
    return version.n_rows >= clean.n_rows - 5 and not has_contact


def pattern_of_35_to_60_words(evaluation: Any, *, job: Any) -> bool:
    r"""A word is \S+ and what follows it \s+; braces count, as in a{2,3}."""
    pattern = evaluation.details["regex"]["pattern"]
    texts = [" ".join(["word"] * n) for n in (34, 35, 60, 61)]
    matches = [bool(re.search(pattern, text)) for text in texts]
    return matches == [False, True, True, False] and bool(evaluation.job_id == job.id)


def drafts_to_use(rows: Any, *, drafts: Any) -> bool:
    """Both columns have to agree; no invented number is an empty text."""
    is_usable = drafts.keeps_rules & (drafts.made_up == "")
    return all(is_usable[row] for row in rows) and len({*rows}) == sum(is_usable)


def shortest_length_without_cuts(length: Any, *, ws: Any, train: Any, model: str) -> bool:
    """datasets.quality(ws, train, model=model, max_length=...).n_cut counts rows that are cut."""
    cut = [
        datasets.quality(ws, train, model=model, max_length=limit).n_cut
        for limit in (length - 1, length)
    ]
    return cut[1] == 0 and bool(cut[0])


def rules_in_a_system_turn(evaluation: Any, *, ws: Any, held_out: Any) -> bool:
    """A list of {'messages': [...]} in a data frame is a dataset too."""
    row = next(datasets.rows(ws, evaluation.dataset_version_id))
    is_base = (evaluation.job_id, evaluation.n_rows) == (None, held_out.n_rows)
    return is_base and "regex" in evaluation.scores and row["messages"][0]["role"] == "system"


def functions_as_rows(version: Any, *, ws: Any) -> bool:
    """ast.get_docstring says what a function is for, ast.unparse gives its code."""
    answers = [row["messages"][-1]["content"] for row in datasets.rows(ws, version)]
    return len(answers) > 2 and all("def " in text for text in answers)


def sums_that_are_right(counts: Any, *, sums: Any) -> bool:
    """`sums` holds pairs: the expected sum, and the one in the answer."""
    return [*counts] == [sum(one == other for one, other in sums), len(sums)]


def valid_but_wrong(text: Any, *, schema: Any, truth: Any, fields: Any) -> bool:
    """All five fields, each of its type, and at least one of the first four wrong."""
    from jsonschema import Draft202012Validator

    values = json.loads(text)
    is_valid = Draft202012Validator(schema).is_valid(values)
    return bool(is_valid and any(values[name] != truth[name] for name in fields))


def examples_in_the_prompt(evaluation: Any, *, ws: Any, model: str) -> bool:
    """A row may hold earlier turns: the task, clause, answer, clause, answer, clause, answer."""
    turns = datasets.preview(ws, evaluation.dataset_version_id, n_rows=1)
    is_scored = evaluation.n_rows >= 4 and "json_schema" in evaluation.scores
    return bool(evaluation.target == model and is_scored and len(turns) >= 5)


def first_checkpoint_scored(evaluation: Any, *, ws: Any, job: Any, after: Any) -> bool:
    """evaluators.run takes checkpoint=; trainers.checkpoints(ws, job) lists the steps."""
    first = trainers.checkpoints(ws, job)[0]
    compared = evaluators.compare(ws, evaluation, after, metrics=["regex"])
    is_first = (evaluation.job_id, evaluation.step) == (job.id, first.step)
    return bool(is_first and compared.differences[0].n == after.n_rows)


def rule_of_the_voice(rule: Any, *, rules: Any, taught: Any, before: Any) -> bool:
    """Read three rows: how do their sentences end, and how many are there?"""
    fits_rows = all(re.match(rule, " ".join(text)) for text in taught)
    n_before = sum(bool(re.match(rule, sample.answer)) for sample in before.samples)
    return rule not in rules.values() and fits_rows and n_before <= before.n_rows / 2


def longest_common_run(run: Any, *, after: Any, taught: Any) -> bool:
    """Each of after.samples has its reference; a match has size and its place a."""
    return (
        len(run.split()) >= 4
        and any(run in sample.reference for sample in after.samples)
        and any(run in " ".join(text) for text in taught)
    )


def tokens_of_a_step(tokens: Any, *, ws: Any, job: Any, max_steps: int) -> bool:
    """n_tokens of the last metric counts them all."""
    return bool(round(tokens * max_steps) == trainers.metrics(ws, job)[-1].n_tokens)


def file_of_the_adapter(file: Any, *, ws: Any, job: Any) -> bool:
    """trainers.checkpoints(ws, job)[-1].path is a folder; see what is in it."""
    folder = trainers.checkpoints(ws, job)[-1].path
    return bool(file.exists() and file.parent == folder and file.suffix == ".safetensors")


def job_of_another_seed(other: Any, *, ws: Any, job: Any) -> bool:
    """config.but(seed=...) is another config; start it, and wait for it."""
    is_same_but_seed = other.config == {**job.config, "seed": other.config["seed"]}
    losses = [trainers.metrics(ws, each)[-1].loss for each in (other, job)]
    return bool(is_same_but_seed and losses[0] != losses[1])


# by the first word of a notebook's name
CHECKS: dict[str, tuple[Check, Check, Check]] = {
    "00": (two_user_turns, perplexity_of_a_loss, twice_the_rank),
    "01": (rows_about_refunds, shortest_whole_length, merged_and_split),
    "02": (large_model_in_24_gib, one_epoch_in_20_steps, shortest_length_that_passes),
    "03": (fall_of_the_loss, first_step_no_better, probability_of_a_loss),
    "04": (step_it_resumed_from, rate_after_the_change, fork_of_twice_the_rank),
    "05": (share_of_ended_answers, verdict_on_the_middle, merged_model_scored),
    "06": (ratio_of_perplexities, cost_of_10_000_rows, winner_beside_its_fork),
    "09": (smallest_vocabulary, badge_of_that_day, person_of_a_document),
    "12": (rate_that_ends_the_plateau, step_of_the_lowest_loss, settings_that_differ),
    "20": (without_contact_data, pattern_of_35_to_60_words, drafts_to_use),
    "21": (shortest_length_without_cuts, rules_in_a_system_turn, functions_as_rows),
    "22": (sums_that_are_right, valid_but_wrong, examples_in_the_prompt),
    "23": (first_checkpoint_scored, rule_of_the_voice, longest_common_run),
    "template": (tokens_of_a_step, file_of_the_adapter, job_of_another_seed),
}

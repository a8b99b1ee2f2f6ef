"""Enriching: a language model reads the same chunks, by Graphiti's own `add_episode`.

It costs money: some seven calls a chunk, most of whose tokens are Graphiti's instructions. So there
is an estimate first, a budget is overdrawn by one call at most, and every finished chunk is stored:
after a failure or a stop, the next call goes on from there.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftlab_kit.chats import connection, prices
from ftlab_kit.errors import InputError, KitError
from ftlab_kit.graphs import document_state, event_loop, loading, metadata
from ftlab_kit.graphs.budget import NOTHING_SPENT, Budget
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Document, Enrichment, OnProgress, Progress

# for one chunk of 540 characters with Graphiti 0.31, until a document's own chunks tell better:
# a call has some 1,200 tokens of prompt and schema
CALLS_PER_CHUNK = 7.2
PROMPT_TOKENS = 8_600
ANSWER_TOKENS = 600
VENDOR_URL = "https://api.openai.com/v1"
STOPPED = "Enriching was stopped. What was found is kept; graphs.enrich goes on with the rest."


@dataclass
class Ledger:
    """What is stored of a document while a model reads it: what was found, and what that took."""

    graph: Graph
    name: str
    before: Mapping[str, Any]
    budget: Budget
    done: Sequence[str]
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the reading began."""
        return time.perf_counter() - self.began

    def store(self, state: str, error: str | None = None) -> None:
        """Store what the document holds by now, and what was spent on it in all."""
        from graphiti_core.search.search_utils import get_mentioned_nodes

        chunks = _live_chunks(self.graph, self.name)
        driver = self.graph.driver
        mentioned = event_loop.run(get_mentioned_nodes(driver, chunks)) if chunks else []
        spent = self.budget.added_to(self.before)
        spent |= {"done": self.done, "seconds": self.before["seconds"] + self.seconds}
        loading.set_columns(
            self.graph,
            self.name,
            enriched=spent,
            n_tokens=spent["input"] + spent["output"],
            cost_usd=spent["cost_usd"],
            n_entities=len(mentioned),
            n_facts=len({key for chunk in chunks for key in chunk.entity_edges}),
            state=state,
            error=error,
        )


def estimate(graph: Graph, document: Document | str, model: str) -> Enrichment:
    """Return what enriching a document will take: calls, tokens, money, time.

    Raises:
        NotFound: There is no such document.
        InputError: The model is not written as openai:NAME or openai:NAME@URL.
    """
    _check_model(model)
    row = loading.row_of(graph, document)
    spent = row["enriched"] or NOTHING_SPENT
    n_left = len(_unread(_live_chunks(graph, row["name"]), spent))
    n_done = len(spent["done"])
    calls, prompt, answer = CALLS_PER_CHUNK, float(PROMPT_TOKENS), float(ANSWER_TOKENS)
    basis, seconds = "from Graphiti's prompts for other documents", None
    if n_done:
        calls, prompt = spent["calls"] / n_done, spent["input"] / n_done
        answer, seconds = spent["output"] / n_done, spent["seconds"] / n_done * n_left
        basis = f"from the {n_done} chunks that are done"
    n_input, n_output = round(prompt * n_left), round(answer * n_left)
    return Enrichment(
        model=model,
        n_chunks=n_left,
        n_done=None,
        n_calls=round(calls * n_left),
        n_input_tokens=n_input,
        n_output_tokens=n_output,
        cost_usd=_cost_usd(model, n_input, n_output),
        seconds=seconds,
        message=f"{n_left} chunks, {basis}",
    )


def enrich(
    graph: Graph,
    document: Document | str,
    model: str,
    budget: Budget,
    progress: OnProgress | None = None,
) -> Enrichment:
    """Let a model read a document's chunks that it has not read yet.

    Raises:
        NotFound: There is no such document.
        InputError: No such model, no budget, or one in dollars for a model without a price.
        BudgetSpent: The budget is spent; what was found is kept.
        Unavailable: The model's answers can't be used.
        Conflict: The document was deleted or loaded again meanwhile.
    """
    from ftlab_kit.graphs.model_reader import BudgetedClient, ModelReader

    _check_model(model)
    _check_budget(model, budget)
    row = loading.row_of(graph, document)
    chunks = _live_chunks(graph, row["name"])
    before = {**NOTHING_SPENT, **(row["enriched"] or {}), "model": model}
    unread, done = _unread(chunks, before), [*before["done"]]
    previous = {two.uuid: one.uuid for one, two in zip(chunks, chunks[1:], strict=False)}
    client = BudgetedClient(model, budget)
    reader = ModelReader(graph, client, budget, {chunk.uuid for chunk in chunks})
    ledger = Ledger(graph, row["name"], before, budget, done)
    error: str | None = STOPPED
    ledger.store("processing")
    try:
        for number, chunk in enumerate(unread):
            budget.check()
            event_loop.run(reader.read(chunk, previous.get(chunk.uuid)))
            done.append(chunk.uuid)
            ledger.store("processing")
            if progress:
                note = f"{budget.n_tokens:,} tokens"
                progress(Progress("chunks read", number + 1, len(unread), note))
        error = None
    except KitError as failure:
        error = str(failure)
        raise
    finally:
        event_loop.run(client.client.close())
        ledger.store("partial_failure" if error or row["notes"] else "completed", error)
    return Enrichment(
        model=model,
        n_chunks=len(unread),
        n_done=len(unread),
        n_calls=budget.n_calls,
        n_input_tokens=budget.n_input_tokens,
        n_output_tokens=budget.n_output_tokens,
        cost_usd=budget.cost_usd,
        seconds=ledger.seconds,
        message=f"{len(unread)} chunks of {row['name']} read",
    )


def _check_model(model: str) -> None:
    """Refuse a model that can't enrich.

    Raises:
        InputError: It is not written as openai:NAME or openai:NAME@URL.
    """
    if not model.startswith("openai:"):
        raise InputError(
            f"{model!r} can't enrich a graph; give openai:NAME, or openai:NAME@URL for any "
            "endpoint that speaks OpenAI's protocol."
        )
    connection.address(model)


def _check_budget(model: str, budget: Budget) -> None:
    if budget.limit_usd is None and budget.limit_tokens is None:
        raise InputError("Enriching costs money. Set a budget: budget_usd= or budget_tokens=.")
    if budget.limit_usd is not None and _cost_usd(model, 1, 1) is None:
        raise InputError(
            f"{model} has no known price, so that dollars can't be counted. Give budget_tokens=."
        )


def _cost_usd(model: str, n_input_tokens: int, n_output_tokens: int) -> float | None:
    """Return what tokens cost where a model is served; None if that is not known."""
    address = connection.address(model)
    base_url = os.environ.get(connection.provider("openai").BASE_URL)
    url = address.base_url or base_url or VENDOR_URL
    return prices.cost_usd(address.name, url, n_input_tokens, n_output_tokens)


def _live_chunks(graph: Graph, name: str) -> list[Any]:
    chunks = event_loop.run(document_state.chunks_of(graph, name))
    return [chunk for chunk in chunks.values() if metadata.is_live(chunk)]


def _unread(chunks: Iterable[Any], spent: Mapping[str, Any]) -> list[Any]:
    """Return the chunks that no model has read yet."""
    done = set(spent["done"])
    return [chunk for chunk in chunks if chunk.uuid not in done]

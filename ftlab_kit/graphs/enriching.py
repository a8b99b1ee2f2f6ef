"""Enriching: a language model reads the same chunks, by Graphiti's own `add_episode`.

It costs: some seven calls a chunk, most of whose tokens are Graphiti's instructions. So an estimate
comes first, a budget is never overdrawn by more than a call, and each chunk that is done is written
down: what failed or was stopped goes on from there.

What documents say themselves is not the model's to change. It may add: entities, facts, and its
word for a fact that is there; never an end to what a document says, or another document.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ftlab_kit.chats import prices, requests
from ftlab_kit.chats.connection import PLACEHOLDER, TRIES
from ftlab_kit.chats.protocol import Completion
from ftlab_kit.chats.providers import openai as protocol
from ftlab_kit.errors import BudgetSpent, Conflict, InputError, KitError, Unavailable
from ftlab_kit.graphs import event_loop, loading, updates
from ftlab_kit.graphs.drivers.protocol import DECIMALS
from ftlab_kit.graphs.open_graph import Graph
from ftlab_kit.records import Document, Enrichment, OnProgress, Progress

# of one chunk of 540 characters with Graphiti 0.31, until a document's own chunks tell better:
# a call has some 1,200 tokens of prompt and schema
CALLS = 7.2
PROMPT_TOKENS = 8_600
ANSWER_TOKENS = 600
ASKS = 2  # for an answer that is none: small models often fail the JSON, and a chunk is dear
TIMEOUT_S = 300
VENDOR = "https://api.openai.com/v1"
STOPPED = "Enriching was stopped. What was found is kept; graphs.enrich goes on with the rest."
NOTHING: dict[str, Any] = {
    "done": [],
    "calls": 0,
    "input": 0,
    "output": 0,
    "cost_usd": 0.0,
    "seconds": 0.0,
}


@dataclass
class Budget:
    """What may be spent in one call, and what has been. Once closed, nothing more is spent."""

    limit_usd: float | None = None
    limit_tokens: int | None = None
    n_calls: int = 0
    n_input: int = 0
    n_output: int = 0
    cost_usd: float | None = 0.0
    closed_by: KitError | None = None

    def look(self) -> None:
        """Refuse to go on with nothing left, or after the model has failed.

        Raises:
            BudgetSpent: What was allowed is spent.
            Unavailable: The model has failed.
        """
        self.closed_by = self.closed_by or self._spent()
        if self.closed_by:
            raise self.closed_by

    def _spent(self) -> BudgetSpent | None:
        usd, tokens = self.limit_usd, self.limit_tokens
        spent = self.n_input + self.n_output
        if usd is not None and (self.cost_usd or 0.0) >= usd:
            return BudgetSpent(
                f"The budget of {usd:.4g} USD is spent ({self.cost_usd or 0.0:.4g}). What was "
                "found is kept; to go on, call graphs.enrich again with more."
            )
        if tokens is not None and spent >= tokens:
            return BudgetSpent(
                f"The budget of {tokens:,} tokens is spent ({spent:,}). What was found is kept; "
                "to go on, call graphs.enrich again with more."
            )
        return None

    def pay(self, said: Completion, cost_usd: float | None) -> None:
        """Write a call down."""
        self.n_calls += 1
        self.n_input += said.n_input_tokens or 0
        self.n_output += said.n_output_tokens or 0
        known = self.cost_usd is not None and cost_usd is not None
        self.cost_usd = (self.cost_usd or 0.0) + (cost_usd or 0.0) if known else None

    def added_to(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was spent before with what was spent now."""
        costs = (before["cost_usd"], self.cost_usd)
        known = [cost for cost in costs if cost is not None]
        return {
            **before,
            "calls": before["calls"] + self.n_calls,
            "input": before["input"] + self.n_input,
            "output": before["output"] + self.n_output,
            "cost_usd": sum(known) if len(known) == len(costs) else None,
        }


def estimate(graph: Graph, document: Document | str, model: str) -> Enrichment:
    """Return what enriching a document will take: calls, tokens, money, time.

    Raises:
        NotFound: There is no such document.
        InputError: The model has no name such as openai:NAME or openai:NAME@URL.
    """
    name, url = _named(model)
    row, chunks = _read_before(graph, document)
    spent = row["enriched"] or NOTHING
    todo, n_done = len(_rest(chunks, spent)), len(spent["done"])
    calls, prompt, answer = CALLS, float(PROMPT_TOKENS), float(ANSWER_TOKENS)
    basis, seconds = "by what Graphiti's prompts took elsewhere", None
    if n_done:
        calls, prompt = spent["calls"] / n_done, spent["input"] / n_done
        answer, seconds = spent["output"] / n_done, spent["seconds"] / n_done * todo
        basis = f"by the {n_done} chunks that are done"
    n_input, n_output = round(prompt * todo), round(answer * todo)
    return Enrichment(
        model=model,
        n_chunks=todo,
        n_done=None,
        n_calls=round(calls * todo),
        n_input_tokens=n_input,
        n_output_tokens=n_output,
        cost_usd=prices.cost_usd(name, url, n_input, n_output),
        seconds=seconds,
        message=f"{todo} chunks, {basis}",
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
        Unavailable: The model does not answer as it should.
        Conflict: The document was deleted or loaded anew meanwhile.
    """
    _check(model, budget)
    row, chunks = _read_before(graph, document)
    before = {**NOTHING, **(row["enriched"] or {}), "model": model}
    todo, done = _rest(chunks, before), [*before["done"]]
    previous = {two.uuid: one.uuid for one, two in zip(chunks, chunks[1:], strict=False)}
    client = _client(model, budget)
    reader = _reader(graph, client, budget, {chunk.uuid for chunk in chunks})
    began, error = time.perf_counter(), STOPPED

    def note(state: str, error: str | None = None) -> dict[str, Any]:
        seconds = before["seconds"] + time.perf_counter() - began
        spent = budget.added_to(before) | {"done": done, "seconds": seconds}
        _write_down(graph, row["name"], spent, {"state": state, "error": error})
        return spent

    note("processing")
    try:
        for number, chunk in enumerate(todo):
            budget.look()
            event_loop.run(_read(reader, chunk, previous.get(chunk.uuid)))
            done.append(chunk.uuid)
            note("processing")
            if progress:
                spent_tokens = budget.n_input + budget.n_output
                progress(Progress("chunks read", number + 1, len(todo), f"{spent_tokens:,} tokens"))
        error = ""
    except KitError as stop:
        error = str(stop)
        raise
    finally:
        event_loop.run(client.client.close())
        note("partial_failure" if error or row["notes"] else "completed", error or None)
    return Enrichment(
        model=model,
        n_chunks=len(todo),
        n_done=len(todo),
        n_calls=budget.n_calls,
        n_input_tokens=budget.n_input,
        n_output_tokens=budget.n_output,
        cost_usd=budget.cost_usd,
        seconds=time.perf_counter() - began,
        message=f"{len(todo)} chunks of {row['name']} read",
    )


def _check(model: str, budget: Budget) -> None:
    name, url = _named(model)
    if budget.limit_usd is None and budget.limit_tokens is None:
        raise InputError("Enriching costs money. Set a budget: budget_usd= or budget_tokens=.")
    if budget.limit_usd is not None and prices.cost_usd(name, url, 1, 1) is None:
        raise InputError(
            f"{model} has no known price, so that dollars can't be counted. Give budget_tokens=."
        )


def _read_before(graph: Graph, document: Document | str) -> tuple[dict[str, Any], list[Any]]:
    """Return a document's row, and its living chunks."""
    name = document.name if isinstance(document, Document) else document
    loading.get(graph.ws, name, graph.address)
    row = graph.ws.store.get("documents", graph=graph.address, name=name) or {}
    return row, _living(event_loop.run(updates.episodes_of(graph, name)))


def _living(episodes: Mapping[str, Any]) -> list[Any]:
    return [item for item in episodes.values() if not updates.about(item).get("ended_at")]


def _rest(chunks: Iterable[Any], spent: Mapping[str, Any]) -> list[Any]:
    """Return the chunks that were not read yet."""
    done = set(spent["done"])
    return [chunk for chunk in chunks if chunk.uuid not in done]


def _write_down(graph: Graph, name: str, spent: dict[str, Any], row: dict[str, Any]) -> None:
    """Write down what a document holds by now, and what that took."""
    from graphiti_core.search.search_utils import get_mentioned_nodes

    chunks = _living(event_loop.run(updates.episodes_of(graph, name)))
    mentioned = event_loop.run(get_mentioned_nodes(graph.driver, chunks)) if chunks else []
    values = {
        "enriched": spent,
        "n_tokens": spent["input"] + spent["output"],
        "cost_usd": spent["cost_usd"],
        "n_entities": len(mentioned),
        "n_facts": len({key for chunk in chunks for key in chunk.entity_edges}),
    }
    graph.ws.store.update("documents", {"graph": graph.address, "name": name}, **values, **row)


def _named(model: str) -> tuple[str, str]:
    """Return a model's name, and where it is served."""
    if not model.startswith("openai:"):
        raise InputError(
            f"{model!r} can't enrich a graph; give openai:NAME, or openai:NAME@URL for any "
            "endpoint that speaks OpenAI's protocol."
        )
    found = requests.address(model)
    return found.name, found.base_url or os.environ.get("OPENAI_BASE_URL") or VENDOR


async def _read(reader: Any, chunk: Any, previous: str | None) -> None:
    """Let Graphiti read one chunk, with the one before it."""
    from graphiti_core.errors import NodeNotFoundError
    from graphiti_core.nodes import EpisodeType

    try:
        await reader.add_episode(
            name=chunk.name,
            episode_body=chunk.content,
            source_description=chunk.source_description,
            reference_time=chunk.valid_at,
            source=EpisodeType.text,
            group_id=chunk.group_id,
            uuid=chunk.uuid,
            previous_episode_uuids=[previous] if previous else [],
        )
    except NodeNotFoundError as error:
        raise Conflict(
            f"{chunk.name} was deleted while it was read. Load it again, then enrich it."
        ) from error


def _reader(graph: Graph, client: Any, budget: Budget, own: set[str]) -> Any:
    """Return Graphiti with a model, which writes what was found beside what is there.

    Graphiti alone takes the attributes (evidence, value, unit) of facts that the model takes for
    duplicates, ends facts of other documents, and replaces a chunk's facts by those it has found.
    """
    import numpy as np
    from graphiti_core import Graphiti
    from graphiti_core.edges import EntityEdge
    from graphiti_core.nodes import EntityNode, EpisodicNode

    def rounded(vector: list[float]) -> list[float]:
        kept: list[float] = np.round(vector, DECIMALS).tolist()
        return kept

    class Reader(Graphiti):
        """Graphiti, held to what the kit knows of facts."""

        async def _process_episode_data(
            self, episode: Any, nodes: Any, entity_edges: Any, *rest: Any, **more: Any
        ) -> Any:
            if budget.closed_by:  # Graphiti goes on without dates where asking for them has failed
                raise budget.closed_by
            driver = graph.driver
            # another process may have written meanwhile
            async with driver.write_transaction(graph.group):
                now = await EpisodicNode.get_by_uuid(driver, episode.uuid)
                _refuse_ended(now)
                keys = [edge.uuid for edge in entity_edges]
                there = await EntityEdge.get_by_uuids(driver, keys) if keys else []
                known = {fact.uuid: fact for fact in there}
                edges = [
                    _kept(edge, known.get(edge.uuid), episode.uuid, own) for edge in entity_edges
                ]
                for edge in edges:
                    edge.fact_embedding = rounded(edge.fact_embedding)
                there = await EntityNode.get_by_uuids(driver, [node.uuid for node in nodes])
                attributes = {node.uuid: node.attributes for node in there}
                for node in nodes:
                    node.attributes = attributes.get(node.uuid, node.attributes)
                    node.name_embedding = rounded(node.name_embedding)
                episode.source_description = now.source_description
                found = await super()._process_episode_data(episode, nodes, edges, *rest, **more)
                said = {edge.uuid for edge in edges if episode.uuid in edge.episodes}
                episode.entity_edges = sorted({*now.entity_edges, *said})
                await episode.save(driver)
            return found

    plain = graph.graphiti
    return Reader(
        graph_driver=graph.driver,
        llm_client=client,
        embedder=plain.embedder,
        cross_encoder=plain.cross_encoder,
    )


def _refuse_ended(chunk: Any) -> None:
    """Add nothing to a chunk that a new version no longer has.

    Raises:
        Conflict: It has ended since the reading began.
    """
    if updates.about(chunk).get("ended_at"):
        raise Conflict(
            f"{chunk.name} was loaded anew while it was read. What was found is kept; to read its "
            "new content, call graphs.enrich again."
        )


def _kept(edge: Any, there: Any, chunk: str, own: set[str]) -> Any:
    """Return a fact as it shall be: of one that others say too, the model only adds its word."""
    if there is None or (
        updates.EVIDENCE not in there.attributes and own.issuperset(there.episodes)
    ):
        return edge
    episodes = sorted({*there.episodes, *({chunk} & {*edge.episodes})})
    more = {"episodes": episodes, "fact_embedding": edge.fact_embedding}
    return there.model_copy(update=more)


def _client(model: str, budget: Budget) -> Any:
    """Return Graphiti's client of an endpoint, which pays for each call."""
    import openai
    from graphiti_core.llm_client import LLMConfig
    from graphiti_core.llm_client.openai_generic_client import OpenAIGenericClient

    name, url = _named(model)
    key = os.environ.get(protocol.KEY, "").strip()
    if not key and url == VENDOR:
        raise Unavailable(f"There is no key for {model}. Put one into {protocol.KEY}.")
    line = openai.AsyncOpenAI(
        api_key=key or PLACEHOLDER,
        base_url=url,
        timeout=TIMEOUT_S,
        max_retries=TRIES - 1,
        http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
    )
    limit = "max_completion_tokens" if line.base_url.host == protocol.VENDOR else "max_tokens"

    class Client(OpenAIGenericClient):
        """The endpoint, asked once at a time, whose failures are said in the kit's words."""

        turn = asyncio.Lock()  # Graphiti asks several at once; a budget is looked into one by one

        async def _generate_response_with_retry(
            self, messages: Any, response_model: Any, max_tokens: int, *_: Any, **__: Any
        ) -> dict[str, Any]:
            # not by Graphiti's waits, of 5 to 120 seconds: the SDK waits where that helps
            async with self.turn:
                for _ask in range(ASKS):
                    budget.look()
                    try:
                        return await self._asked(messages, response_model, max_tokens)
                    except openai.OpenAIError as error:
                        failure: Exception = error
                        break
                    except ValueError as error:
                        failure = error
                budget.closed_by = _no_answer(model, failure)
                raise budget.closed_by from failure

        async def _asked(self, messages: Any, form: Any, n_tokens: int) -> dict[str, Any]:
            turns = [
                {"role": turn.role, "content": self._clean_input(turn.content)} for turn in messages
            ]
            response = await line.chat.completions.create(
                model=name,
                messages=turns,
                temperature=self.temperature,
                response_format=self._build_response_format(form),
                **{limit: n_tokens},
            )
            said = _counted(protocol.read(response), turns)
            n_input, n_output = said.n_input_tokens, said.n_output_tokens
            cost_usd = prices.cost_usd(name, url, n_input, n_output, said.n_cached_tokens)
            budget.pay(said, cost_usd)
            text = self._strip_code_fences(said.text)
            return dict(form.model_validate_json(text).model_dump())

    return Client(LLMConfig(api_key=key, model=name, small_model=name), client=line)


def _counted(said: Completion | None, turns: Iterable[Mapping[str, str]]) -> Completion:
    """Return what was said with its tokens; of a server that does not count them, about as many."""
    if said is None:
        raise ValueError("it is no chat completion")
    n_input = said.n_input_tokens
    if n_input is None:
        n_input = sum(len(turn["content"]) for turn in turns) // 4
    n_output = said.n_output_tokens
    if n_output is None:
        n_output = len(said.text) // 4
    return Completion(said.text, said.is_complete, n_input, n_output, said.n_cached_tokens)


def _no_answer(model: str, error: Exception) -> Unavailable:
    words = " ".join(str(error).split())
    return Unavailable(
        f"{model} does not answer as Graphiti needs it: {words:.200}. What was found is kept; "
        "small models often fail the JSON: try a larger one, then call graphs.enrich again."
    )

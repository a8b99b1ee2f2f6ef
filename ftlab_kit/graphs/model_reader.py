"""Graphiti with a language model that reads chunks: what it may ask, and what it may write.

What documents state is not the model's to change. It may add entities, facts, and itself as another
source of a fact that is there; it never ends what a document states.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import openai
from graphiti_core import Graphiti
from graphiti_core.edges import EntityEdge
from graphiti_core.errors import NodeNotFoundError
from graphiti_core.llm_client import LLMConfig
from graphiti_core.llm_client.openai_generic_client import OpenAIGenericClient
from graphiti_core.nodes import EntityNode, EpisodeType, EpisodicNode

from ftlab_kit.chats import Completion, connection, prices
from ftlab_kit.errors import Conflict, Unavailable
from ftlab_kit.graphs import metadata
from ftlab_kit.graphs.budget import Budget
from ftlab_kit.graphs.drivers.protocol import DECIMALS
from ftlab_kit.graphs.open_graph import Graph

TRIES = 2  # for an answer that can't be read: small models often fail the JSON, and a chunk is dear
TIMEOUT_S = 300
CHARACTERS_PER_TOKEN = 4  # about; for servers that do not count tokens


class BudgetedClient(OpenAIGenericClient):
    """Graphiti's client of an endpoint: one request at a time, each paid from a budget."""

    def __init__(self, model: str, budget: Budget) -> None:
        """Open the client; nothing is sent yet.

        Args:
            model: openai:NAME or openai:NAME@URL.
            budget: Checked before each request.

        Raises:
            Unavailable: There is no key.
        """
        sdk = connection.client(model, timeout_s=TIMEOUT_S, is_async=True)
        name = connection.address(model).name
        super().__init__(LLMConfig(sdk.api_key, name, small_model=name), client=sdk)
        self._full_name, self._budget = model, budget
        self._provider: Any = connection.provider("openai")
        # Graphiti sends several requests at once; a budget must be checked before each
        self._one_at_a_time = asyncio.Lock()

    async def _generate_response_with_retry(
        self, messages: Any, response_model: Any, max_tokens: int, *_: Any, **__: Any
    ) -> dict[str, Any]:
        # replaces Graphiti's retries, which wait 5 to 120 seconds: the SDK waits where that helps
        async with self._one_at_a_time:
            for _try in range(TRIES):
                self._budget.check()
                try:
                    return await self._respond(messages, response_model, max_tokens)
                except openai.OpenAIError as error:
                    failure: Exception = error
                    break
                except ValueError as error:
                    failure = error
            self._budget.closed_by = _unusable(self._full_name, failure)
            raise self._budget.closed_by from failure

    async def _respond(self, messages: Any, response_model: Any, max_tokens: int) -> dict[str, Any]:
        turns = [
            {"role": turn.role, "content": self._clean_input(turn.content)} for turn in messages
        ]
        response = await self.client.chat.completions.create(
            model=self.model,
            messages=turns,
            temperature=self.temperature,
            response_format=self._build_response_format(response_model),
            **{self._provider.limit_name(self.client): max_tokens},
        )
        completion = _with_tokens(self._provider.read(response), turns)
        cost_usd = prices.cost_usd(
            self.model,
            str(self.client.base_url),
            completion.n_input_tokens,
            completion.n_output_tokens,
            completion.n_cached_tokens,
        )
        self._budget.pay(completion, cost_usd)
        text = self._strip_code_fences(completion.text)
        return dict(response_model.model_validate_json(text).model_dump())


def _with_tokens(completion: Completion | None, turns: Iterable[Mapping[str, str]]) -> Completion:
    """Return a completion with its tokens, estimated if the server does not count them.

    Raises:
        ValueError: The response is not a chat completion.
    """
    if completion is None:
        raise ValueError("the response is not a chat completion")
    n_input, n_output = completion.n_input_tokens, completion.n_output_tokens
    if n_input is None:
        n_input = sum(len(turn["content"]) for turn in turns) // CHARACTERS_PER_TOKEN
    if n_output is None:
        n_output = len(completion.text) // CHARACTERS_PER_TOKEN
    return Completion(
        completion.text, completion.is_complete, n_input, n_output, completion.n_cached_tokens
    )


def _unusable(model: str, error: Exception) -> Unavailable:
    text = " ".join(str(error).split())
    return Unavailable(
        f"{model} does not answer as Graphiti needs it: {text:.200}. What was found is kept. Small "
        "models often fail the JSON: try a larger one, then call graphs.enrich again."
    )


class ModelReader(Graphiti):
    """Graphiti that adds what a model finds, and leaves what documents state as it is.

    Graphiti alone would drop the attributes (evidence, value, unit) of facts that the model takes
    for duplicates, end facts of other documents, and replace a chunk's facts by those it found.
    """

    def __init__(self, graph: Graph, client: Any, budget: Budget, own_chunks: set[str]) -> None:
        """Take over the graph's driver and embedder.

        Args:
            graph: The open graph.
            client: The client of the language model.
            budget: Closed once the model has failed.
            own_chunks: Live chunks of the document; what the model found in them it may change.
        """
        super().__init__(
            graph_driver=graph.driver,
            llm_client=client,
            embedder=graph.graphiti.embedder,
            cross_encoder=graph.graphiti.cross_encoder,
        )
        self._group, self._budget, self._own_chunks = graph.group, budget, own_chunks

    async def read(self, chunk: EpisodicNode, previous: str | None) -> None:
        """Let the model read a chunk, with the one before it.

        Raises:
            Conflict: The chunk is gone, or has ended.
        """
        try:
            await self.add_episode(
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
                f"{chunk.name} was deleted while the model read it. Load it again, then enrich it."
            ) from error

    async def _process_episode_data(
        self, episode: Any, nodes: Any, entity_edges: Any, *values: Any, **options: Any
    ) -> Any:
        if self._budget.closed_by:  # Graphiti goes on without dates if the request for them failed
            raise self._budget.closed_by
        driver = self.driver
        # another process may have written meanwhile
        async with driver.write_transaction(self._group):
            stored = await EpisodicNode.get_by_uuid(driver, episode.uuid)
            _refuse_ended(stored)
            keys = [edge.uuid for edge in entity_edges]
            old = await EntityEdge.get_by_uuids(driver, keys) if keys else []
            old_facts = {fact.uuid: fact for fact in old}
            edges = [
                self._merged(edge, old_facts.get(edge.uuid), episode.uuid) for edge in entity_edges
            ]
            for edge in edges:
                edge.fact_embedding = _rounded(edge.fact_embedding)
            old_nodes = await EntityNode.get_by_uuids(driver, [node.uuid for node in nodes])
            attributes = {node.uuid: node.attributes for node in old_nodes}
            for node in nodes:
                node.attributes = attributes.get(node.uuid, node.attributes)
                node.name_embedding = _rounded(node.name_embedding)
            episode.source_description = stored.source_description
            processed = await super()._process_episode_data(
                episode, nodes, edges, *values, **options
            )
            stated = {edge.uuid for edge in edges if episode.uuid in edge.episodes}
            episode.entity_edges = sorted({*stored.entity_edges, *stated})
            await episode.save(driver)
        return processed

    def _merged(self, new: Any, old: Any, chunk_id: str) -> Any:
        """Return a fact of the model; if others state it too, the model only adds itself."""
        if old is None:
            return new
        is_own = metadata.EVIDENCE not in old.attributes and self._own_chunks >= {*old.episodes}
        if is_own:
            return new
        episodes = sorted({*old.episodes, *({chunk_id} & {*new.episodes})})
        changes = {"episodes": episodes, "fact_embedding": new.fact_embedding}
        return old.model_copy(update=changes)


def _rounded(vector: list[float]) -> list[float]:
    numbers: list[float] = np.round(vector, DECIMALS).tolist()
    return numbers


def _refuse_ended(chunk: EpisodicNode) -> None:
    """Add nothing to a chunk that a new version no longer has.

    Raises:
        Conflict: It has ended since the reading began.
    """
    if not metadata.is_live(chunk):
        raise Conflict(
            f"{chunk.name} was loaded anew while the model read it. What was found is kept; to "
            "read its new content, call graphs.enrich again."
        )

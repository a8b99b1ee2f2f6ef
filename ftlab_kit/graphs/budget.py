"""What enriching may spend, and what it has spent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftlab_kit.chats import Completion
from ftlab_kit.errors import BudgetSpent, KitError

# what is stored of a document that was never enriched
NOTHING_SPENT: dict[str, Any] = {
    "done": [],
    "calls": 0,
    "input": 0,
    "output": 0,
    "cost_usd": 0.0,
    "seconds": 0.0,
}


@dataclass
class Budget:
    """What one call of enrich may spend, and has spent. Once closed, nothing more is spent."""

    limit_usd: float | None = None
    limit_tokens: int | None = None
    n_calls: int = 0
    n_input_tokens: int = 0
    n_output_tokens: int = 0
    cost_usd: float | None = 0.0
    closed_by: KitError | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens of prompts and answers."""
        return self.n_input_tokens + self.n_output_tokens

    def check(self) -> None:
        """Refuse to go on with nothing left, or after the model has failed.

        Raises:
            BudgetSpent: The budget is spent.
            Unavailable: The model has failed.
        """
        self.closed_by = self.closed_by or self._spent()
        if self.closed_by:
            raise self.closed_by

    def _spent(self) -> BudgetSpent | None:
        if self.limit_usd is not None and (self.cost_usd or 0.0) >= self.limit_usd:
            return BudgetSpent(
                f"The budget of {self.limit_usd:.4g} USD is spent ({self.cost_usd or 0.0:.4g}). "
                "What was found is kept; to go on, call graphs.enrich again with more."
            )
        if self.limit_tokens is not None and self.n_tokens >= self.limit_tokens:
            return BudgetSpent(
                f"The budget of {self.limit_tokens:,} tokens is spent ({self.n_tokens:,}). "
                "What was found is kept; to go on, call graphs.enrich again with more."
            )
        return None

    def pay(self, completion: Completion, cost_usd: float | None) -> None:
        """Add a call; a call without a known price makes the cost unknown."""
        self.n_calls += 1
        self.n_input_tokens += completion.n_input_tokens or 0
        self.n_output_tokens += completion.n_output_tokens or 0
        is_known = self.cost_usd is not None and cost_usd is not None
        self.cost_usd = (self.cost_usd or 0.0) + (cost_usd or 0.0) if is_known else None

    def added_to(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is stored of a document, with this spending added."""
        costs = [cost for cost in (before["cost_usd"], self.cost_usd) if cost is not None]
        return {
            **before,
            "calls": before["calls"] + self.n_calls,
            "input": before["input"] + self.n_input_tokens,
            "output": before["output"] + self.n_output_tokens,
            "cost_usd": sum(costs) if len(costs) == 2 else None,
        }

"""What an answer costs by the list price, from the tables of genai-prices, without a request."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlab_kit.chats.connection import Completion


def cost_usd(name: str, url: str, said: "Completion") -> float | None:
    """Return the cost in US dollars of what a model said, None where it has no known price.

    Args:
        url: Where it is served; a price is one of a vendor, not of a model.
    """
    from genai_prices import Usage, calc_price

    if said.n_input_tokens is None or said.n_output_tokens is None:
        return None
    usage = Usage(
        input_tokens=said.n_input_tokens,
        output_tokens=said.n_output_tokens,
        cache_read_tokens=said.n_cached_tokens,
    )
    try:
        return float(calc_price(usage, name, provider_api_url=url).total_price)
    except LookupError:
        return None

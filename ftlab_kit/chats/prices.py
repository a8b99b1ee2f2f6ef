"""What an answer costs by the list price, from the tables of genai-prices, without a request."""


def cost_usd(
    name: str,
    url: str,
    n_input_tokens: int | None,
    n_output_tokens: int | None,
    n_cached_tokens: int = 0,
) -> float | None:
    """Return the cost of an answer in US dollars; None where tokens or price are not known.

    Args:
        name: The model's name, as its provider has it.
        url: Where it is served: a price belongs to a vendor, not to a model.
        n_input_tokens: Tokens of the chat.
        n_output_tokens: Tokens of the answer.
        n_cached_tokens: Those of the input that the provider had in its cache.
    """
    from genai_prices import Usage, calc_price

    if n_input_tokens is None or n_output_tokens is None:
        return None
    usage = Usage(
        input_tokens=n_input_tokens,
        output_tokens=n_output_tokens,
        cache_read_tokens=n_cached_tokens,
    )
    try:
        return float(calc_price(usage, name, provider_api_url=url).total_price)
    except LookupError:
        return None

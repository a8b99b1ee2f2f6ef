"""How much memory a job takes, estimated before it starts.

Weights follow from the model's sizes, and so do gradients and AdamW's two moments of what is
trained. Activations after Korthikanti et al. 2022 (arXiv 2205.05198): 34 bytes per token, layer and
hidden unit at 16 bits, without attention's score matrix; with gradient checkpointing those of one
layer. Logits are counted for half of the tokens, since answers are about half of a chat.
"""

from ftlab_kit.models.catalogue import Entry
from ftlab_kit.records import Memory

GIB = 2**30
# the seven linear layers of a Llama block have inputs and outputs of about 24 hidden sizes in all
HIDDEN_SIZES_PER_LAYER = 24


def estimate(
    entry: Entry,
    *,
    is_adapter: bool = True,
    adapter_rank: int = 16,
    rows_at_once: int = 1,
    max_length: int = 1024,
    gradient_checkpointing: bool = False,
    bytes_per_weight: int = 2,
) -> Memory:
    """Return the memory of a training job by its parts; by default of the smallest useful job.

    Args:
        entry: The model.
        is_adapter: Whether an adapter is trained; else every weight is.
        adapter_rank: The adapter's rank.
        rows_at_once: Rows of a micro-batch.
        max_length: Tokens of the longest row.
        gradient_checkpointing: Whether activations are computed again in the backward.
        bytes_per_weight: 2 for bf16 and fp16, 4 for fp32.
    """
    weights = entry.parameters_millions * 1e6
    adapter = adapter_rank * HIDDEN_SIZES_PER_LAYER * entry.hidden * entry.layers
    trained = adapter if is_adapter else weights
    tokens = rows_at_once * min(max_length, entry.context_tokens)
    layers = 1 if gradient_checkpointing else entry.layers
    activations = 17 * bytes_per_weight * tokens * entry.hidden * layers
    logits = 4 * tokens / 2 * entry.vocabulary
    # 12 bytes: a gradient and two moments, each in fp32
    parts = [weights * bytes_per_weight, trained * 12, activations + logits]
    weights_gib, trained_gib, activations_gib = (part / GIB for part in parts)
    return Memory(weights_gib, trained_gib, activations_gib, sum(parts) / GIB)

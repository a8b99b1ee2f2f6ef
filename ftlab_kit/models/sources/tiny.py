"""A random Llama of a million parameters with SmolLM2's tokenizer, for tests and first steps.

The tokenizer is SmolLM2's (Apache-2.0, Hugging Face), compressed in the folder beside this file.
"""

import lzma
from pathlib import Path

from ftlab_kit.models.catalogue import Entry

TOKENIZER = Path(__file__).parent / "tokenizer"


def fetch(origin: Entry, folder: Path) -> None:
    """Create the model from a fixed seed; nothing is downloaded."""
    from ftlab_kit.lm.loading import quiet

    packed = (TOKENIZER / "tokenizer.json.xz").read_bytes()
    (folder / "tokenizer.json").write_bytes(lzma.decompress(packed))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text((TOKENIZER / name).read_text())
    with quiet():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=origin.hidden,
                    intermediate_size=4 * origin.hidden,
                    num_hidden_layers=origin.layers,
                    num_attention_heads=2,
                    num_key_value_heads=1,
                    vocab_size=origin.vocabulary,
                    max_position_embeddings=origin.context_tokens,
                    tie_word_embeddings=True,
                    bos_token_id=1,
                    eos_token_id=2,
                    pad_token_id=0,
                )
            )
        model.save_pretrained(folder)

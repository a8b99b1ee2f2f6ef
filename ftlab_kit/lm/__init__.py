"""The torch side of a language model, without a workspace: tensors in, numbers and text out.

Other rooms import these files: `tokens` (chat templates, trained tokens), `loading` (weights and
tokenizers), `generation` with `generation_settings`, `likelihood` (losses), `flops`, and the
processor's fast layers in `fast`. Importing the room itself loads no torch.
"""

__all__ = [
    "fast",
    "flops",
    "generation",
    "generation_settings",
    "likelihood",
    "loading",
    "tokens",
]

"""The torch side of a language model, without a workspace: tensors in, numbers and text out.

Other rooms import these files; importing the room itself loads no torch.

- `tokens`: a chat as token ids, and which of them are trained
- `loading`: weights and tokenizers from a folder
- `adapters`: what a PEFT adapter changes about a model
- `generation`, `generation_settings`: answers to prompts
- `likelihood`: losses, computed only where a token is trained
- `flops`: the work of a training step, and what a processor can do
- `fast`: faster layers for a processor
"""

__all__ = [
    "adapters",
    "fast",
    "flops",
    "generation",
    "generation_settings",
    "likelihood",
    "loading",
    "tokens",
]

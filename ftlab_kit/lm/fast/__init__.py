"""Faster layers for a processor: oneDNN products, LoRA, fused norms, short attention."""

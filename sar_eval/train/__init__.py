"""Training of decoders, and of the demo's tokenizer and its scenes."""

"""Checkpoints and visual tokenizers."""

"""Guided decoding on an unmodified vLLM."""

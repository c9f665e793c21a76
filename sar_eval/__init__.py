"""sar-eval: generate, score and compare images of autoregressive text-to-image checkpoints."""

__version__ = "0.9.0"

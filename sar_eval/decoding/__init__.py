"""Token decoding in plain PyTorch: transformer, guidance, sampling, noise, batching, speculation."""

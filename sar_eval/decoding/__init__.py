"""The sampling loop: transformer, guidance, sampling, noise, speculation, batching."""

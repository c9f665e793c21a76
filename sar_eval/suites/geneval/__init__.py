"""GenEval's words and its prompt sampler."""

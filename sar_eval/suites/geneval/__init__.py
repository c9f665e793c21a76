"""GenEval's vocabulary, prompt sampler, verdict rules and scoring."""

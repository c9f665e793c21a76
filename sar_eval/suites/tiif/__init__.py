"""TIIF-Bench: short and long instructions, with yes-or-no questions (Wei et al., arXiv 2506.02161)."""

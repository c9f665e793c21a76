"""ImageReward's benchmark: 100 prompts of its users (Xu et al., arXiv 2304.05977)."""

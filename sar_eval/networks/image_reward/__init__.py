"""ImageReward v1.0 on transformers' BLIP (Xu et al., arXiv 2304.05977; package image-reward 1.5)."""

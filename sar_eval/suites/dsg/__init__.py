"""DSG-1k: question graphs about prompts of ten sources (Cho et al., arXiv 2310.18235)."""

"""LongText-Bench: long texts that a picture must show (Geng et al., X-Omni, arXiv 2507.22058)."""

"""WISE's prompts, replies and figures (Niu et al., arXiv 2503.07265): verified (2026), and legacy."""

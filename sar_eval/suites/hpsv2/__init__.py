"""HPSv2's benchmark: 800 prompts in each of four styles (Wu et al., arXiv 2306.09341)."""

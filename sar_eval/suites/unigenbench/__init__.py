"""UniGenBench: test points in 27 dimensions, each of a prompt's true or not (Wang et al., arXiv 2510.18701)."""

"""UniGenBench: test points of 27 kinds that a picture meets or not (Wang et al., arXiv 2510.18701)."""

"""UniGenBench: test points in 27 dimensions, which a picture meets or not (Wang et al., arXiv 2510.18701)."""

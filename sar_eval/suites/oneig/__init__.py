"""OneIG-Bench's alignment and rendered text, in English and Chinese (Chang et al., arXiv 2506.07977)."""

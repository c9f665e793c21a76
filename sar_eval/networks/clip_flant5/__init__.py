"""CLIP-FlanT5, the network of VQAScore: CLIP's patches as words of a T5 that answers a question.

Reimplemented from the behaviour of `t2v-metrics 3.0` (Lin et al., arXiv 2404.01291; Apache-2.0).
"""

"""GenEval 2 (Kamath et al., arXiv 2512.16853): how its answers are spelled and scored.

Reimplemented from the behaviour of `evaluation.py` and `soft_tifa_analysis.py` of
https://github.com/facebookresearch/GenEval2. Its prompts and the judge's text are CC BY-NC 4.0, so they are
fetched and never shipped.
"""

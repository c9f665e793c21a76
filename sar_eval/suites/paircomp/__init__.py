"""PairComp (FocusDiff, arXiv 2506.05501): pairs of captions that differ in one thing.

Reimplemented from the behaviour of `evaluate_images.py` and `summary_scores.py` in `PairComp/` of
https://github.com/wendell0218/FocusDiff. Captions and the judge's text have no licence, so they are
fetched and never shipped.
"""

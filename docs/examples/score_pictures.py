"""Scores the pictures named on the command line: every scorer sees one decoding of each."""

import sys

from sar_eval.scoring import ScorerSet

SCORERS = ["colourfulness"]  # add "hps", "imagereward", "clip:hessel" after `sar-eval fetch scorers`

if __name__ == "__main__":
    paths = sys.argv[1:]
    with ScorerSet(SCORERS) as scorers:
        for path, scored in zip(paths, scorers.score(paths, ["" for _ in paths]), strict=True):
            print(path, scored.scores or scored.errors)

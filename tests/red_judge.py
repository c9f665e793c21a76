"""A judge of one pixel, with faults to order: what a picture's first pixel is decides what it does.

Red is the score (of 255), green over 127 passes, and blue orders a fault, see `FAULTS`.
"""

from pathlib import Path

import numpy as np

from sar_eval.errors import BadInput, DeviceLost
from sar_eval.images.files import decode_image
from sar_eval.types import Verdict

FAULTS = {1: BadInput("torn"), 2: ZeroDivisionError("three"), 3: DeviceLost("the card is gone")}
FORGET, TWICE, NAN, OTHER, NONE, NO_VERDICT = range(4, 10)


class Red:
    def __init__(self, *, device="cpu", log="", cost=1.0, version="7"):
        self.log, self.cost, self.version = log, cost, version
        self.speed_options = ("log", "cost")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def judge(self, items):
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(" ".join(generation.key for _, generation in items) + "\n")
        for _, generation in items:
            red, green, blue = decode_image(generation.image)[0, 0].tolist()
            if blue in FAULTS:
                raise FAULTS[blue]
            score = {NAN: float("nan"), NONE: None}.get(blue, np.float32(red / 255))
            key = "someone/0" if blue == OTHER else generation.key
            if blue == NO_VERDICT:
                yield "no verdict"
            elif blue != FORGET:
                yield Verdict(key, "red", "7", score, None if blue == NONE else green > 127)
            if blue == TWICE:
                yield Verdict(key, "red", "7", score, True)


JUDGE = Red

"""Scorers for tests of what runs them: real numbers of the pixels, one network shared by two of them."""

from typing import ClassVar

import numpy as np

from sar_eval.networks import shared
from sar_eval.types import Score, ScorerFacts

FACTS = ScorerFacts("grey levels", 0.0, 255.0, needs_prompt=False, licence="MIT")


class MeanNetwork:
    """Counts its loads and the pictures of its forwards."""

    loads = 0
    pictures = 0

    def __init__(self) -> None:
        MeanNetwork.loads += 1

    def means(self, pictures):
        new = [picture for picture in pictures if not picture.has("mean network")]
        MeanNetwork.pictures += len(new)
        for picture in new:
            picture.keep("mean network", np.asarray(picture.rgb, float).mean((0, 1)))
        return [picture.once("mean network", dict) for picture in pictures]


class Mean:
    """The mean of all channels, or of one."""

    variants: ClassVar = {"": FACTS, "red": FACTS}

    def __init__(self, *, variant="", device="cpu", dtype="float32", plus=0.0, weights=""):
        self.variant, self.facts, self.plus = variant, FACTS, plus
        self.version = f"1+{plus}"
        self.path_options = ("weights",)

    def __enter__(self):
        self.network = shared.acquire("mean network", MeanNetwork)
        return self

    def __exit__(self, *error):
        shared.release("mean network")

    def score(self, pictures, prompts):
        for channels in self.network.means(pictures):
            yield Score(float((channels[0] if self.variant else channels.mean()) + self.plus))


class Picky(Mean):
    """Has no number for a prompt without "yes", and cuts prompts of more than ten letters."""

    variants: ClassVar = {"": ScorerFacts("grey levels", 0.0, 255.0, needs_prompt=True, licence="MIT")}

    def __init__(self, **options):
        super().__init__(**options)
        self.facts = self.variants[""]

    def score(self, pictures, prompts):
        for score, prompt in zip(super().score(pictures, prompts), prompts, strict=True):
            if "nan" in prompt:
                yield Score(float("nan"))
            elif "yes" not in prompt:
                yield Score(error="no yes in the prompt")
            else:
                yield Score(score.value, truncated=len(prompt) > 10, more={"spread": 1.5})


MEAN, PICKY = Mean, Picky

"""A rigged judge that needs no pixels: the share of even visual codes."""

from sar_eval.types import Verdict


class EvenCodes:
    version = "1"

    def __init__(self, device: str = "cpu", offset: float = 0.0) -> None:
        self.offset = offset

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def judge(self, items):
        for _, generation in items:
            even = sum(code % 2 == 0 for code in generation.tokens) / len(generation.tokens)
            yield Verdict(generation.key, "even", self.version, score=even + self.offset)


JUDGE = EvenCodes

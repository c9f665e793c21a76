"""What tests/even_codes.py likes least: the share of odd visual codes."""

from sar_eval.types import Verdict
from tests.even_codes import EvenCodes


class OddCodes(EvenCodes):
    def judge(self, items):
        for verdict in super().judge(items):
            yield Verdict(verdict.key, "odd", self.version, score=1 - verdict.score)


JUDGE = OddCodes

"""An engine that takes a moment for each draw, so that there is time to disturb it."""

import time
from collections.abc import Iterator, Sequence

from benchmarks.speed.null_engine import NullEngine
from sar_eval.types import Draw, Generation

SECONDS = 0.05


class SlowEngine(NullEngine):
    """Pictures that the seed decides."""

    def generate(self, draws: Sequence[Draw]) -> Iterator[Generation]:
        for generation in super().generate(draws):
            time.sleep(SECONDS)
            yield generation


ENGINE = SlowEngine

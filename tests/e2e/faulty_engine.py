"""An engine whose worker dies on one prompt: always, or until the file beside the run says otherwise."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from sar_eval.engines.native import NativeEngine
from sar_eval.types import Draw, Generation


class Faulty(NativeEngine):
    """Kills itself when it should draw `counting-000`, unless SAR_EVAL_TEST_HEALED exists."""

    def begin(self, draws: Sequence[Draw]) -> Iterator[Future[list[Generation]]]:
        healed = Path(os.environ["SAR_EVAL_TEST_HEALED"]).exists()
        if not healed and any(draw.prompt.id == "counting-000" for draw in draws):
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().begin(draws)


ENGINE = Faulty

"""mPLUG-large VQA, DPG-Bench's own: its answer counts as yes if it is exactly "yes".

The network is written anew in `networks.mplug` and loads the original files: `sar-eval fetch dpg`, or a
folder of them as the option `weights`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sar_eval.errors import BadInput
from sar_eval.suites.dpg.yes_no import EXACT_RULE, read_exact
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Answer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sar_eval.networks.mplug.vqa import Reply

VERSION = "1"
DTYPES = ("float32", "bfloat16", "float16")
RESIZING_THREADS = 4


class MplugAnswerer:
    """Answers with the official network."""

    path_options = ("weights",)  # the version knows the bytes

    def __init__(
        self, *, device: str = "cpu", weights: str = "", dtype: str = "float32", batch_size: int = 4
    ) -> None:
        """Check options and find the weights; nothing is loaded yet.

        Args:
            device: of torch.
            weights: folder of the original files; "" for the fetched ones.
            dtype: of the network; float32 is official.
            batch_size: images of one pass; each brings all its questions.

        Raises:
            BadInput: a value out of range, or weights that are not there.
        """
        from sar_eval.networks.mplug.weights import digest

        if dtype not in DTYPES:
            raise BadInput(f"dtype {dtype!r} of answerer 'mplug': {', '.join(DTYPES)}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise BadInput(f"batch_size {batch_size!r} of answerer 'mplug': a whole number >= 1")
        self.folder = Path(weights).resolve() if weights else find_weights("mplug").parent
        self.device, self.dtype, self.batch_size = device, dtype, batch_size
        self.version = f"{VERSION}+{digest(self.folder)}+{EXACT_RULE}"

    def __enter__(self) -> Self:
        from sar_eval.networks.mplug.vqa import MplugVqa

        self._model = MplugVqa(self.folder, device=self.device, dtype=self.dtype)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._model

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image; a question without a word gets an error.

        Raises:
            BadInput: an array that is no RGB image, or a network that answers NaN.
        """
        with ThreadPoolExecutor(RESIZING_THREADS) as pool:
            # Ahead of the network: resizing lets go of Python's lock.
            prepared = pool.map(self._model.prepare, [pixels for pixels, _ in images])
            for start in range(0, len(images), self.batch_size):
                questions = [asked for _, asked in images[start : start + self.batch_size]]
                batch = [next(prepared) for _ in questions]
                for replies in self._model.answer(batch, questions):
                    yield [_answer(reply) for reply in replies]


def _answer(reply: Reply | None) -> Answer:
    if reply is None:
        return Answer(error="the question is empty")
    return Answer(reply.text, read_exact(reply.text), reply.soft, reply.truncated)


ANSWERER = MplugAnswerer

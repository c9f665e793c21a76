"""mPLUG-large VQA, DPG-Bench's own: its answer counts as yes if it is exactly "yes".

`networks.mplug` reimplements the network and loads the original files: those of `sar-eval fetch dpg`, or of
the folder in the option `weights`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sar_eval.options import check_dtype, check_whole_number
from sar_eval.suites.dpg.yes_no import EXACT_RULE, read_exact
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Answer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sar_eval.networks.mplug.vqa import MplugOutput

VERSION = "1"
LABEL = "answerer 'mplug'"  # in error messages
RESIZE_THREADS = 4


class MplugAnswerer:
    """Answers with the official network."""

    path_options = ("weights",)  # the version has a digest of the files
    cost = 1500.0  # GFLOP of a picture (ViT-L/14 at 504 pixels, 950) with a dozen questions

    def __init__(
        self, *, device: str = "cpu", weights: str = "", dtype: str = "float32", batch_size: int = 4
    ) -> None:
        """Check the options and find the weights, which are loaded on enter.

        Args:
            device: torch device.
            weights: folder of the original files; "" for the fetched ones.
            dtype: of the weights; float32 is official.
            batch_size: images of one forward pass, each with all its questions.

        Raises:
            BadInput: a value out of range, or missing weights.
        """
        from sar_eval.networks.mplug.weights import digest

        check_dtype(dtype, LABEL)
        check_whole_number("batch_size", batch_size, LABEL)
        self.folder = Path(weights).resolve() if weights else find_weights("mplug").parent
        self.device, self.dtype, self.batch_size = device, dtype, batch_size
        self.version = f"{VERSION}+{digest(self.folder)}+{EXACT_RULE}"

    def __enter__(self) -> Self:
        from sar_eval.networks.mplug.vqa import MplugVqa

        self._model = MplugVqa(self.folder, device=self.device, dtype=self.dtype)
        return self

    def __exit__(self, *error: object) -> None:
        del self._model

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image; an empty question gets an error.

        Raises:
            BadInput: an array that is no RGB image, or NaN logits.
        """
        with ThreadPoolExecutor(RESIZE_THREADS) as pool:
            # Resizing releases the GIL, so threads prepare the next images during the forward pass.
            prepared = pool.map(self._model.prepare, [pixels for pixels, _ in images])
            for start in range(0, len(images), self.batch_size):
                questions = [texts for _, texts in images[start : start + self.batch_size]]
                batch = [next(prepared) for _ in questions]
                for outputs in self._model.answer(batch, questions):
                    yield [_to_answer(output) for output in outputs]


def _to_answer(output: MplugOutput | None) -> Answer:
    if output is None:
        return Answer(error="the question is empty")
    return Answer(output.text, read_exact(output.text), output.soft, output.truncated)


ANSWERER = MplugAnswerer

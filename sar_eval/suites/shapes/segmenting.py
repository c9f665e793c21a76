"""What the judges of the demo world have in common: no network, one picture at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import cv2

from sar_eval.errors import BadInput
from sar_eval.types import Generation, Prompt, Verdict


class SegmentingJudge:
    """Base of judges that find shapes by segmentation; a subclass has `name`, `version` and `judge_one`."""

    name: str
    version: str
    cost = 0.1  # GFLOP a picture

    def __enter__(self) -> Self:
        # Workers are processes, one for each core: OpenCV's own threads would compete with them.
        cv2.setNumThreads(1)
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def judge(self, items: Sequence[tuple[Prompt, Generation]]) -> Iterator[Verdict]:
        """One verdict for each image; an unreadable one gets an error instead of a score."""
        for prompt, generation in items:
            try:
                yield self.judge_one(prompt, generation)
            except BadInput as error:
                yield Verdict(generation.key, self.name, self.version, error=str(error))

    def judge_one(self, prompt: Prompt, generation: Generation) -> Verdict:
        """The verdict of one image.

        Raises:
            BadInput: it cannot be read, or its prompt asks for nothing that can be checked.
        """
        raise NotImplementedError

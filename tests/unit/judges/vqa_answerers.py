"""Answerers for the tests of the judge: one that reads pixels, one that fails as it is told."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from sar_eval.types import Answer


class Reading:
    """Says yes to every colour word of a question that is the image's strongest channel.

    What else a question can ask for: `nothing` (no answer), `maybe` (neither yes nor no), `long` (cut).
    """

    def __init__(self, *, device: str = "cpu", log: str = "") -> None:
        self.device, self.log, self.version = device, log, "reading-1"
        self.open = False

    def __enter__(self) -> Self:
        self.open = True
        return self

    def __exit__(self, *error: object) -> None:
        self.open = False

    def answer(self, images) -> Iterator[Sequence[Answer]]:
        """Notes how many images came together."""
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{len(images)}\n")
        for pixels, questions in images:
            channel = ("red", "green", "blue")[int(pixels.mean((0, 1)).argmax())]
            yield [self._say(question, channel) for question in questions]

    def _say(self, question: str, channel: str) -> Answer:
        if "nothing" in question:
            return Answer(error="timed out")
        if "maybe" in question:
            return Answer("maybe")
        yes = channel in question
        return Answer("yes" if yes else "no", yes, 0.9 if yes else 0.2, truncated="long" in question)


class Dying(Reading):
    """Dies at the first green image as long as the file `sick` is there."""

    def __init__(self, *, device: str = "cpu", sick: str, log: str = "") -> None:
        super().__init__(device=device, log=log)
        self.sick = Path(sick)

    def answer(self, images) -> Iterator[Sequence[Answer]]:
        """Gives what comes before it."""
        for (pixels, _), answers in zip(images, super().answer(images), strict=True):
            if self.sick.exists() and int(pixels.mean((0, 1)).argmax()) == 1:
                raise ConnectionError("the network is gone")
            yield answers


READING, DYING = Reading, Dying

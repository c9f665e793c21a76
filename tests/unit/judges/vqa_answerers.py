"""Answerers for the tests of the judge: one that reads pixels, and one that fails on demand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from sar_eval.types import Answer


class Reading:
    """Answers yes if a question names the image's strongest channel.

    Other words of a question: `nothing` (no answer), `maybe` (neither yes nor no), `long` (truncated).
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
        """Also logs the number of images."""
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{len(images)}\n")
        for pixels, questions in images:
            channel = ("red", "green", "blue")[int(pixels.mean((0, 1)).argmax())]
            yield [self._answer_one(question, channel) for question in questions]

    def _answer_one(self, question: str, channel: str) -> Answer:
        if "nothing" in question:
            return Answer(error="timed out")
        if "maybe" in question:
            return Answer("maybe")
        yes = channel in question
        return Answer("yes" if yes else "no", yes, 0.9 if yes else 0.2, truncated="long" in question)


class Failing(Reading):
    """Raises an error at the first green image while the file `fail_file` exists."""

    def __init__(self, *, device: str = "cpu", fail_file: str, log: str = "") -> None:
        super().__init__(device=device, log=log)
        self.fail_file = Path(fail_file)

    def answer(self, images) -> Iterator[Sequence[Answer]]:
        """Yields the answers before it."""
        for (pixels, _), answers in zip(images, super().answer(images), strict=True):
            if self.fail_file.exists() and int(pixels.mean((0, 1)).argmax()) == 1:
                raise ConnectionError("the network is gone")
            yield answers


READING, FAILING = Reading, Failing

"""Any visual-question-answering or image-text-to-text model of transformers: a folder or a hub name.

A chat model's text must say yes or no; any other text is an error. For a question-answering network (ViLT,
BLIP) any text that does not say yes is no, as with DPG-Bench's own judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.answers import Asked, Listed
from sar_eval.errors import BadInput
from sar_eval.options import check_dtype, check_names, check_whole_number
from sar_eval.suites.dpg.yes_no import (
    CHAT_RULE,
    DEFAULT_TEMPLATE,
    WORD_RULE,
    chat_answer,
    check_template,
    fill_template,
    listed_answer,
    soft_score,
    template_digest,
    word_answer,
)
from sar_eval.types import Answer

if TYPE_CHECKING:
    from sar_eval.networks.vqa_transformers import VqaNetwork, VqaOutput

VERSION = "1"
LABEL = "answerer 'transformers'"  # in error messages


@dataclass(frozen=True, slots=True)
class Options:
    """The network and its input.

    Attributes:
        model: a folder, or ORG/NAME on the hub.
        revision: branch, tag or commit on the hub; "" for the main branch.
        dtype: of the weights; use float32 for figures to publish.
        batch_size: questions of one forward pass.
        prompt: template of the text, with `{question}` in it; "" for the question alone, followed by
            "Answer with yes or no." for a chat model.
        max_new_tokens: of an answer of a generating network.
    """

    model: str = ""
    revision: str = ""
    dtype: str = "float32"
    batch_size: int = 16
    prompt: str = ""
    max_new_tokens: int = 16


class TransformersAnswerer:
    """Answers with a transformers model, several questions a batch, decoding greedily."""

    path_options = ("model",)  # the version has the model's name and a digest of its files

    def __init__(self, *, device: str = "cpu", **options: Any) -> None:
        """Check the options and find the network's files; weights are loaded on enter.

        Raises:
            BadInput: an option that is unknown or out of range, or a network of another kind.
            Incomplete: the download broke off.
            MissingExtra: transformers is not installed.
        """
        from sar_eval.networks.vqa_transformers import find_network, network_kind

        check_names(options, [field.name for field in fields(Options)], LABEL)
        self.options, self.device = _validate(Options(**options)), device
        self.folder, digest = find_network(self.options.model, self.options.revision)
        self.chat = network_kind(self.folder) == "chat"
        self.prompt = self.options.prompt or (DEFAULT_TEMPLATE if self.chat else "{question}")
        rule = CHAT_RULE if self.chat else WORD_RULE
        name = f"{Path(self.options.model).name}@{digest}"
        self.version = f"{VERSION}+{name}+{template_digest(self.prompt)}+{rule}"

    def __enter__(self) -> Self:
        from sar_eval.networks.vqa_transformers import VqaNetwork

        self._network: VqaNetwork = VqaNetwork(
            self.folder,
            device=self.device,
            dtype=self.options.dtype,
            max_new_tokens=self.options.max_new_tokens,
        )
        return self

    def __exit__(self, *error: object) -> None:
        del self._network

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image, in the same order."""
        yield from self.ask([(pixels, [Asked(text) for text in texts]) for pixels, texts in images])

    def ask(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[Asked]]]
    ) -> Iterator[Sequence[Answer]]:
        """The same for questions that may list their answers, whose probabilities are exact."""
        pairs = [(pixels, question) for pixels, questions in images for question in questions]
        answers = self._answers(pairs)
        for _, questions in images:
            yield [next(answers) for _ in questions]

    def _answers(self, pairs: Sequence[tuple[NDArray[np.uint8], Asked]]) -> Iterator[Answer]:
        for start in range(0, len(pairs), self.options.batch_size):
            batch = pairs[start : start + self.options.batch_size]
            filled = [replace(asked, text=fill_template(self.prompt, asked.text)) for _, asked in batch]
            outputs = self._network.ask([Image.fromarray(pixels) for pixels, _ in batch], filled)
            for asked, output in zip(filled, outputs, strict=True):
                yield self._to_answer(asked, output)

    def _to_answer(self, asked: Asked, output: VqaOutput) -> Answer:
        if output.masses is not None:
            listed = Listed(output.masses.mass, output.masses.distinct, output.masses.against)
            return listed_answer(output.text, output.first, asked, listed)
        soft = soft_score(output.yes, output.no)
        if self.chat:
            return chat_answer(output.text, soft)
        return word_answer(output.text, soft, output.truncated)


def _validate(options: Options) -> Options:
    if not options.model or not isinstance(options.model, str):
        raise BadInput(f"{LABEL} needs a network: --judge-option model=FOLDER or ORG/NAME")
    if not isinstance(options.revision, str):
        raise BadInput(f"revision {options.revision!r} of {LABEL}: a branch, tag or commit, as text")
    check_dtype(options.dtype, LABEL)
    if options.prompt != "":
        check_template(options.prompt, LABEL)
    for name in ("batch_size", "max_new_tokens"):
        check_whole_number(name, getattr(options, name), LABEL)
    return options


ANSWERER = TransformersAnswerer

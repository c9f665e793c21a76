"""Any visual-question-answering or image-text-to-text model of transformers: a folder or a hub name.

What a chat model writes must say yes or no, or it is no answer. What a question-answering network says
(ViLT, BLIP) is yes or it is not, as with DPG's own judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.suites.dpg.yes_no import (
    CHAT_RULE,
    DEFAULT_TEMPLATE,
    WORD_RULE,
    chat_answer,
    check_template,
    fill_template,
    soft_score,
    template_digest,
    word_answer,
)
from sar_eval.types import Answer

if TYPE_CHECKING:
    from sar_eval.networks.vqa_transformers import Said, VqaNetwork

VERSION = "1"
WHO = "answerer 'transformers'"


@dataclass(frozen=True, slots=True)
class Options:
    """Which network, and how it is asked.

    Attributes:
        model: a folder, or ORG/NAME of the hub.
        revision: branch, tag or commit of the hub; "" for its main one.
        dtype: of the network; float32 is what figures should be published with.
        batch_size: questions of one pass.
        prompt: how a question is put, with `{question}` in it; "" for the question alone, with
            "Answer with yes or no." after it for a chat model.
        max_new_tokens: longest answer of a network that writes.
    """

    model: str = ""
    revision: str = ""
    dtype: str = "float32"
    batch_size: int = 16
    prompt: str = ""
    max_new_tokens: int = 16


class TransformersAnswerer:
    """Answers with a network of transformers, several questions at once, the likeliest token each time."""

    path_options = ("model",)  # the version has its name and the bytes' digest

    def __init__(self, *, device: str = "cpu", **options: Any) -> None:
        """Check options and find the network; its weights are not loaded yet.

        Raises:
            BadInput: an option that is unknown or out of range, or a network of another kind.
            Incomplete: its download broke off.
            MissingExtra: transformers is not installed.
        """
        from sar_eval.networks.vqa_transformers import find_network, kind_of

        if unknown := sorted(options.keys() - {field.name for field in fields(Options)}):
            known = ", ".join(field.name for field in fields(Options))
            raise BadInput(f"{WHO} has no option {unknown[0]!r}; known are {known}")
        self.options, self.device = _checked(Options(**options)), device
        self.folder, digest = find_network(self.options.model, self.options.revision)
        self.chat = kind_of(self.folder) == "chat"
        self.prompt = self.options.prompt or (DEFAULT_TEMPLATE if self.chat else "{question}")
        how = f"{template_digest(self.prompt)}+{CHAT_RULE if self.chat else WORD_RULE}"
        self.version = f"{VERSION}+{Path(self.options.model).name}@{digest}+{how}"

    def __enter__(self) -> Self:
        from sar_eval.networks.vqa_transformers import VqaNetwork

        self._network: VqaNetwork = VqaNetwork(
            self.folder,
            device=self.device,
            dtype=self.options.dtype,
            max_new_tokens=self.options.max_new_tokens,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._network

    def answer(
        self, images: Sequence[tuple[NDArray[np.uint8], Sequence[str]]]
    ) -> Iterator[Sequence[Answer]]:
        """One answer for each question of each image, in the order given."""
        pairs = [
            (pixels, fill_template(self.prompt, text)) for pixels, questions in images for text in questions
        ]
        answers = self._answers(pairs)
        for _, questions in images:
            yield [next(answers) for _ in questions]

    def _answers(self, pairs: Sequence[tuple[NDArray[np.uint8], str]]) -> Iterator[Answer]:
        for start in range(0, len(pairs), self.options.batch_size):
            part = pairs[start : start + self.options.batch_size]
            for said in self._network.answer([p for p, _ in part], [text for _, text in part]):
                yield self._read(said)

    def _read(self, said: Said) -> Answer:
        soft = soft_score(said.yes, said.no)
        return chat_answer(said.text, soft) if self.chat else word_answer(said.text, soft, said.truncated)


def _checked(options: Options) -> Options:
    if not options.model or not isinstance(options.model, str):
        raise BadInput(f"{WHO} needs a network: --judge-option model=FOLDER or ORG/NAME")
    if not isinstance(options.revision, str):
        raise BadInput(f"revision {options.revision!r} of {WHO}: a branch, tag or commit, as text")
    if options.dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput(f"dtype {options.dtype!r} of {WHO}: float32, bfloat16 or float16")
    if options.prompt != "":
        check_template(options.prompt, WHO)
    for name in ("batch_size", "max_new_tokens"):
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadInput(f"{name} {value!r} of {WHO}: a whole number >= 1")
    return options


ANSWERER = TransformersAnswerer

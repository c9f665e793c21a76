"""VQAScore: the probability that a network answers yes, asked whether the picture shows the prompt.

(Lin et al., arXiv 2404.01291, and its package t2v_metrics; Apache-2.0.) `flant5` is CLIP-FlanT5-XXL as in
t2v_metrics 3.0, and `flant5-xl` its small form: the geometric mean of P(Yes) and P(end | Yes). `qwen` is
the form of t2v_metrics 3.1 for Qwen-VL and other chat models of transformers: P("Yes") of the first new
token, not divided by anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sar_eval.answers import Asked
from sar_eval.errors import BadInput
from sar_eval.networks.shared import acquire, release
from sar_eval.options import check_dtype, check_names
from sar_eval.tensors.published_weights import find_weights
from sar_eval.types import Score, ScorerFacts

if TYPE_CHECKING:
    from torch import Tensor

    from sar_eval.images.picture import Picture
    from sar_eval.networks.clip_flant5.network import ClipFlanT5, Question
    from sar_eval.networks.vqa_transformers import VqaNetwork

VERSION = "1"
LABEL = "scorer 'vqascore'"  # in error messages
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PICTURE = "<image>"  # what stands for the picture in the official prompt
WEIGHTS = {"flant5": "clip-flant5", "flant5-xl": "clip-flant5-xl"}
QWEN = "qwen"


@dataclass(frozen=True, slots=True)
class FlanT5Options:
    """Options of CLIP-FlanT5.

    Attributes:
        weights: folder of the released files; "" for the fetched ones.
        tower: folder of the picture tower's settings; "" for `clip` in `weights`, or the fetched ones.
        tokenizer: folder of `spiece.model`; "" for `tokenizer` in `weights`, or `weights` itself.
        question: what is asked, with `{prompt}` in it.
        answer: whose probability is taken; it may have `{prompt}` in it, too.
    """

    weights: str = ""
    tower: str = ""
    tokenizer: str = ""
    question: str = 'Does this figure show "{prompt}"? Please answer yes or no.'
    answer: str = "Yes"


@dataclass(frozen=True, slots=True)
class QwenOptions:
    """Options of a chat model.

    Attributes:
        model: a folder, or ORG/NAME on the hub.
        revision: branch, tag or commit on the hub; "" for the main branch.
        question: what is asked, with `{prompt}` in it.
        answer: whose first token's probability is taken.
    """

    model: str = "Qwen/Qwen3-VL-8B-Instruct"
    revision: str = ""
    question: str = 'Does this figure show "{prompt}"? Please answer Yes or No.'
    answer: str = "Yes"


# GFLOP: T5's encoder (4.8e9 and 1.2e9 weights) over some 640 tokens, ViT-L/14 at 336 pixels 382.
COSTS = {"flant5": 7500.0, "flant5-xl": 2200.0}


class VqaScore:
    """One of the forms of VQAScore."""

    variants: ClassVar[Mapping[str, ScorerFacts]] = {
        **{
            variant: ScorerFacts(
                "probability",
                0.0,
                1.0,
                needs_prompt=True,
                licence="Apache-2.0; tower MIT",
                weights=(name, "clip-flant5-tower"),
                cost=COSTS[variant],
            )
            for variant, name in WEIGHTS.items()
        },
        QWEN: ScorerFacts("probability", 0.0, 1.0, True, "Apache-2.0"),
    }
    path_options = ("weights", "tower", "tokenizer", "model")  # the version has digests of their files

    def __init__(
        self, variant: str = "flant5", device: str = "cpu", dtype: str = "float32", **options: Any
    ) -> None:
        """Check the options and find the files, which are loaded on enter.

        Args:
            variant: "flant5", "flant5-xl" or "qwen".
            device: torch device.
            dtype: of the network; the official package casts CLIP-FlanT5 to bfloat16.
            options: see `FlanT5Options` and `QwenOptions`.

        Raises:
            BadInput: an option of another form, missing weights.
            MissingExtra: transformers or sentencepiece is not installed.
        """
        check_dtype(dtype, LABEL)
        kind = QwenOptions if variant == QWEN else FlanT5Options
        check_names(options, [field.name for field in fields(kind)], LABEL)
        self.variant, self.facts = variant, self.variants[variant]
        self._form: _FlanT5 | _ChatModel
        if variant == QWEN:
            self._form = _ChatModel(_checked(QwenOptions(**options)), device, dtype)
        else:
            self._form = _FlanT5(_checked(FlanT5Options(**options)), variant, device, dtype)
        words = f"{self._form.options.question}\0{self._form.options.answer}"
        asked = hashlib.sha256(words.encode()).hexdigest()[:8]
        precision = "" if dtype == "float32" else f"+{dtype}"  # another dtype gives other numbers
        self.version = f"{VERSION}+{variant}+{asked}+{self._form.digest}{precision}"

    def __enter__(self) -> Self:
        self._form.load()
        return self

    def __exit__(self, *error: object) -> None:
        self._form.free()

    def prepare(self, picture: Picture) -> None:
        """Resize it for the network; raises BadInput if it is too narrow for that."""
        self._form.prepare(picture)

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        """The probability of the answer for each picture."""
        yield from self._form.score(pictures, prompts)


class _FlanT5:
    """CLIP-FlanT5 with its tokenizer."""

    def __init__(self, options: FlanT5Options, variant: str, device: str, dtype: str) -> None:
        from sar_eval.networks.clip_flant5.tokenizer import T5Tokenizer
        from sar_eval.networks.clip_flant5.weights import Files

        self.options, self.device, self.dtype = options, device, dtype
        folder = Path(options.weights).resolve() if options.weights else find_weights(WEIGHTS[variant])
        if not folder.is_dir():
            raise BadInput(
                f"weights {folder} of {LABEL}: no such folder; it takes the one of all released files"
            )
        self.files = Files(
            folder,
            _folder(options.tower, folder / "clip") or find_weights("clip-flant5-tower"),
            _folder(options.tokenizer, folder / "tokenizer") or folder,
        )
        self.digest = self.files.digest()
        self.key = ("clip_flant5", self.digest, device, dtype)
        self.tokenizer = T5Tokenizer(self.files.tokenizer)

    def load(self) -> None:
        import torch

        from sar_eval.networks.clip_flant5.pixels import read_preprocessing
        from sar_eval.networks.clip_flant5.weights import load_network

        self._to_pixels = read_preprocessing(self.files.tower).to_pixels
        dtype = getattr(torch, self.dtype)
        self._network: ClipFlanT5 = acquire(self.key, lambda: load_network(self.files, dtype, self.device))

    def free(self) -> None:
        del self._network
        release(self.key)

    def prepare(self, picture: Picture) -> Tensor:
        """Pixels float32 `[3, side, side]`."""
        return picture.once((*self.key, "pixels"), lambda: self._to_pixels(picture.rgb))

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        from sar_eval.networks.clip_flant5.network import score_answers

        scores: dict[int, Score] = {}
        pixels: dict[int, Tensor] = {}
        questions: dict[int, Question] = {}
        for number, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            try:
                questions[number] = self.question(prompt)
                pixels[number] = self.prepare(picture)
            except BadInput as error:
                scores[number] = Score(error=str(error))
        numbers = [number for number in questions if number in pixels]
        values = score_answers(
            self._network,
            [pixels[n] for n in numbers],
            [questions[n] for n in numbers],
            len(self.tokenizer),
        )
        scores |= {number: Score(value) for number, value in zip(numbers, values, strict=True)}
        yield from (scores[number] for number in range(len(pictures)))

    def question(self, prompt: str) -> Question:
        """The ids of the official prompt on either side of the picture, and of the answer.

        Each side is a text of its own for the tokenizer, so the first one ends in `</s>`, too.

        Raises:
            BadInput: the prompt has the marker of the picture in it.
        """
        from sar_eval.networks.clip_flant5.network import Question

        if PICTURE in prompt:
            raise BadInput(f"the prompt contains {PICTURE}, which stands for the picture")
        asked = _filled(self.options.question, prompt)
        texts = (f"{SYSTEM} USER: ", f"\n{asked} ASSISTANT: ", _filled(self.options.answer, prompt))
        return Question(*map(self.tokenizer.encode, texts))


class _ChatModel:
    """A chat model of transformers, asked for one token."""

    def __init__(self, options: QwenOptions, device: str, dtype: str) -> None:
        from sar_eval.networks.vqa_transformers import find_network, network_kind

        self.options, self.device, self.dtype = options, device, dtype
        self.folder, digest = find_network(options.model, options.revision)
        if network_kind(self.folder) != "chat":
            raise BadInput(f"{LABEL}: {options.model} is no chat model, whose first token could be read")
        self.digest = f"{Path(options.model).name}@{digest}"
        self.key = ("vqa_transformers", str(self.folder), digest, device, dtype, 1)

    def load(self) -> None:
        from sar_eval.networks.vqa_transformers import VqaNetwork

        self._network: VqaNetwork = acquire(
            self.key,
            lambda: VqaNetwork(self.folder, device=self.device, dtype=self.dtype, max_new_tokens=1),
        )

    def free(self) -> None:
        del self._network
        release(self.key)

    def prepare(self, picture: Picture) -> None:
        """Convert to RGB; the model's own processor resizes whole batches."""
        _ = picture.rgb

    def score(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Iterator[Score]:
        expect = (self.options.answer,)
        asked = [Asked(_filled(self.options.question, prompt), expect) for prompt in prompts]
        for output in self._network.ask([picture.rgb for picture in pictures], asked):
            yield Score(output.masses.mass if output.masses else None)


def _checked(options: Any) -> Any:
    """The options, all of them texts, with the prompt's place in the question."""
    for field in fields(options):
        if not isinstance(value := getattr(options, field.name), str):
            raise BadInput(f"{field.name} {value!r} of {LABEL} must be text")
    if "{prompt}" not in options.question or not options.answer.strip():
        raise BadInput(f"{LABEL}: question must have {{prompt}} in it, and answer must be a text")
    return options


def _filled(template: str, prompt: str) -> str:
    return template.replace("{prompt}", prompt)


def _folder(given: str, default: Path) -> Path | None:
    if given:
        return Path(given).resolve()
    return default if default.is_dir() else None


SCORER = VqaScore

"""Models of transformers that answer questions about images; code that comes with a model is never run.

The configuration's `architectures` decides how a model is used: those that transformers lists under visual
question answering classify over labels (ViLT) or generate a word (BLIP), those under image-text-to-text are
chat models (LLaVA, Qwen-VL, SmolVLM).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sar_eval.answers import Asked
from sar_eval.discover import need
from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput, UnknownName
from sar_eval.networks.first_token import ListedIds, Masses, listed_ids, sum_masses
from sar_eval.tensors.hub import HUB_NAME, TORCH_FILES, snapshot_with_weights

LABEL = "answerer 'transformers'"  # in error messages
FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]  # of a network, without torch files
Pixels = NDArray[np.uint8]
Conversation = list[dict[str, Any]]  # as chat templates take it


@dataclass(frozen=True, slots=True)
class VqaOutput:
    """A network's output for one question.

    Attributes:
        text: the generated text or the label.
        yes, no: probabilities of the two answers (of the first generated token, or of the label).
        truncated: the question was too long and was cut.
        first: the likeliest first token as text, with its blanks; "" for a label.
        masses: probabilities of the answers that the question lists; None if it lists none.
    """

    text: str
    yes: float
    no: float
    truncated: bool = False
    first: str = ""
    masses: Masses | None = None


def find_network(name: str, revision: str = "") -> tuple[Path, str]:
    """The folder of a network's files, and their digest (the commit, for a hub name).

    Raises:
        UnknownName: neither a folder nor a hub name.
        BadInput: a folder with a revision or without weights, or an error of the hub.
        Incomplete: the download broke off.
    """
    if Path(name).is_dir():
        if revision:
            raise BadInput(f"{LABEL}: {name} is a folder and has no revision {revision!r}")
        return Path(name), _digest(Path(name), [*FILES, *TORCH_FILES])
    pinned = f"{name}@{revision}" if revision else name
    if not HUB_NAME.fullmatch(pinned):
        raise UnknownName(f"{LABEL}: {pinned!r} is neither a folder nor a hub name (ORG/NAME)")
    found = snapshot_with_weights(pinned, FILES)
    return found.folder, found.name.rpartition("@")[2]


def network_kind(folder: Path) -> str:
    """`chat` or `vqa`, from the list of transformers that has the configuration's architecture.

    Raises:
        BadInput: neither list has it, or there is no readable configuration.
        MissingExtra: transformers is not installed.
    """
    need("transformers", extra="dpg", what=LABEL)
    from transformers.models.auto import modeling_auto

    path = folder / "config.json"
    try:
        config = read_json(path)
    except BadInput as error:
        raise BadInput(f"{LABEL}: {path} is no readable configuration: {error}") from error
    architectures = config.get("architectures") if isinstance(config, dict) else None
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    if name in modeling_auto.MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES.values():
        return "vqa"
    if name in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        return "chat"
    raise BadInput(
        f"{LABEL}: transformers lists {shorten(name)} of {path} neither under visual question answering "
        "nor under image-text-to-text (code that comes with a model is not run)"
    )


class VqaNetwork:
    """A network of either kind with loaded weights."""

    def __init__(self, folder: Path, *, device: str, dtype: str, max_new_tokens: int) -> None:
        """Load processor and weights, strictly.

        Raises:
            BadInput: files that transformers cannot load, weights that are missing or of another shape,
                a chat model without a chat template, labels without yes and no.
            MissingExtra: transformers is not installed.
        """
        self.kind, self.device = network_kind(folder), torch.device(device)
        self.max_new_tokens, self.dtype = max_new_tokens, getattr(torch, dtype)
        self.model, self.processor = _load(folder, self.kind, self.dtype)
        self.model.to(self.device).eval()
        self.tokenizer = self.processor.tokenizer
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.labels = None if self.model.can_generate() else _labels(self.model.config, folder)
        self.first_ids = {word: _first_token_ids(self.tokenizer, word) for word in ("yes", "no")}
        self._listed: dict[Asked, ListedIds] = {}  # by the question without its text
        if self.kind == "chat" and not getattr(self.processor, "chat_template", None):
            raise BadInput(f"{LABEL}: {folder} has no chat template, which a chat model needs")

    def answer(self, pixels: Sequence[Pixels], questions: Sequence[str]) -> list[VqaOutput]:
        """One output for each pair of an image (RGB uint8 `[H, W, 3]`) and a question, as one batch."""
        return self.ask([Image.fromarray(array) for array in pixels], [Asked(text) for text in questions])

    @torch.inference_mode()
    def ask(self, images: Sequence[Image.Image], asked: Sequence[Asked]) -> list[VqaOutput]:
        """One output for each pair of an RGB image and a question, which may list its answers' spellings.

        Raises:
            BadInput: listed answers for a network that classifies over labels.
        """
        questions = [question.text for question in asked]
        if self.kind == "chat":
            conversations = [conversation(i, q) for i, q in zip(images, questions, strict=True)]
            return self._generate(self._chat_inputs(conversations), asked, [False] * len(images))
        if self.labels and any(question.expect for question in asked):
            raise BadInput(f"{LABEL}: a network that classifies has no probabilities of listed answers")
        outputs: dict[int, VqaOutput] = {}
        for indices, truncated in self._group_by_length(questions):
            inputs = self._vqa_inputs([images[i] for i in indices], [questions[i] for i in indices])
            batch = (
                self._classify(inputs, truncated)
                if self.labels
                else self._generate(inputs, [asked[i] for i in indices], truncated)
            )
            outputs |= zip(indices, batch, strict=True)
        return [outputs[index] for index in range(len(images))]

    @torch.inference_mode()
    def reply(
        self,
        conversations: Sequence[Conversation],
        *,
        template_options: Mapping[str, Any],
        generation_options: Mapping[str, Any],
    ) -> list[tuple[str, bool]]:
        """A chat model's reply to each conversation, decoded greedily as one batch, and whether it was cut.

        Args:
            conversations: see `conversation`.
            template_options: of the chat template (`enable_thinking`).
            generation_options: of `generate` (`repetition_penalty`).
        """
        inputs = self._chat_inputs(conversations, template_options)
        sequences = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            **generation_options,
        )
        generated = sequences[:, inputs["input_ids"].shape[1] :]
        ends = {*_whole_numbers(self.model.generation_config.eos_token_id), self.tokenizer.pad_token_id}
        texts = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        cut = [ids.shape[0] >= self.max_new_tokens and int(ids[-1]) not in ends for ids in generated]
        return list(zip(map(str.strip, texts), cut, strict=True))

    def _chat_inputs(
        self, conversations: Sequence[Conversation], template_options: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Padded on the left, so that all answers start together."""
        self.tokenizer.padding_side = "left"
        return self._to_device(
            self.processor.apply_chat_template(
                list(conversations),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
                **(template_options or {}),
            )
        )

    def _vqa_inputs(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Mapping[str, Any]:
        limits = {"truncation": True, "max_length": self._max_length(), "padding": True}
        return self._to_device(
            self.processor(images=list(images), text=list(questions), return_tensors="pt", **limits)
        )

    def _to_device(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def _group_by_length(self, questions: Sequence[str]) -> Iterator[tuple[list[int], list[bool]]]:
        """Indices of questions of the same length, and whether each is cut.

        They need no padding, which BLIP's decoder does not mask.
        """
        limit = self._max_length()
        lengths = [len(self.tokenizer(question, verbose=False)["input_ids"]) for question in questions]
        for cut_length in sorted({min(length, limit) for length in lengths}):
            indices = [i for i, length in enumerate(lengths) if min(length, limit) == cut_length]
            yield indices, [lengths[i] > limit for i in indices]

    def _max_length(self) -> int:
        """Tokens of the longest question that is not cut."""
        text = getattr(self.model.config, "text_config", self.model.config)
        return min(int(self.tokenizer.model_max_length), int(text.max_position_embeddings))

    def _classify(self, inputs: Mapping[str, Any], truncated: Sequence[bool]) -> list[VqaOutput]:
        """The most probable label, with a fixed seed: ViLT shuffles its patches, which changes sums."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            probabilities = self.model(**inputs).logits.float().softmax(-1).cpu()
        labels = self.labels or {}
        yes, no = ({name.lower(): index for index, name in labels.items()}[word] for word in ("yes", "no"))
        return [
            VqaOutput(labels[int(row.argmax())], float(row[yes]), float(row[no]), cut)
            for row, cut in zip(probabilities, truncated, strict=True)
        ]

    def _generate(
        self, inputs: Mapping[str, Any], asked: Sequence[Asked], truncated: Sequence[bool]
    ) -> list[VqaOutput]:
        """Text of greedy decoding, and the first token's probabilities.

        Where all questions list their answers, the first token is the text: nothing depends on others.
        """
        output = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=1 if all(question.expect for question in asked) else self.max_new_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        generated = output.sequences[:, output.sequences.shape[1] - len(output.logits) :]
        texts = [text.strip() for text in self.tokenizer.batch_decode(generated, skip_special_tokens=True)]
        first = output.logits[0].float().softmax(-1).cpu()
        yes, no = (first[:, sorted(self.first_ids[word])].sum(-1).tolist() for word in ("yes", "no"))
        firsts = self.tokenizer.batch_decode(generated[:, :1], skip_special_tokens=True)
        masses = [self._masses(row, question) for row, question in zip(first, asked, strict=True)]
        columns = (texts, yes, no, truncated, firsts, masses)
        return [VqaOutput(*values) for values in zip(*columns, strict=True)]

    def _masses(self, probabilities: torch.Tensor, asked: Asked) -> Masses | None:
        if not asked.expect:
            return None
        key = replace(asked, text="")
        if key not in self._listed:
            self._listed[key] = listed_ids(self.tokenizer, key)
        return sum_masses(probabilities, self._listed[key])


def conversation(
    image: Image.Image, text: str, *, system: str = "", text_first: bool = False
) -> Conversation:
    """A system message, if there is one, and a user's turn of an image and a text."""
    parts = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    user = {"role": "user", "content": parts[::-1] if text_first else parts}
    said = {"role": "system", "content": [{"type": "text", "text": system}]}
    return [said, user] if system else [user]


def _whole_numbers(value: int | list[int] | None) -> list[int]:
    return [value] if isinstance(value, int) else list(value or ())


def _load(folder: Path, kind: str, dtype: torch.dtype) -> tuple[Any, Any]:
    transformers = need("transformers", extra="dpg", what=LABEL)
    auto = {"vqa": "AutoModelForVisualQuestionAnswering", "chat": "AutoModelForImageTextToText"}[kind]
    transformers.utils.logging.disable_progress_bar()  # workers share one terminal
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, **options)
        model, info = getattr(transformers, auto).from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **options
        )
    except Exception as error:
        # transformers and the libraries below it raise errors of many types.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{LABEL}: transformers cannot load {folder}: {first}") from error
    # transformers initialises missing weights at random, with only a warning.
    if missing := sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]})):
        raise BadInput(f"{LABEL}: the weights in {folder} lack {missing[0]} (and {len(missing) - 1} more)")
    return model, processor


def _labels(config: Any, folder: Path) -> dict[int, str]:
    labels = {int(index): str(name) for index, name in config.id2label.items()}
    if not {"yes", "no"} <= {name.lower() for name in labels.values()}:
        raise BadInput(f"{LABEL}: the labels of {folder} have no yes and no")
    return labels


def _first_token_ids(tokenizer: Any, word: str) -> set[int]:
    """Ids of the first tokens of a word, in lower, upper and title case, with and without a space."""
    first_ids = set()
    for variant in (word, word.capitalize(), word.upper()):
        for space in ("", " "):
            ids = tokenizer.encode(space + variant, add_special_tokens=False)
            text = tokenizer.decode(ids[:1]).strip().lower() if ids else ""
            if text and word.startswith(text):
                first_ids.add(int(ids[0]))
    return first_ids


def _digest(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 (16 hex digits) of the names and bytes of all files that match a pattern."""
    total = hashlib.sha256()
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(paths):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]

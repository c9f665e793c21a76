"""Networks of transformers that answer questions about images, without code from elsewhere.

Three kinds, told by the configuration's `architectures`: networks that choose one of their labels (ViLT)
or write a word (BLIP), which transformers lists under visual question answering, and those that chat
about an image (LLaVA, Qwen-VL, SmolVLM), listed under image-text-to-text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sar_eval.discover import need
from sar_eval.errors import BadInput, UnknownName
from sar_eval.tensors.hub import HUB_NAME, TORCH_FILES, snapshot_with_weights

WHO = "answerer 'transformers'"
FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]  # of a network, but for torch files
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Said:
    """What a network says to one question.

    Attributes:
        text: in its words.
        yes, no: probabilities of the two answers (of the first written token, or of the label).
        truncated: the question was longer than the network reads.
    """

    text: str
    yes: float
    no: float
    truncated: bool = False


def find_network(name: str, revision: str = "") -> tuple[Path, str]:
    """The folder of a network's files, and a digest of them (of the hub: the commit).

    Raises:
        UnknownName: it is neither a folder nor a hub name.
        BadInput: a revision of a folder, a folder without weights, or the hub does not give it.
        Incomplete: the download broke off.
    """
    if Path(name).is_dir():
        if revision:
            raise BadInput(f"{WHO}: {name} is a folder and has no revision {revision!r}")
        return Path(name), _digest(Path(name), [*FILES, *TORCH_FILES])
    pinned = f"{name}@{revision}" if revision else name
    if not HUB_NAME.fullmatch(pinned):
        raise UnknownName(f"{WHO}: {pinned!r} is neither a folder nor a hub name (ORG/NAME)")
    folder = snapshot_with_weights(pinned, FILES)
    return folder, folder.name


def kind_of(folder: Path) -> str:
    """`chat` or `vqa`, by what transformers lists the configuration's architecture under.

    Raises:
        BadInput: it is listed under neither, or there is no readable configuration.
        MissingExtra: transformers is not installed.
    """
    need("transformers", extra="dpg", what=WHO)
    from transformers.models.auto import modeling_auto as known

    path = folder / "config.json"
    try:
        named = json.loads(path.read_text()).get("architectures")
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{WHO}: {path} is no readable configuration: {error}") from error
    name = named[0] if isinstance(named, list) and named else None
    if name in known.MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES.values():
        return "vqa"
    if name in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        return "chat"
    raise BadInput(
        f"{WHO}: transformers lists {name!r} of {path} neither under visual question answering nor under "
        "image-text-to-text (code that comes with a model is not run)"
    )


class VqaNetwork:
    """A network of either kind, loaded."""

    def __init__(self, folder: Path, *, device: str, dtype: str, max_new_tokens: int) -> None:
        """Load processor and weights; every weight must be there.

        Raises:
            BadInput: files that transformers cannot read, weights that are missing or of another shape,
                a chat model without a chat template, labels without yes and no.
            MissingExtra: transformers is not installed.
        """
        self.kind, self.device = kind_of(folder), torch.device(device)
        self.max_new_tokens, self.dtype = max_new_tokens, getattr(torch, dtype)
        self.model, self.processor = _load(folder, self.kind, self.dtype)
        self.model.to(self.device).eval()
        self.tokenizer = self.processor.tokenizer
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.labels = None if self.model.can_generate() else _labels(self.model.config, folder)
        self.words = {word: _beginnings(self.tokenizer, word) for word in ("yes", "no")}
        if self.kind == "chat" and not getattr(self.processor, "chat_template", None):
            raise BadInput(f"{WHO}: {folder} has no chat template, so nobody knows how to ask it")

    @torch.inference_mode()
    def answer(self, pixels: Sequence[Pixels], questions: Sequence[str]) -> list[Said]:
        """One answer for each pair of an image (RGB uint8 [H, W, 3]) and a question, in one pass."""
        images = [Image.fromarray(array) for array in pixels]
        if self.kind == "chat":
            return self._write(self._chat_inputs(images, questions), [False] * len(images))
        said: dict[int, Said] = {}
        for places, truncated in self._by_length(questions):
            inputs = self._vqa_inputs([images[i] for i in places], [questions[i] for i in places])
            answers = self._choose(inputs) if self.labels else self._write(inputs, truncated)
            told = zip(places, answers, truncated, strict=True)
            said |= {place: Said(a.text, a.yes, a.no, cut) for place, a, cut in told}
        return [said[place] for place in range(len(images))]

    def _chat_inputs(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Mapping[str, Any]:
        """One conversation a pair, padded on the left so that all answers begin at the same place."""
        talks = [
            [{"role": "user", "content": [{"type": "image", "image": i}, {"type": "text", "text": q}]}]
            for i, q in zip(images, questions, strict=True)
        ]
        self.tokenizer.padding_side = "left"
        return self._moved(
            self.processor.apply_chat_template(
                talks,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        )

    def _vqa_inputs(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Mapping[str, Any]:
        limits = {"truncation": True, "max_length": self._limit(), "padding": True}
        return self._moved(
            self.processor(images=list(images), text=list(questions), return_tensors="pt", **limits)
        )

    def _moved(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def _by_length(self, questions: Sequence[str]) -> Iterator[tuple[list[int], list[bool]]]:
        """Places of questions of one length, and which were cut: BLIP's decoder looks at padding too."""
        limit = self._limit()
        lengths = [len(self.tokenizer(question, verbose=False)["input_ids"]) for question in questions]
        for length in sorted({min(length, limit) for length in lengths}):
            places = [i for i, own in enumerate(lengths) if min(own, limit) == length]
            yield places, [lengths[i] > limit for i in places]

    def _limit(self) -> int:
        """Tokens of the longest question that the network reads."""
        text = getattr(self.model.config, "text_config", self.model.config)
        return min(int(self.tokenizer.model_max_length), int(text.max_position_embeddings))

    def _choose(self, inputs: Mapping[str, Any]) -> list[Said]:
        """The likeliest label. ViLT shuffles its patches, so that sums differ: the shuffle is pinned."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            shares = self.model(**inputs).logits.float().softmax(-1).cpu()
        labels = self.labels or {}
        yes, no = ({name.lower(): place for place, name in labels.items()}[word] for word in ("yes", "no"))
        return [Said(labels[int(row.argmax())], float(row[yes]), float(row[no])) for row in shares]

    def _write(self, inputs: Mapping[str, Any], truncated: Sequence[bool]) -> list[Said]:
        """What is likeliest token by token, and the first token's probabilities."""
        done = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        written = done.sequences[:, done.sequences.shape[1] - len(done.logits) :]
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        first = done.logits[0].float().softmax(-1).cpu()
        yes, no = (first[:, sorted(self.words[word])].sum(-1).tolist() for word in ("yes", "no"))
        return [Said(*told) for told in zip((t.strip() for t in texts), yes, no, truncated, strict=True)]


def _load(folder: Path, kind: str, dtype: torch.dtype) -> tuple[Any, Any]:
    transformers = need("transformers", extra="dpg", what=WHO)
    auto = {"vqa": "AutoModelForVisualQuestionAnswering", "chat": "AutoModelForImageTextToText"}[kind]
    transformers.utils.logging.disable_progress_bar()  # workers share one terminal
    ours = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, **ours)
        model, told = getattr(transformers, auto).from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **ours
        )
    except Exception as error:
        # The libraries below raise nothing narrower.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{WHO}: transformers cannot load {folder}: {first}") from error
    # transformers draws what is missing at random, and only warns.
    if lost := sorted(map(str, {*told["missing_keys"], *told["mismatched_keys"]})):
        raise BadInput(f"{WHO}: the weights in {folder} lack {lost[0]} (and {len(lost) - 1} more)")
    return model, processor


def _labels(config: Any, folder: Path) -> dict[int, str]:
    labels = {int(place): str(name) for place, name in config.id2label.items()}
    if not {"yes", "no"} <= {name.lower() for name in labels.values()}:
        raise BadInput(f"{WHO}: the labels of {folder} have no yes and no")
    return labels


def _beginnings(tokenizer: Any, word: str) -> set[int]:
    """Ids of the tokens that an answer of this word can begin with, in any case and after a space."""
    found = set()
    for variant in (word, word.capitalize(), word.upper()):
        for space in ("", " "):
            ids = tokenizer.encode(space + variant, add_special_tokens=False)
            text = tokenizer.decode(ids[:1]).strip().lower() if ids else ""
            if text and word.startswith(text):
                found.add(int(ids[0]))
    return found


def _digest(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 (16 hex digits) of the names and bytes of all files that may be read."""
    total = hashlib.sha256()
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(paths):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]

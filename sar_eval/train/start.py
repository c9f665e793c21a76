"""What a decoder is at step 0: a language model, a shape with random weights, or a checkpoint.

All three give a decoder of the family (`families.simplear`): one vocabulary of the text tokenizer's ids,
the seven special tokens among them, followed by one id for each visual code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import Qwen2Config

from sar_eval.errors import BadInput
from sar_eval.families.decoder_config import DecoderConfig
from sar_eval.families.demo import build_config, build_text_tokenizer
from sar_eval.families.language_model import (
    LanguageModel,
    decoder_config,
    find_language_model,
    read_config,
)
from sar_eval.families.simplear import IMAGE_TOKEN, Checkpoint, find_checkpoint, visual_setting
from sar_eval.families.tensor_names import EMBEDDING, HEAD
from sar_eval.families.transformers_network import assemble, decoder_settings
from sar_eval.suites.shapes.vocabulary import all_words
from sar_eval.train.model import TrainedDecoder
from sar_eval.train.text_tokenizer import add_special_tokens, find_text_tokenizer, load_text_tokenizer
from sar_eval.types import Json

NOISE = 0.1  # of new rows, in standard deviations of the old ones' columns
# Qwen2.5's, by the config.json of Qwen/Qwen2.5-0.5B and Qwen/Qwen2.5-1.5B.
_QWEN: dict[str, Any] = {
    "model_type": "qwen2",
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "0.5b": {
        **_QWEN,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "1.5b": {
        **_QWEN,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
}


class Loaded(NamedTuple):
    """A decoder in float32 on the CPU, in training mode, and its text tokenizer."""

    model: TrainedDecoder
    tokenizer: Any


class Start(Protocol):
    """What a training begins with; the same files and the same seed give the same weights."""

    def load(self, attention: str) -> Loaded:
        """Read or make it.

        Args:
            attention: transformers' `attn_implementation`.

        Raises:
            BadInput: its files cannot be used.
        """
        ...

    @property
    def facts(self) -> Mapping[str, Json]:
        """What identifies it, for `sar_eval.json`, the card and the check of a resume."""
        ...

    @property
    def test_prompts(self) -> int:
        """Prompts of test suites that it was trained on already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InitStart:
    """A plain language model whose vocabulary gets the special tokens and the visual codes.

    Rows that pad its embedding are dropped. New rows are the mean of the old ones with a little noise, so
    that at step 0 every code is about as likely as any other and the loss is near log(codes); a row far
    from the others' mean can take all of the softmax (J. Hewitt, "Initializing New Word Embeddings for
    Pretrained Language Models", 2021).

    Attributes:
        source: the language model.
        codebook_size: number of visual codes.
        tie: whether the head is the embedding; None for what the language model does. A head that is untied
            here begins as a copy of the embedding, new rows apart; one that is tied here is dropped.
        seed: of the noise.
    """

    source: LanguageModel
    codebook_size: int
    tie: bool | None = None
    seed: int = 0

    test_prompts = 0

    @property
    def tied(self) -> bool:
        """Whether head and embedding are one."""
        return self.source.decoder_config.tie_word_embeddings if self.tie is None else self.tie

    @property
    def facts(self) -> Mapping[str, Json]:
        """Its name, and what becomes of the head."""
        return {"init": self.source.name, "tied": self.tied, "seed": self.seed}

    def load(self, attention: str) -> Loaded:
        """See `Start.load`."""
        folder = self.source.folder
        tokenizer = load_text_tokenizer(folder)
        old = len(tokenizer)
        _check_language_model(tokenizer, self.source.decoder_config, folder)
        add_special_tokens(tokenizer, str(folder))
        weights = self._grown(self.source.read_weights(), old, len(tokenizer) - old + self.codebook_size)
        vocabulary = len(tokenizer) + self.codebook_size
        config = replace(self.source.decoder_config, vocab_size=vocabulary, tie_word_embeddings=self.tied)
        return Loaded(_decoder(config, self.source.config, weights, attention, str(folder)), tokenizer)

    def _grown(self, weights: dict[str, Tensor], old: int, new: int) -> dict[str, Tensor]:
        """The weights with a vocabulary of `old` + `new` rows."""
        generator = torch.Generator().manual_seed(self.seed)
        head = weights.pop(HEAD, weights[EMBEDDING])
        grown = weights | {EMBEDDING: grow(weights[EMBEDDING], old, new, generator)}
        return grown if self.tied else grown | {HEAD: grow(head, old, new, generator)}


def grow(rows: Tensor, old: int, new: int, generator: torch.Generator) -> Tensor:
    """The first `old` of the rows `[R, H]`, and `new` ones: their mean with noise (see `NOISE`)."""
    kept = rows[:old]
    mean, spread = kept.mean(0), kept.std(0)
    noise = torch.randn(new, rows.shape[1], generator=generator)
    return torch.cat([kept, mean + NOISE * spread * noise])


def _check_language_model(tokenizer: Any, config: DecoderConfig, folder: Path) -> None:
    if IMAGE_TOKEN in tokenizer.get_vocab():
        raise BadInput(
            f"{folder} has the token {IMAGE_TOKEN}: it is a checkpoint that draws already; name it with "
            "--ckpt to train it on"
        )
    if len(tokenizer) > config.vocab_size:
        raise BadInput(
            f"{folder}: the text tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size} "
            "rows: they are of two models"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeStart:
    """Random weights of a shape.

    Attributes:
        shape: a name of `SHAPES`, "demo", or the path of a `config.json`.
        codebook_size: number of visual codes.
        text_tokenizer: name and folder (see `find_text_tokenizer`); None for the demo's words.
        tie: whether the head is the embedding; None for what the shape says.
        seed: of the weights.
    """

    shape: str
    codebook_size: int
    text_tokenizer: tuple[str, Path] | None = None
    tie: bool | None = None
    seed: int = 0

    test_prompts = 0

    @property
    def facts(self) -> Mapping[str, Json]:
        """Shape, text tokenizer and seed."""
        words = "the demo's words" if self.text_tokenizer is None else self.text_tokenizer[0]
        tie: dict[str, Json] = {} if self.tie is None else {"tied": self.tie}
        return {"shape": self.shape, "text_tokenizer": words, "seed": self.seed, **tie}

    def load(self, attention: str) -> Loaded:
        """See `Start.load`."""
        tokenizer = self._tokenizer()
        config = self._config(len(tokenizer))
        if self.tie is not None:
            config.tie_word_embeddings = self.tie
        config._attn_implementation = attention
        with torch.random.fork_rng(devices=[]):  # the seed is this start's alone
            torch.manual_seed(self.seed)
            return Loaded(TrainedDecoder(config).train(), tokenizer)

    def _tokenizer(self) -> Any:
        if self.text_tokenizer is None:
            return build_text_tokenizer(all_words())
        name, folder = self.text_tokenizer
        tokenizer = load_text_tokenizer(folder)
        add_special_tokens(tokenizer, name)
        return tokenizer

    def _config(self, text_ids: int) -> Any:
        """transformers' `Qwen2Config`."""
        if self.shape == "demo":
            return build_config(text_ids, self.codebook_size)
        shape, path = SHAPES.get(self.shape), Path(self.shape)
        stored = dict(shape) if shape is not None else read_config(path)
        read = decoder_config(stored | {"vocab_size": text_ids + self.codebook_size}, path)
        return Qwen2Config(**decoder_settings(read, stored))


@dataclass(frozen=True, slots=True)
class CheckpointStart:
    """A checkpoint of the family, to be trained on."""

    checkpoint: Checkpoint

    @property
    def facts(self) -> Mapping[str, Json]:
        """Its name, and the digest of its files."""
        return {"checkpoint": self.checkpoint.name, "digest": self.checkpoint.digest}

    @property
    def test_prompts(self) -> int:
        """As its `sar_eval.json` says."""
        return self.checkpoint.test_prompts

    def load(self, attention: str) -> Loaded:
        """See `Start.load`."""
        found = self.checkpoint
        weights = found.read_weights("cpu", torch.float32)
        model = _decoder(found.decoder_config, found.config, weights, attention, str(found.folder))
        return Loaded(model, load_text_tokenizer(found.folder))


def _decoder(
    config: DecoderConfig, stored: Mapping[str, Any], weights: dict[str, Tensor], attention: str, where: str
) -> TrainedDecoder:
    settings = Qwen2Config(**decoder_settings(config, stored))
    settings._attn_implementation = attention
    model = assemble(TrainedDecoder, settings, weights, "cpu", where)
    if config.tie_word_embeddings:  # one parameter: two of one storage would both be updated
        model.lm_head.weight = model.model.embed_tokens.weight
    trained: TrainedDecoder = model.train()
    return trained


def find_start(
    visual_tokenizer: Path,
    *,
    init: str = "",
    shape: str = "",
    ckpt: str = "",
    text_tokenizer: str = "",
    tie: bool | None = None,
    seed: int = 0,
) -> Start:
    """What a training is asked to begin with; its files are found and checked, weights are not read yet.

    Args:
        visual_tokenizer: folder of the visual tokenizer.
        init: a plain Qwen2 language model: a folder, or a name of the hub.
        shape: a name of `SHAPES`, "demo", or the path of a `config.json`.
        ckpt: a checkpoint: `demo:NAME`, a folder, or a name of the hub.
        text_tokenizer: of a shape: a folder, a name of the hub, or `demo:NAME`.
        tie: whether head and embedding are one, where the start does not say so already.
        seed: of new weights.

    Raises:
        UnknownName: nothing has this name.
        BadInput: not one of the three is named, or what goes with another one; or the files cannot be used.
        Incomplete: a download was interrupted.
    """
    named = {"--init": init, "--shape": shape, "--ckpt": ckpt}
    given = [flag for flag, value in named.items() if value]
    if len(given) != 1:
        what = " and ".join(given) if given else "nothing"
        raise BadInput(f"{what} says what to begin with: name one of {', '.join(named)}")
    if text_tokenizer and not shape:
        raise BadInput(
            f"--text-tokenizer goes with --shape alone: {given[0]} {named[given[0]]} has its own"
        )
    if ckpt:
        if tie is not None:
            raise BadInput(
                "--tie and --untie go with --init and --shape: a checkpoint's head stays as it is"
            )
        return CheckpointStart(find_checkpoint(ckpt, str(visual_tokenizer)))
    codes = visual_setting(visual_tokenizer, "codebook_size")
    if init:
        return InitStart(source=find_language_model(init), codebook_size=codes, tie=tie, seed=seed)
    words = _words_of_shape(shape, text_tokenizer)
    return ShapeStart(shape=shape, codebook_size=codes, text_tokenizer=words, tie=tie, seed=seed)


def _words_of_shape(shape: str, text_tokenizer: str) -> tuple[str, Path] | None:
    """The text tokenizer of a shape: the one that is named, or that of a `config.json`'s folder."""
    path = Path(shape)
    known = shape == "demo" or shape in SHAPES
    if not known and not path.is_file():
        raise BadInput(
            f"--shape {shape} is neither {', '.join(SHAPES)} nor demo nor a file: name one of them, or a "
            "config.json"
        )
    if text_tokenizer:
        return find_text_tokenizer(text_tokenizer)
    if shape == "demo":
        return None
    if not known and any((path.parent / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return str(path.parent.resolve()), path.parent
    raise BadInput(
        f"--shape {shape} has no text tokenizer: name one with --text-tokenizer, a folder or a name of the "
        "hub such as Qwen/Qwen2.5-0.5B (its weights are not downloaded)"
    )

"""Prompt ids of Emu3-Gen, the size of its pictures, and the tokens that are forced between the visual ones.

As baaivision/Emu3 has it (commit f6ea9aa: image_generation.py, emu3/mllm/processing_emu3.py,
utils_emu3.py): `BOS TEXT`, the positive suffix, `<|image start|>H*W<|image token|>`, H and W in visual
tokens; the negative text gets the same image prefix. The whole is brought to NFC and tokenized as one text,
special tokens inside a prompt parsed. So a prompt that begins with a combining character may spoil the
token before it, there as here.

Where this differs: the original counts forced places from the first `<|image token|>` of the row, so that
one written in a prompt shifts them all; here they are counted from the prompt's end, and such a prompt
draws a picture.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.families.emu3_tokenizer import read_emu3_tokenizer
from sar_eval.families.text_tokenizer import text_ids, token_ids

POSITIVE_SUFFIX = " masterpiece, film grained, best quality."
NEGATIVE_PROMPT = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
    "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)
IMAGE_AREA = 720 * 720  # pixels, where config.json has no image_area
PIXELS_A_TOKEN = 8  # along one side
MAX_SIDE = 4096  # tokens; a ratio of one to a billion is a slip
_BEGIN, _END, _PAD = "<|extra_203|>", "<|extra_204|>", "<|endoftext|>"
_IMAGE, _IMAGE_START, _IMAGE_END = "<|image token|>", "<|image start|>", "<|image end|>"
_END_OF_LINE, _END_OF_FRAME = "<|extra_200|>", "<|extra_201|>"


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids by their names in `config.json` of `BAAI/Emu3-Gen`, without `_token_id`."""

    bos: int
    eos: int
    pad: int
    img: int
    boi: int
    eoi: int
    eol: int
    eof: int


@dataclass(frozen=True, slots=True)
class Emu3Prompts:
    """The text side of a checkpoint.

    Attributes:
        tokenizer: its `tokenizers.Tokenizer`, for texts in NFC.
        special: its special ids.
        visual_ids: ids of the visual codes, code 0 first.
    """

    tokenizer: Any
    special: SpecialIds
    visual_ids: range

    def prompt_ids(self, prompt: str, height: int, width: int, suffix: str = POSITIVE_SUFFIX) -> list[int]:
        """Ids of the prompted row, for a picture of `height` rows of `width` visual tokens.

        Raises:
            BadInput: the prompt has a lone surrogate, or the size is no size.
        """
        _check_size(height, width)
        text = f"{_BEGIN}{prompt}{suffix}{_IMAGE_START}{height}*{width}{_IMAGE}"
        return text_ids(self.tokenizer, unicodedata.normalize("NFC", text))

    def negative_ids(self, height: int, width: int, negative: str = NEGATIVE_PROMPT) -> list[int]:
        """Ids of the negative row: the negative text with the same image prefix.

        It has a length and places of its own.

        Raises:
            BadInput: see `prompt_ids`.
        """
        return self.prompt_ids(negative, height, width, suffix="")


def read_emu3_prompts(folder: Path) -> Emu3Prompts:
    """The text side of a checkpoint's folder, in BAAI's form or in transformers'.

    Raises:
        BadInput: a file is missing or damaged, the visual tokens' ids are no row, or `config.json` gives a
            special token another id than the tokenizer.
    """
    tokenizer = read_emu3_tokenizer(folder)
    tokens = (_BEGIN, _END, _PAD, _IMAGE, _IMAGE_START, _IMAGE_END, _END_OF_LINE, _END_OF_FRAME)
    special = SpecialIds(*token_ids(tokenizer, tokens, folder))
    _check_config(special, folder / "config.json")
    return Emu3Prompts(tokenizer, special, _visual_ids(tokenizer, folder))


def _visual_ids(tokenizer: Any, folder: Path) -> range:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    count = sum(token.startswith("<|visual token ") for token in vocabulary)
    ids = token_ids(tokenizer, [f"<|visual token {code:0>6d}|>" for code in range(max(count, 1))], folder)
    if ids != list(range(ids[0], ids[0] + count)):
        raise BadInput(f"{folder}: ids of the {count} visual tokens do not follow one another")
    return range(ids[0], ids[0] + count)


def _check_config(special: SpecialIds, path: Path) -> None:
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise BadInput(f"{path} must hold a JSON object")
    for field in fields(special):
        key, ours = f"{field.name}_token_id", getattr(special, field.name)
        if type(config.get(key)) is int and config[key] != ours:
            raise BadInput(
                f"{path}: {key} is {shorten(config[key])}, the tokenizer's is {ours}: the files are of two "
                "checkpoints"
            )


def grid_size(ratio: str = "1:1", area: int = IMAGE_AREA) -> tuple[int, int]:
    """Rows and columns of visual tokens for a ratio of width to height and an area in pixels.

    H = round(h sqrt(area / (w h)) / 8), W likewise, halves to the even number.

    Raises:
        BadInput: the ratio is not two positive whole numbers, or a side would be none or longer than
            `MAX_SIDE`.
    """
    parts = [int(part) if part.isascii() and part.isdigit() else 0 for part in ratio.split(":")]
    if len(parts) != 2 or not all(0 < part <= 10_000 for part in parts) or area <= 0:
        raise BadInput(f"{shorten(ratio)} of {area} pixels: a ratio is width:height, such as 16:9")
    stretch = (area / (parts[0] * parts[1])) ** 0.5
    width, height = (round(part * stretch / PIXELS_A_TOKEN) for part in parts)
    _check_size(height, width)
    return height, width


def _check_size(height: int, width: int) -> None:
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise BadInput(
            f"a picture of {height} rows and {width} columns of tokens: 1 to {MAX_SIDE} are possible"
        )


def step_count(height: int, width: int) -> int:
    """New tokens of a picture: its codes, an end of line after each row, and three that end it."""
    return height * (width + 1) + 3


def forced_tokens(height: int, width: int, special: SpecialIds) -> dict[int, int]:
    """The ids that are not sampled, by step; step 0 is the first new token.

    With o = step + 1: end of line where W + 1 divides o, else end of frame, of image and of the sequence at
    (W + 1) H + 1, + 2 and + 3. (Of pictures one or two tokens wide a line ends there once more, as in the
    original.) They enter the prompted and the negative row.
    """
    row = width + 1
    ends = {row * height + 1: special.eof, row * height + 2: special.eoi, row * height + 3: special.eos}
    ends |= dict.fromkeys(range(row, step_count(height, width) + 1, row), special.eol)
    return {place - 1: ends[place] for place in sorted(ends)}


def code_steps(height: int, width: int) -> list[int]:
    """The steps whose tokens are codes, in the order of the picture's places (row by row)."""
    return [row * (width + 1) + column for row in range(height) for column in range(width)]

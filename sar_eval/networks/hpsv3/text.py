"""HPSv3's request: Qwen2-VL's chat format around a picture, the instruction with the prompt, and a token.

The instruction (`instruction.txt`) is `INSTRUCTION` and `prompt_with_special_token` of
`hpsv3/dataset/data_collator_qwen.py`, under the MIT licence in `instruction.LICENSE`. Blanks at the ends of
its lines are part of it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer

from sar_eval.errors import BadInput

REWARD, PICTURE, VIDEO = "<|Reward|>", "<|image_pad|>", "<|video_pad|>"
_BEGIN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    f"<|im_start|>user\n<|vision_start|>{PICTURE}<|vision_end|>"
)
_END = "<|im_end|>\n<|im_start|>assistant\n"


class Request(NamedTuple):
    """Token ids of one request, and the index of the token whose hidden state is the judgement."""

    ids: tuple[int, ...]
    reward: int


@cache
def _instruction() -> tuple[str, str]:
    """The instruction before and after the prompt."""
    text = (files(__package__) / "instruction.txt").read_text(encoding="utf-8")
    before, _, after = text.partition("{text_prompt}")
    return before, after


def format_request(prompt: str) -> str:
    """The text of a request, with one token in place of the picture.

    Raises:
        BadInput: the prompt has a token in it that stands for a picture or for the judgement; officially
            such a request fails or gets another prompt's score.
    """
    if found := [token for token in (REWARD, PICTURE, VIDEO) if token in prompt]:
        raise BadInput(f"the prompt contains {found[0]}, which HPSv3's request uses itself")
    before, after = _instruction()
    return f"{_BEGIN}{before}{prompt}{after}{_END}"


class RequestTokenizer:
    """Qwen2's tokenizer with HPSv3's token.

    Attributes:
        size: number of ids, as many as the network's embedding has rows.
        picture_id: of the token that is repeated for every merged patch.
        pad_id: of padding, which is masked.
    """

    def __init__(self, path: Path) -> None:
        """Read a `tokenizer.json`.

        Raises:
            BadInput: the file is unreadable or lacks Qwen2-VL's tokens.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            # The library raises plain Exceptions.
            raise BadInput(f"cannot read {path}: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.add_special_tokens([AddedToken(REWARD, special=True, normalized=False)])
        self.size = self._tokenizer.get_vocab_size()
        self.picture_id, self.pad_id = (self._id(token, path) for token in (PICTURE, "<|endoftext|>"))
        self._reward_id = self._id(REWARD, path)

    def _id(self, token: str, path: Path) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BadInput(f"{path} has no token {token}: it is no tokenizer of Qwen2-VL")
        return int(number)

    def encode(self, prompt: str, picture_tokens: int) -> Request:
        """Ids of a request about a picture of that many merged patches.

        Raises:
            BadInput: see `format_request`.
        """
        ids = self._tokenizer.encode(format_request(prompt), add_special_tokens=False).ids
        place = ids.index(self.picture_id)
        ids[place : place + 1] = [self.picture_id] * picture_tokens
        return Request(tuple(ids), ids.index(self._reward_id))

"""What LlamaGen's text-to-image network gets of a caption: 120 T5 embeddings at the right end, and a mask.

As FoundationVision/LlamaGen has it (commit ce98ec4: language/t5.py, autoregressive/sample/sample_t2i.py):
the caption is cleaned twice, cut to 119 pieces and `</s>`, padded behind to 120 places and encoded; then
the n valid embeddings are moved to the last n places ("left padding"), zeros before them, and the mask
likewise. The encoder is that of flan-t5-xl, in a folder as the hub has it. The original runs it in bfloat16
unless told otherwise; here float32 is the default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_eval.discover import need
from sar_eval.documents import read_json
from sar_eval.errors import BadInput
from sar_eval.families.caption_cleaning import clean_caption
from sar_eval.families.text_tokenizer import FAST, read_text_tokenizer, text_ids, token_ids
from sar_eval.families.weight_files import find_weight_files
from sar_eval.tensors.mismatch import describe_mismatch
from sar_eval.tensors.safetensors_header import read_header
from sar_eval.tensors.weight_files import read_tensors

PLACES = 120  # `cls_token_num` of the network, `t5-feature-max-len` of its script
END, PAD = "</s>", "<pad>"
_SHARED, _COPY = "shared.weight", "encoder.embed_tokens.weight"
_DECODER = ("decoder.", "lm_head.")  # of a whole T5, which captions do not need


@dataclass(frozen=True, slots=True)
class UnconditionalRow:
    """What the unprompted row of guidance is made of (autoregressive/models/gpt.py and generate.py).

    Attributes:
        tensor: of the network, [PLACES, width of T5]; it takes the place of the caption's embeddings.
        own_mask: whether it has a mask of its own; False: it stands under the prompt's mask, so its first
            places are closed as the prompt's are, and it depends on the prompt's length.
        above: guidance up to which the row is not run at all; the logits are then the prompted row's.
    """

    tensor: str = "cls_embedding.uncond_embedding"
    own_mask: bool = False
    above: float = 1.0


UNCONDITIONAL = UnconditionalRow()


@dataclass(frozen=True, slots=True)
class CaptionRows:
    """A caption as the network's prefix.

    Attributes:
        embeddings: [PLACES, width of T5], zeros where the mask is False.
        mask: [PLACES], True at the caption's places.
    """

    embeddings: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class CaptionEncoder:
    """T5's tokenizer and encoder.

    Attributes:
        tokenizer: a `tokenizers.Tokenizer`.
        network: transformers' `T5EncoderModel`, in evaluation mode.
        end: id that every caption ends in.
        pad: id of the places behind.
    """

    tokenizer: Any
    network: Any
    end: int
    pad: int

    def caption_ids(self, caption: str, cut: bool = True) -> list[int]:
        """Ids of a caption after its cleaning, the end id included.

        Args:
            caption: text.
            cut: leave out what does not fit `PLACES`, as the original does.

        Raises:
            BadInput: the caption has a lone surrogate, or markup that no one can read.
            MissingExtra: ftfy is not installed.
        """
        # A surrogate is refused first: the cleaning would make another sign of it.
        text_ids(self.tokenizer, caption)
        ids = text_ids(self.tokenizer, clean_caption(caption))
        return [*(ids[: PLACES - 1] if cut else ids), self.end]

    def embed(self, ids: Sequence[int]) -> CaptionRows:
        """Encode a caption's ids: it has the first places, the others hold what T5 makes of pads."""
        padded = torch.full((1, PLACES), self.pad)
        padded[0, : len(ids)] = torch.tensor(ids)
        mask = torch.arange(PLACES)[None] < len(ids)
        device = self.network.device
        with torch.no_grad():
            out = self.network(input_ids=padded.to(device), attention_mask=mask.to(device, torch.long))
        return CaptionRows(out.last_hidden_state[0], mask[0].to(device))

    def prefix(self, caption: str) -> CaptionRows:
        """A caption as the network's prefix.

        Captions are encoded one by one, so that a picture does not depend on what is drawn with it.

        Raises:
            BadInput, MissingExtra: see `caption_ids`.
        """
        return pack(self.embed(self.caption_ids(caption)))


def pack(rows: CaptionRows) -> CaptionRows:
    """Move a caption's places behind the others, and put zeros there."""
    valid = int(rows.mask.sum())
    mask = rows.mask.flip(0)
    moved = rows.embeddings.roll(PLACES - valid, dims=0)
    return CaptionRows(moved.masked_fill(~mask[:, None], 0), mask)


def read_caption_encoder(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> CaptionEncoder:
    """T5's tokenizer and encoder from a folder as `google/flan-t5-xl` is on the hub.

    Raises:
        BadInput: a file is missing or damaged, or its tensors are not those that `config.json` describes.
        MissingExtra: transformers is not installed.
    """
    if not (folder / FAST).is_file():
        raise BadInput(f"no {FAST} in {folder}: copy it there from google/flan-t5-xl on the hub")
    tokenizer = read_text_tokenizer(folder)
    network = _read_network(folder, dtype).to(device)
    if (words := tokenizer.get_vocab_size()) > (rows := network.config.vocab_size):
        raise BadInput(
            f"{folder / FAST} has {words} ids, T5's embedding {rows} rows: they do not belong together"
        )
    return CaptionEncoder(tokenizer, network, *token_ids(tokenizer, (END, PAD), folder / FAST))


def _read_network(folder: Path, dtype: torch.dtype) -> Any:
    need("transformers", extra="llamagen", what="LlamaGen's T5 encoder")
    from transformers import T5EncoderModel

    with torch.device("meta"):
        network = T5EncoderModel(_read_config(folder / "config.json"))
    state = {name: tensor.to(dtype) for name, tensor in _tensors(folder)}
    if (table := state.get(_SHARED, state.get(_COPY))) is not None:
        state |= {_SHARED: table, _COPY: table}  # one table under two names
    if problem := describe_mismatch(state, network.state_dict()):
        raise BadInput(f"{folder} does not fit T5's encoder: {problem}")
    network.load_state_dict(state, assign=True)
    return network.eval()


def _read_config(path: Path) -> Any:
    from transformers import T5Config

    config = read_json(path)
    if not isinstance(config, dict) or config.get("model_type") != "t5":
        raise BadInput(f"{path} is no configuration of T5 (model_type t5)")
    left_out = ("torch_dtype", "dtype", "architectures")
    settings: dict[str, Any] = {key: value for key, value in config.items() if key not in left_out}
    return T5Config(**settings | {"attn_implementation": "eager"})  # as in the original's time


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The encoder's tensors of a whole T5 or of an encoder alone."""
    files = find_weight_files(folder)
    if files is None:
        raise BadInput(f"no *.safetensors and no pytorch_model*.bin in {folder}: T5's weights")
    for path in files.paths:
        names = files.named_in(path)
        if path.suffix == ".safetensors":
            names = [name for name in names or read_header(path) if not name.startswith(_DECODER)]
        found = read_tensors(path, names)
        yield from ((name, tensor) for name, tensor in found.items() if not name.startswith(_DECODER))

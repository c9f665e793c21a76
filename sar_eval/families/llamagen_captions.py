"""What stands before LlamaGen's pictures: T5's embeddings of a caption, in the network's width."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sar_eval.families.llamagen_prompts import PLACES, CaptionEncoder, pack, read_caption_encoder
from sar_eval.families.llamagen_tensors import CAPTION, UNPROMPTED, CaptionPrefix
from sar_eval.families.network_tensors import MatchedNetwork
from sar_eval.tensors.weight_files import read_tensors


class CaptionBranches:
    """Encodes captions one by one, in float32: what they become does not depend on the batch.

    The unprompted branch depends on a caption's length alone, so captions of one length share it.
    """

    def __init__(self, encoder: CaptionEncoder, prefix: CaptionPrefix) -> None:
        self._encoder, self._prefix = encoder, prefix
        self._unprompted: dict[int, Tensor] = {}

    def rows(self, caption: str, truncate: bool) -> tuple[Tensor, Tensor]:
        """The prompted and the unprompted prefix `[n, hidden]`, n the caption's T5 ids.

        Masked places are left out (see `CaptionPrefix.rows`).

        Args:
            caption: text, not yet cleaned.
            truncate: cut it to the 120 places. Without, of one that does not fit nothing but the length is
                right: it cannot be drawn.

        Raises:
            BadInput, MissingExtra: see `CaptionEncoder.caption_ids`.
        """
        ids = self._encoder.caption_ids(caption, cut=truncate)
        if len(ids) > PLACES:
            row = self._prefix.outer.new_zeros((1, len(self._prefix.outer))).expand(len(ids), -1)
            return row, row
        packed = pack(self._encoder.embed(ids))
        prompted, unprompted = self._prefix.rows(packed.embeddings, packed.mask)
        return prompted, self._unprompted.setdefault(len(ids), unprompted)


def read_caption_branches(network: MatchedNetwork, path: Path, text: Path, device: str) -> CaptionBranches:
    """Load T5 and the network's projection of its embeddings.

    Args:
        network: the tensors of the file.
        path: of the file.
        text: T5's folder.
        device: where both compute.

    Raises:
        BadInput: T5's files are damaged, or its tensors are not those that its `config.json` describes.
        MissingExtra: transformers is not installed.
    """
    names = [network.stored[name] for name in (*CAPTION, UNPROMPTED)]
    own = {name: tensor.to(device, torch.float32) for name, tensor in read_tensors(path, names).items()}
    return CaptionBranches(read_caption_encoder(text, device=device), CaptionPrefix.of(network, own))

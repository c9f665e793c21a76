"""Convert captioned images to captioned visual tokens, once, ahead of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.storage.shards import TOKEN_SCHEMA, read_images, write_shards


def tokenize(
    data: Sequence[Path],
    tokenizer: Path,
    out: Path,
    *,
    batch_size: int = 256,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Encode every image of `data`, write token shards and return the number of rows.

    The shards' metadata has the codebook size and the encoder's digest, so that training can refuse
    tokens of another tokenizer. `progress` is called with the number of images done.

    Raises:
        BadInput: images of several sizes, or `out` is not empty.
    """
    visual = VisualTokenizer(tokenizer, device)
    metadata = {"codebook_size": str(visual.codebook_size), "encoder": visual.encoder_digest}
    rows = _rows(data, visual, batch_size, progress)
    return write_shards(rows, out, TOKEN_SCHEMA, rows_per_shard=50_000, metadata=metadata)


def _rows(
    data: Sequence[Path], visual: VisualTokenizer, batch_size: int, progress: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    done, images = 0, read_images(data)
    while batch := list(islice(images, batch_size)):
        if len({image.shape for image, _ in batch}) > 1:
            raise BadInput("images of several sizes: resize them to one size before tokenizing")
        codes = visual.encode(torch.from_numpy(np.stack([image for image, _ in batch])))
        for tokens, (_, caption) in zip(codes.tolist(), batch, strict=True):
            yield {"tokens": tokens, "caption": caption}
        done += len(batch)
        progress(done)

"""Convert captioned images to captioned visual tokens, once, ahead of training."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.storage.shards import TOKEN_SCHEMA, Place, read_images, write_shards
from sar_eval.tensors.out_of_memory import is_out_of_memory


def tokenize(
    data: Sequence[Place],
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
        BadInput: images of several sizes, or of one that the tokenizer does not take; `out` is not empty;
            or there is no such device.
    """
    _check_device(device)
    visual = VisualTokenizer(tokenizer, device)
    metadata = {"codebook_size": str(visual.codebook_size), "encoder": visual.encoder_digest}
    rows = _rows(data, visual, batch_size, progress)
    return write_shards(rows, out, TOKEN_SCHEMA, rows_per_shard=50_000, metadata=metadata)


def _rows(
    data: Sequence[Place], visual: VisualTokenizer, batch_size: int, progress: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    done, images = 0, read_images(data)
    while batch := list(islice(images, batch_size)):
        if len({image.shape for image, _ in batch}) > 1:
            raise BadInput("images of several sizes: resize them to one size before tokenizing")
        codes = _encode(visual, np.stack([image for image, _ in batch]))
        for tokens, (_, caption) in zip(codes.tolist(), batch, strict=True):
            yield {"tokens": tokens, "caption": caption}
        done += len(batch)
        progress(done)


def _encode(visual: VisualTokenizer, images: NDArray[np.uint8]) -> torch.Tensor:
    """Codes `[B, h * w]` of RGB images uint8 `[B, H, W, 3]`."""
    encoder, (height, width) = visual.folder / "encoder.jit", images.shape[1:3]
    if height % visual.downsample or width % visual.downsample:
        raise BadInput(
            f"images of {width}x{height}: the sides must be multiples of {visual.downsample}, the pixels "
            f"that a token of {visual.folder} covers"
        )
    try:
        codes = visual.encode(torch.from_numpy(images))
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        last = str(error).splitlines()[-1]
        raise BadInput(f"{encoder} does not turn images into codes: {last}") from error
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= visual.codebook_size:
        raise BadInput(
            f"{encoder} gives codes from {low} to {high}, the config.json beside it says that there are "
            f"{visual.codebook_size}"
        )
    return codes


def _check_device(device: str) -> None:
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise BadInput(f"--device is {device!r}: cpu, cuda, or cuda:NUMBER")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device != "cpu" and int(device.partition(":")[2] or 0) >= found:
        raise BadInput(
            f"--device {device}: torch finds {found} GPUs here; use cpu, or see `sar-eval doctor`"
        )

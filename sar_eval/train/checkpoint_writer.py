"""Write a trained decoder as a checkpoint folder that every engine and plain transformers load."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor

from sar_eval.errors import StorageFailed
from sar_eval.families.simplear import visual_setting
from sar_eval.families.tensor_names import HEAD
from sar_eval.storage.files import publish, storage_errors, write_json
from sar_eval.types import Json

ABOUT = "sar_eval.json"  # written last: a folder with it is finished
_PARTIAL = ".partial"


def save_checkpoint(
    model: Any,
    tokenizer: Any,
    visual_tokenizer: Path,
    sizes: Collection[tuple[int, int]],
    out: Path,
    training: Mapping[str, Json] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the decoder in bfloat16 safetensors, its tokenizer, and the path of the visual tokenizer.

    The model stays as it is and where it is. Every file is written beside first and gets its name when all
    of them are whole: where the disk is full, what was in `out` before stays.

    Args:
        model: a Qwen2 decoder of transformers.
        tokenizer: its text tokenizer.
        visual_tokenizer: folder of the visual tokenizer, referred to by its path relative to `out`.
        sizes: of the pictures that it was trained on: height and width in visual tokens.
        out: the folder to write.
        training: for `sar_eval.json`, what made it, for those who use it.
        state: the model's tensors, where they had to be gathered from several processes.

    Raises:
        StorageFailed: it cannot be written.
    """
    partial = out / _PARTIAL
    with _written(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_decoder(model, model.state_dict() if state is None else state, partial)
        tokenizer.save_pretrained(partial)
        (out / ABOUT).unlink(missing_ok=True)
        for path in sorted(partial.iterdir()):
            publish(path, out / path.name)
        partial.rmdir()
        write_json(out / ABOUT, _about(visual_tokenizer, sizes, out, training))
    shutil.rmtree(out / "state", ignore_errors=True)


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Errors of the disk as `StorageFailed`; what was being written is removed, to make room."""
    try:
        with storage_errors(out):
            yield
    except SafetensorError as error:  # its writer in Rust, where the disk takes no more
        raise StorageFailed(
            f"cannot write {out / 'model.safetensors'}: {error}. Make room and run the same command again: "
            "it goes on from the last state"
        ) from error
    finally:
        shutil.rmtree(out / _PARTIAL, ignore_errors=True)


def _write_decoder(model: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    """`config.json` and safetensors, in shards where they are large."""
    config = deepcopy(model.config)
    config.architectures, config.dtype, config.use_cache = ["SimpARForCausalLM"], torch.bfloat16, True
    config.save_pretrained(folder)
    tied = config.tie_word_embeddings
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16)
        for name, tensor in state.items()
        if not (tied and name == HEAD)
    }
    save_torch_state_dict(tensors, folder, metadata={"format": "pt"})


def _about(
    visual_tokenizer: Path,
    sizes: Collection[tuple[int, int]],
    out: Path,
    training: Mapping[str, Json] | None,
) -> dict[str, Json]:
    """The contents of `sar_eval.json`."""
    pixels = visual_setting(visual_tokenizer, "downsample")
    # `..` is taken of the folder itself, not of a link to it.
    beside = os.path.relpath(visual_tokenizer.resolve(), out.resolve())
    about: dict[str, Json] = {"visual_tokenizer": beside, "resolution": drawn_side(sizes) * pixels}
    if len(sizes) > 1 or any(height != width for height, width in sizes):
        about["sizes"] = [[height * pixels, width * pixels] for height, width in sorted(sizes)]
    if training:
        about["training"] = dict(training)
    return about


def drawn_side(sizes: Collection[tuple[int, int]]) -> int:
    """Side in tokens of the square that is drawn by default: the largest one that was trained on.

    Where no square was, the square whose area is nearest to the largest picture's.
    """
    squares = [height for height, width in sizes if height == width]
    return max(squares) if squares else max(1, round(math.sqrt(max(h * w for h, w in sizes))))

"""Write a trained decoder as a checkpoint folder that every engine and plain transformers load.

A folder is written whole: each file beside first, `sar_eval.json` last. A folder without that file is not
finished.
"""

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
from safetensors.torch import save_file
from torch import Tensor

from sar_eval.errors import StorageFailed
from sar_eval.families.simplear import Checkpoint, visual_setting
from sar_eval.families.tensor_names import HEAD
from sar_eval.storage.files import publish, storage_errors, write_bytes, write_json
from sar_eval.tensors.hub import hub_name_of
from sar_eval.train.lora import decoder_tensors, lora_config, peft_names
from sar_eval.train.model_card import README, CardFacts, render_card
from sar_eval.types import Json

ABOUT = "sar_eval.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # as peft calls them
Sizes = Collection[tuple[int, int]]  # of pictures: height and width in visual tokens
_PARTIAL = ".partial"


def save_checkpoint(
    model: Any,
    tokenizer: Any,
    visual_tokenizer: Path,
    sizes: Sizes,
    out: Path,
    training: Mapping[str, Json] | None = None,
    state: Mapping[str, Tensor] | None = None,
    name: str = "",
) -> None:
    """Write the decoder in bfloat16 safetensors, its tokenizers and its card.

    The model stays as it is and where it is; adapters are merged into what is written. Where the disk is
    full, what was in `out` before stays.

    Args:
        model: a Qwen2 decoder of transformers.
        tokenizer: its text tokenizer.
        visual_tokenizer: folder of the visual tokenizer, referred to by its path relative to `out`.
        sizes: of the pictures that it was trained on.
        out: the folder to write.
        training: for `sar_eval.json` and the card, what made it (see `CardFacts`).
        state: the model's tensors, where they had to be gathered from several processes.
        name: that its card has; the folder's by default.

    Raises:
        StorageFailed: it cannot be written.
    """
    about = _about(visual_tokenizer, sizes, out, training)
    with _written_whole(out, about) as partial:
        parameters = _write_decoder(model, model.state_dict() if state is None else state, partial)
        tokenizer.save_pretrained(partial)
        _write_card(
            partial, name or out.resolve().name, visual_tokenizer, sizes, parameters, training or {}
        )


def save_adapter(
    adapters: Mapping[str, Tensor],
    base: Checkpoint,
    visual_tokenizer: Path,
    sizes: Sizes,
    out: Path,
    training: Mapping[str, Json] | None = None,
) -> None:
    """Write the adapters of a decoder as peft's folder, and which base they are for.

    Args:
        adapters: float32, by their names in the model (see `lora.add_adapters`).
        base: the checkpoint that they were trained on.
        visual_tokenizer, sizes, out, training: as for `save_checkpoint`.

    Raises:
        StorageFailed: it cannot be written.
    """
    about = _about(visual_tokenizer, sizes, out, training)
    about |= {
        "base": base.name,
        "base_digest": base.digest,
        "sizes": [list(size) for size in sorted(sizes)],
    }
    with _written_whole(out, about) as partial:
        tensors = peft_names(adapters)
        rank = next(len(tensor) for name, tensor in tensors.items() if ".lora_A." in name)
        save_file(tensors, partial / ADAPTER, metadata={"format": "pt"})
        lora_config(rank, base.name).save_pretrained(partial)
        parameters = sum(tensor.numel() for tensor in tensors.values())
        named = out.resolve().name
        _write_card(partial, named, visual_tokenizer, sizes, parameters, training or {}, adapter=True)


@contextmanager
def _written_whole(out: Path, about: Mapping[str, Json]) -> Iterator[Path]:
    """A folder whose files go to `out` when all are written, and then `about` as `sar_eval.json`.

    Errors of the disk become `StorageFailed`; what was being written is then removed, to make room.
    """
    partial = out / _PARTIAL
    try:
        with storage_errors(out):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            (out / ABOUT).unlink(missing_ok=True)
            for path in sorted(partial.iterdir()):
                # As others are that are made here: safetensors lets nobody but the owner read its files.
                path.chmod(partial.stat().st_mode & 0o666)
                publish(path, out / path.name)
            write_json(out / ABOUT, about)
    except SafetensorError as error:  # its writer in Rust, where the disk takes no more
        raise StorageFailed(
            f"cannot write weights to {out}: {error}. Make room and run the same command again: it goes on "
            "from the last state"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(out / "state", ignore_errors=True)


def _write_decoder(model: Any, state: Mapping[str, Tensor], folder: Path) -> int:
    """Write `config.json` and safetensors, in shards where they are large; the number of parameters."""
    config = deepcopy(model.config)
    config.architectures, config.dtype, config.use_cache = ["SimpARForCausalLM"], torch.bfloat16, True
    config.save_pretrained(folder)
    tied = config.tie_word_embeddings
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16)
        for name, tensor in decoder_tensors(state, state.__getitem__)
        if not (tied and name == HEAD)
    }
    save_torch_state_dict(tensors, folder, metadata={"format": "pt"})
    return sum(tensor.numel() for tensor in tensors.values())


def _write_card(
    folder: Path,
    name: str,
    visual_tokenizer: Path,
    sizes: Sizes,
    parameters: int,
    training: Mapping[str, Json],
    *,
    adapter: bool = False,
) -> None:
    pixels = visual_setting(visual_tokenizer, "downsample")
    facts = CardFacts(
        name=name,
        sizes={(height * pixels, width * pixels) for height, width in sizes},
        parameters=parameters,
        codes=visual_setting(visual_tokenizer, "codebook_size"),
        adapter=adapter,
        training=training,
    )
    write_bytes(folder / README, render_card(facts).encode())


def _about(
    visual_tokenizer: Path, sizes: Sizes, out: Path, training: Mapping[str, Json] | None
) -> dict[str, Json]:
    """The contents of `sar_eval.json`."""
    # `..` is taken of the folder itself, not of a link to it.
    beside = os.path.relpath(visual_tokenizer.resolve(), out.resolve())
    named = hub_name_of(visual_tokenizer) or beside  # a cache is no place for others
    pixels = visual_setting(visual_tokenizer, "downsample")
    about: dict[str, Json] = {"visual_tokenizer": named, "resolution": drawn_side(sizes) * pixels}
    if len(sizes) > 1 or drawn_side(sizes) not in {height for height, width in sizes if height == width}:
        about["sizes"] = [list(size) for size in sorted(sizes)]
    if training:
        about["training"] = {name: value for name, value in training.items() if name != "card"}
    return about


def drawn_side(sizes: Sizes) -> int:
    """Side in tokens of the square that is drawn by default: the largest one that was trained on.

    Where no square was, the square whose area is nearest to the largest picture's.
    """
    squares = [height for height, width in sizes if height == width]
    return max(squares) if squares else max(1, round(math.sqrt(max(h * w for h, w in sizes))))

"""Train the demo's visual tokenizer and export it to TorchScript with the Cosmos tokenizer's interface."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sar_eval.errors import BadInput
from sar_eval.families.factored import (
    COLUMNS,
    FactoredAutoencoder,
    FactoredDecoderContract,
    FactoredEncoderContract,
)
from sar_eval.families.fsq import DOWNSAMPLE, DecoderContract, EncoderContract, FsqAutoencoder
from sar_eval.storage.shards import Place, read_images
from sar_eval.tensors.torchscript import save_torchscript
from sar_eval.train.curve import add_to_curve, trim_curve
from sar_eval.train.precision import usual_precision
from sar_eval.train.state import AGAIN, check_torch_file, make_folder

KINDS = ("local", "factored")
Autoencoder = FsqAutoencoder | FactoredAutoencoder


@dataclass(frozen=True, slots=True)
class TokenizerOptions:
    """Training options.

    Attributes:
        levels: of the FSQ; their product is the number of codes (of shape codes if `kind` is factored).
        kind: "local" (`families.fsq`: a code for each 8 x 8 pixels alone) or "factored"
            (`families.factored`: a shape code and a colour code for each 8 x 16).
        color_levels: of a factored tokenizer's colour codes.
    """

    levels: tuple[int, ...] = (8, 8, 8, 5)
    width: int = 64
    steps: int = 3000
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    save_every: int = 500
    kind: str = "local"
    color_levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no tokenizer.

        Raises:
            BadInput: no such kind, or colour levels where there are no colour codes or the reverse.
        """
        if self.kind not in KINDS:
            raise BadInput(f"--kind is {self.kind!r}: {' or '.join(KINDS)}")
        if bool(self.color_levels) != (self.kind == "factored"):
            raise BadInput("--color-levels goes with --kind factored, and with no other")

    @property
    def codebook_size(self) -> int:
        """Codes in all."""
        return math.prod(self.levels) + (math.prod(self.color_levels) if self.color_levels else 0)


def build_autoencoder(options: TokenizerOptions) -> Autoencoder:
    """A new autoencoder of the kind asked for, with random weights."""
    if options.kind == "factored":
        return FactoredAutoencoder(list(options.levels), list(options.color_levels), options.width)
    return FsqAutoencoder(list(options.levels), options.width)


def train_tokenizer(
    data: Sequence[Place],
    out: Path,
    options: TokenizerOptions,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train an autoencoder on captioned images and write `encoder.jit`, `decoder.jit`.

    Resumes from `out/state.pt` if it exists. Appends to `out/loss.jsonl`.

    Raises:
        BadInput: the images differ in size, a side is not a multiple of 8 (a factored tokenizer's width:
            of 16), or the state in `out` was made with other options.
    """
    make_folder(out)
    torch.manual_seed(options.seed)
    model = build_autoencoder(options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01)
    start = _resume(out / "state.pt", model, optimizer, options)
    if start < options.steps:
        _fit(model, optimizer, _load_images(data, options.kind), out, options, start, progress)
    elif (out / "decoder.jit").is_file():
        # Each export has other bytes, and shards and checkpoints identify the tokenizer by its digest.
        return
    export(model.eval(), out, options)


def _load_images(data: Sequence[Place], kind: str = "local") -> Tensor:
    """All images, uint8 [N, 3, H, W]."""
    images = [image for image, _ in read_images(data)]
    shapes = {image.shape for image in images}
    rows, columns = DOWNSAMPLE, COLUMNS if kind == "factored" else DOWNSAMPLE
    if len(shapes) != 1 or any(height % rows or width % columns for height, width, _ in shapes):
        sides = f"of {rows}" if rows == columns else f"of {rows} in height and {columns} in width"
        raise BadInput(f"images must share one size, a multiple {sides}; found {sorted(shapes)}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _fit(
    model: Autoencoder,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    out: Path,
    options: TokenizerOptions,
    start: int,
    progress: Callable[[int, float], None],
) -> None:
    trim_curve(out / "loss.jsonl", start)
    started = time.perf_counter()
    for step in range(start, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _schedule(step, options.steps)
        # The batch is a function of the step, so a resumed run sees the same batches.
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        batch = images[torch.randint(len(images), (options.batch_size,), generator=generator)]
        loss = _train_step(model, optimizer, batch.float() / 127.5 - 1)
        progress(step + 1, loss)
        if (step + 1) % 50 == 0:
            line = {"step": step + 1, "loss": loss, "seconds": round(time.perf_counter() - started, 1)}
            add_to_curve(out / "loss.jsonl", line)
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            _save_state(out / "state.pt", model, optimizer, options, step + 1)


def _train_step(model: Autoencoder, optimizer: torch.optim.Optimizer, pixels: Tensor) -> float:
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=usual_precision() == "bfloat16"):
        reconstruction = model(pixels).float()
    # Shapes cover few pixels, so pixels that differ from the image's mean get more weight.
    weight = 1 + 4 * (pixels - pixels.mean((2, 3), keepdim=True)).abs().clamp(max=1)
    error = (reconstruction - pixels).abs()
    loss = (weight * (error + 4 * error.square())).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up over 100 steps times a cosine to zero."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _save_state(
    path: Path,
    model: Autoencoder,
    optimizer: torch.optim.Optimizer,
    options: TokenizerOptions,
    step: int,
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "options": _in_words(options),
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _in_words(options: TokenizerOptions) -> str:
    """The options as a state has them; those of `local` read as before there were kinds."""
    facts = asdict(options)
    if options.kind == "local":
        del facts["kind"], facts["color_levels"]
    return json.dumps(facts)


def _resume(
    path: Path, model: Autoencoder, optimizer: torch.optim.Optimizer, options: TokenizerOptions
) -> int:
    """Load the saved state, if any, and return its step.

    Raises:
        BadInput: the file is damaged, or was made with other options.
    """
    if not path.exists():
        return 0
    check_torch_file(path)
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        made_with, step = str(state["options"]), int(state["step"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise BadInput(f"{path} is no state of this training ({type(error).__name__}): {AGAIN}") from error
    if made_with != _in_words(options):
        raise BadInput(f"{path} was made with other options ({made_with}): use them, or another --out")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} does not fit this training ({type(error).__name__}): {AGAIN}") from error
    return step


def export(model: Autoencoder, out: Path, options: TokenizerOptions) -> None:
    """Write `encoder.jit`, `decoder.jit` and `config.json` (codebook size, pixels per token side)."""
    config = {
        "codebook_size": options.codebook_size,
        "downsample": DOWNSAMPLE,
        "levels": options.levels,
    }
    if options.kind == "factored":
        config |= {"columns": COLUMNS, "kind": options.kind, "color_levels": options.color_levels}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name, module in zip(("encoder", "decoder"), _contracts(model), strict=True):
        save_torchscript(module, out / f"{name}.jit")


def _contracts(model: Autoencoder) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder with the interface of the Cosmos tokenizer."""
    if isinstance(model, FactoredAutoencoder):
        return FactoredEncoderContract(model), FactoredDecoderContract(model)
    return EncoderContract(model), DecoderContract(model)

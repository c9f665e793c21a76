"""What the visual tokenizer's decoder gives is not always a picture."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sar_eval.decoding.encode_images import images_from_codes
from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.tensors.torchscript import save_torchscript
from sar_eval.types import DrawProtocol, Prompt, make_draw

PROTOCOL = DrawProtocol("test", 32, guidance=1.0)


class Spoiled(nn.Module):
    """Paints a code's patch with `spoiled` where the code is below `limit`, with -0.5 elsewhere."""

    def __init__(self, spoiled: float, limit: int) -> None:
        super().__init__()
        self.spoiled, self.limit = spoiled, limit

    def forward(self, indices: Tensor) -> Tensor:
        painted = torch.where(indices < self.limit, self.spoiled, -0.5).to(torch.float32)
        large = painted.repeat_interleave(8, 2).repeat_interleave(8, 3)
        return large.unsqueeze(1).repeat(1, 3, 1, 1, 1)


@pytest.fixture
def spoil(tiny_checkpoint: Path, tmp_path: Path):
    """A visual tokenizer whose decoder is `Spoiled`."""

    def make(value: float, limit: int) -> Path:
        for path in (tiny_checkpoint.parent / "tokenizer").iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        save_torchscript(Spoiled(value, limit).eval(), tmp_path / "decoder.jit")
        return tmp_path

    return make


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_image_with_one_patch_that_is_no_number_is_none(spoil, value: float) -> None:
    visual = VisualTokenizer(spoil(value, 1))
    codes = torch.tensor([[5, 6, 7, 8], [5, 0, 7, 8], [9, 9, 9, 9]])
    files = images_from_codes(visual, codes.view(-1, 2, 2), "png", 1, batch_size=2)
    assert [file is None for file in files] == [False, True, False]
    assert np.asarray(Image.open(io.BytesIO(files[0]))).mean() == 64


def test_values_out_of_range_are_clipped(spoil) -> None:
    visual = VisualTokenizer(spoil(7.5, 1))
    [file] = images_from_codes(visual, torch.tensor([[[0, 5], [5, 5]]]), "png", 1)
    assert np.asarray(Image.open(io.BytesIO(file)))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("engine_class", [NativeEngine, HfEngine])
@pytest.mark.parametrize(("limit", "expected"), [(64, 4), (0, 0)])
def test_such_a_draw_is_an_error(
    spoil, tiny_checkpoint: Path, engine_class: type[NativeEngine], limit: int, expected: int
) -> None:
    folder = str(spoil(float("nan"), limit))
    draws = [make_draw(Prompt(f"p{i}", "a ring"), i, run_seed=7) for i in range(4)]
    with engine_class(str(tiny_checkpoint), PROTOCOL, visual_tokenizer=folder) as engine:
        generations = list(engine.generate(draws))
    errors = [g.error for g in generations if g.error]
    assert errors == ["the image decoder gave NaN or infinite values for its tokens"] * expected
    assert all((g.image is None) == (g.error is not None) for g in generations)


def test_a_decoder_that_is_refused_is_told_before_anything_is_drawn(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for path in (tiny_checkpoint.parent / "tokenizer").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "decoder.jit").write_bytes(b"PK no archive")
    with (
        pytest.raises(BadInput, match=r"decoder\.jit is no readable TorchScript file"),
        NativeEngine(str(tiny_checkpoint), PROTOCOL, visual_tokenizer=str(tmp_path)),
    ):
        pytest.fail("entered")

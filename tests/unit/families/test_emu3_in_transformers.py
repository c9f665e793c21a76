"""transformers' own Emu3 of tiny random weights, saved by it, against the engine native."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sar_eval.engines.native import NativeEngine
from sar_eval.families.emu3 import PROTOCOLS, Emu3Checkpoint
from sar_eval.families.recognise import find_checkpoint
from sar_eval.types import DrawProtocol, Prompt, make_draw
from tests.picture_decoders import randomized
from tests.tiny_emu3 import CODES, FIRST_CODE, LLAMA, TOKENS, write_text_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = (3, 2)
TEXTS = ("a red ring", "two stars")
SIZED = DrawProtocol("emu3", 24, width=16, height=24, **PROTOCOLS["emu3"])
GREEDY = replace(SIZED, temperature=0, negative_prompt="ugly")


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import Emu3Config, Emu3ForConditionalGeneration

    numbers = {token: 256 + number for number, token in enumerate(TOKENS)}
    special = {"pad_token_id": 256, "bos_token_id": 462, "eos_token_id": 463}
    vq: dict[str, Any] = {"base_channels": 32, "channel_multiplier": [1, 1, 1, 2], "num_res_blocks": 1}
    vq |= {"attn_resolutions": [3], "codebook_size": CODES, "hidden_size": 64}
    config = Emu3Config(
        text_config=LLAMA | special,
        vq_config=vq,
        vocabulary_map=numbers | {"<image>": numbers["<|image token|>"]},
    )
    return randomized(Emu3ForConditionalGeneration(config))


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("saved")
    model.save_pretrained(out)
    write_text_tokenizer(out, "transformers")
    return out


def _generated(model: Any, found: Emu3Checkpoint, text: str, guidance: float) -> Tensor:
    """New ids of transformers' `generate`, with the ids that may stand in each place."""
    protocol = replace(GREEDY, guidance=guidance)
    rows = [torch.tensor(row)[None] for row in found.branches(text, "ugly", protocol, GRID)]
    plan, codes = found.plan(protocol, GRID), list(found.visual_ids)

    def allowed(_: int, ids: Tensor) -> list[int]:
        place = ids.shape[-1] - rows[0].shape[-1]
        return [plan.forced[place]] if place in plan.forced else codes

    options: dict[str, Any] = {"max_new_tokens": plan.codes + len(plan.forced), "do_sample": False}
    if guidance != 1:
        options |= {"guidance_scale": guidance, "negative_prompt_ids": rows[1]}
    out: Tensor = model.generate(rows[0], prefix_allowed_tokens_fn=allowed, **options)
    return out[0, rows[0].shape[-1] :]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("speculate", [False, True])
def test_codes_and_pixels_are_those_of_transformers(
    model: Any, folder: Path, guidance: float, speculate: bool
) -> None:
    protocol = replace(GREEDY, guidance=guidance)
    engine = NativeEngine(str(folder), protocol, speculate=speculate)
    draws = [make_draw(Prompt(f"p{n}", text), 0, 0) for n, text in enumerate(TEXTS)]
    with engine:
        drawn = {generation.key: generation for generation in engine.generate(draws)}
    for draw in draws:
        ids = _generated(model, find_checkpoint(str(folder)), draw.prompt.text, guidance)
        codes = [int(number) - FIRST_CODE for number in ids if number >= FIRST_CODE]
        assert list(drawn[draw.key].tokens) == codes
        assert len(set(codes)) > 1
        with torch.no_grad():
            pixels = model.model.vqmodel.decode(torch.tensor(codes).view(1, *GRID))[0]
        grey = ((pixels + 1) / 2 * 255).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        with Image.open(io.BytesIO(drawn[draw.key].image or b"")) as image:
            unequal = np.asarray(image).astype(int) - grey
        assert unequal.shape == (24, 16, 3)
        assert abs(unequal).max() <= 1  # sums of convolutions come in another order
        assert np.count_nonzero(unequal) <= 2

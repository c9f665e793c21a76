"""GRPO on a CUDA device: real steps of the real shape, and the memory that arithmetic promises."""

from pathlib import Path

import pytest
import torch

from benchmarks.speed import grpo_memory as memory
from benchmarks.speed.decode import shape_config
from benchmarks.speed.grpo import fastest, measure, recipe_of, table
from benchmarks.speed.grpo_memory import BFLOAT16, FLOAT32, GB, Setup
from sar_eval.families.decoder_config import DecoderConfig
from tests.wide_checkpoint import CODES, write_checkpoint, write_recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def _counted(checkpointing: bool) -> float:
    """Bytes of 0.5B's layers over the demo's vocabulary: 32 draws of 1,024 tokens, 8 trained at once."""
    config = DecoderConfig.from_dict(shape_config("0.5B") | {"vocab_size": CODES + 55})
    setup = Setup(512, BFLOAT16, checkpointing)
    held = memory.trainer_bytes(config) + sum(memory.copy_bytes(config, p) for p in (FLOAT32, BFLOAT16))
    held += memory.passing_bytes(config, CODES, BFLOAT16) + memory.cache_bytes(config, setup, 32)
    return held + 8 * memory.picture_bytes(config, setup, CODES) + memory.chunk_bytes()


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_step_takes_the_memory_that_is_counted(tmp_path: Path, checkpointing: bool) -> None:
    """At 256 pixels of the demo's 8 x 8 tokens: as many tokens as SimpleAR's pictures of 512."""
    ckpt = write_checkpoint(tmp_path / "wide", "0.5B")
    recipe = write_recipe(tmp_path / "wide.toml", 256, "bfloat16", checkpointing=checkpointing)
    found = fastest(measure("0.5B", recipe_of(str(recipe), 3, {}), str(ckpt)))
    print(f"\n{table([found])}\ncounted: {_counted(checkpointing) / GB:.1f} GB")
    assert all(seconds > 0 for stage, seconds in found.seconds.items() if stage != "other")
    assert found.peak == pytest.approx(_counted(checkpointing), rel=0.3)

"""A visual tokenizer that does not do what its `config.json` says is named before anything is written."""

import json
import shutil
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.train.scenes import make_scenes
from tests.token_folders import small_tokenizer, tokenize


def test_pictures_that_the_tokenizer_does_not_take(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", 2, style="clean", seed=0)
    visual = small_tokenizer(tmp_path / "visual")
    other = shutil.copytree(visual, tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"codebook_size": 2, "downsample": 8}))
    with pytest.raises(BadInput, match="says that there are 2"):
        tokenize([tmp_path / "scenes"], other, tmp_path / "out")
    (other / "config.json").write_text(json.dumps({"codebook_size": 64, "downsample": 7}))
    with pytest.raises(BadInput, match=r"2 does_not_fit.*64x64 pixels, no multiples of 7x7; say --size"):
        tokenize([tmp_path / "scenes"], other, tmp_path / "out-7")
    shutil.copy(visual / "decoder.jit", other / "encoder.jit")
    shutil.copy(visual / "config.json", other / "config.json")
    with pytest.raises(BadInput, match=r"encoder\.jit does not turn images into codes"):
        tokenize([tmp_path / "scenes"], other, tmp_path / "out-swapped")

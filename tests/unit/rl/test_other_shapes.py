"""Training on pictures that are no squares: best of N, preferences, and what a policy draws."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.rl.dpo import DpoOptions, dpo
from sar_eval.rl.grpo_recipe import load_grpo_recipe
from sar_eval.rl.grpo_run import GrpoSetup
from sar_eval.rl.select import SelectOptions, select
from sar_eval.storage.shards import SIZED_SCHEMA, read_shards
from sar_eval.train.token_stream import TokenStream, WeightedPlace
from sar_eval.types import Draw
from tests.grpo_runs import train, write_recipe
from tests.judged_runs import PROTOCOL, judged_run

TALL = replace(PROTOCOL, resolution=48, width=32, height=48)  # 6 x 4 tokens
SCORES = {f"{prompt}/{n}": score for prompt in "ab" for n, score in enumerate((0.2, 0.9, 0.8, 0.5))}


def _codes(draw: Draw) -> tuple[int, ...]:
    return tuple(np.random.default_rng(draw.seed).integers(0, 64, 24).tolist())


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    return judged_run(tmp_path / "run", tiny_checkpoint, SCORES, protocol=TALL, codes=_codes)


def test_the_best_have_their_size_and_are_read_with_it(run: Path, tmp_path: Path) -> None:
    select([run], tmp_path / "best", SelectOptions())
    [table] = read_shards([tmp_path / "best"], SIZED_SCHEMA)
    assert (set(table["height"].to_pylist()), set(table["width"].to_pylist())) == ({6}, {4})
    stream = TokenStream([WeightedPlace(tmp_path / "best")], seed=0, window=9, caption_dropout=0)
    assert stream.sizes == frozenset({(6, 4)})


def test_another_shape_of_as_many_tokens_is_not_mixed_in(
    run: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    wide = replace(TALL, width=48, height=32)
    other = judged_run(tmp_path / "wide", tiny_checkpoint, SCORES, protocol=wide, codes=_codes)
    with pytest.raises(BadInput, match=r"was drawn at 32x48 pixels, .* at 48x32: one size at a time"):
        select([run, other], tmp_path / "best", SelectOptions())


def test_a_square_number_of_codes_is_no_picture_of_such_a_run(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    broken = judged_run(tmp_path / "run", tiny_checkpoint, SCORES, protocol=TALL)  # of 16 codes
    with pytest.raises(BadInput, match=r"has 16 codes .* make 24 from 0 to 63"):
        select([broken], tmp_path / "best", SelectOptions())


def test_preferences_train_and_the_checkpoint_says_the_size(
    run: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    options = DpoOptions(1, batch_size=4, micro=4, learning_rate=1e-3, warmup=0)
    dpo([run], str(tiny_checkpoint), tmp_path / "out", options)
    _trained_on_rectangles(tmp_path / "out")


def test_a_policy_draws_and_learns_from_rectangles(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = write_recipe(tmp_path / "recipe")
    path.write_text(path.read_text().replace("resolution = 32", "width = 32\nheight = 48"))
    recipe = load_grpo_recipe(str(path), {"grpo": {"steps": 1, "prompts": 2, "group": 2, "micro": 4}})
    assert recipe.protocol_of(64).size == (48, 32)
    train(GrpoSetup.of(recipe, str(tiny_checkpoint)), tmp_path / "out")
    _trained_on_rectangles(tmp_path / "out")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("width = 32", r"recipe\.toml: protocol\.width is 32, and no protocol\.height is said"),
        ("resolution = 32\nwidth = 32\nheight = 48", r"recipe\.toml: .*leave out protocol\.resolution"),
        ("width = 'x'\nheight = 48", r"recipe\.toml: protocol\.width is 'x': it must be a whole number"),
    ],
)
def test_a_recipes_size_is_checked(tmp_path: Path, size: str, message: str) -> None:
    path = write_recipe(tmp_path / "recipe")
    path.write_text(path.read_text().replace("resolution = 32", size))
    with pytest.raises(BadInput, match=message):
        load_grpo_recipe(str(path))


def _trained_on_rectangles(folder: Path) -> None:
    about = json.loads((folder / "sar_eval.json").read_text())
    assert about["sizes"] == [[6, 4]]
    assert find_checkpoint(str(folder)).check_protocol(TALL) == ()  # no note: it was trained on that
    assert find_checkpoint(str(folder)).check_protocol(replace(TALL, width=40)) != ()

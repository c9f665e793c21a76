"""Training input of every kind that is none: named in one message, before anything is trained."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sar_eval.train.decoder import DecoderOptions, TokenDataset, _last_state, check_tokens
from sar_eval.train.pretrain import pretrain
from sar_eval.train.sft import sft

from sar_eval.errors import BadInput
from sar_eval.families.demo import build_text_tokenizer
from sar_eval.families.fsq import FsqAutoencoder
from sar_eval.storage.shards import (
    IMAGE_SCHEMA,
    TOKEN_SCHEMA,
    read_images,
    read_metadata,
    read_shards,
    write_shards,
)
from sar_eval.train.curve import trim_curve
from sar_eval.train.scenes import make_scenes
from sar_eval.train.tokenizer import TokenizerOptions, export, train_tokenizer
from tests.token_folders import tokenize

OPTIONS = DecoderOptions(steps=1, batch_size=1)
SMALL = TokenizerOptions(levels=(4, 4, 4), width=16, steps=1, batch_size=2)
ROW = {"tokens": [1, 2, 3, 4], "caption": "a ring"}


@pytest.fixture(scope="module")
def visual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A visual tokenizer with 64 codes."""
    folder = tmp_path_factory.mktemp("visual")
    export(FsqAutoencoder([4, 4, 4], 16).eval(), folder, SMALL)
    return folder


def shard(folder: Path, table: pa.Table) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "shard-00000.parquet")
    return folder


def _text(path: Path) -> None:
    path.write_text("this is no Parquet file")


def _cut(path: Path) -> None:
    pq.write_table(pa.table({"tokens": [[1]], "caption": ["x"]}), path)
    path.write_bytes(path.read_bytes()[:-9])


def _flipped(path: Path) -> None:
    pq.write_table(pa.table({"tokens": [[1]], "caption": ["x"]}), path)
    data = bytearray(path.read_bytes())
    data[-60:-20] = bytes(40)
    path.write_bytes(bytes(data))


NO_SHARDS: dict[str, Callable[[Path], Any]] = {
    "text": _text,
    "empty": Path.touch,
    "cut": _cut,
    "flipped": _flipped,
    "folder": Path.mkdir,
    "dangling": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("kind", NO_SHARDS)
def test_a_shard_that_is_no_parquet_file_is_named(tmp_path: Path, kind: str) -> None:
    NO_SHARDS[kind](tmp_path / "shard-00000.parquet")
    for read in (lambda: list(read_shards([tmp_path], TOKEN_SCHEMA)), lambda: read_metadata([tmp_path])):
        with pytest.raises(BadInput, match=r"shard-00000\.parquet"):
            read()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tokens": [[1]]}, "has no column caption"),
        ({"tokens": ["1 2"], "caption": ["x"]}, "cannot be read as a shard"),
        ({"tokens": [["one"]], "caption": ["x"]}, "cannot be read as a shard"),
        ({"tokens": [[2**40]], "caption": ["x"]}, "cannot be read as a shard"),
        ({"tokens": [None], "caption": ["x"]}, "1 rows without tokens"),
        ({"tokens": [[None]], "caption": ["x"]}, "1 rows without tokens"),
        ({"tokens": [[1]], "caption": pa.array([None], pa.string())}, "1 rows without caption"),
        ({"tokens": [[1]], "caption": [{"a": 1}]}, "cannot be read as a shard"),
        ({"tokens": [[1]], "caption": pa.array([b"\xff"]).cast(pa.binary())}, "cannot be read as a shard"),
    ],
)
def test_columns_of_another_kind_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    folder = shard(tmp_path, pa.table(columns))
    with pytest.raises(BadInput, match=rf"shard-00000\.parquet.*{message}"):
        list(read_shards([folder], TOKEN_SCHEMA))


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40), None])
def test_images_that_cannot_be_read_are_named(tmp_path: Path, data: bytes | None) -> None:
    rows = [{"image": {"bytes": data, "path": "x.png"}, "caption": "a ring"}]
    write_shards(rows, tmp_path / "images", IMAGE_SCHEMA)
    with pytest.raises(BadInput, match="unreadable image with caption 'a ring'"):
        list(read_images([tmp_path / "images"]))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"codebook_size": "many"}, "use many codes"),
        ({"codebook_size": "9" * 5000}, "has 64"),
        ({"codebook_size": "32"}, "use 32 codes"),
        ({"encoder": "x"}, "made with encoder x"),
    ],
)
def test_metadata_of_shards_that_does_not_fit(
    visual: Path, tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    write_shards([ROW], tmp_path / "tokens", TOKEN_SCHEMA, metadata=metadata)
    with pytest.raises(BadInput, match=message):
        check_tokens([tmp_path / "tokens"], visual)


def test_metadata_that_is_no_text(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([ROW], TOKEN_SCHEMA).replace_schema_metadata({b"\xff": b"\xfe"})
    with pytest.raises(BadInput, match=r"shard-00000\.parquet"):
        read_metadata([shard(tmp_path, table)])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "rows of 0 tokens"),
        ([1, 2, 3], "rows of 3 tokens"),
        ([1, 2, 3, 64], "have the code 64"),
        ([1, -2, 3, 4], "have the code -2"),
    ],
)
def test_tokens_that_no_image_has(visual: Path, tmp_path: Path, tokens: list[int], message: str) -> None:
    write_shards([{"tokens": tokens, "caption": "a ring"}], tmp_path / "tokens", TOKEN_SCHEMA)
    with pytest.raises(BadInput, match=message):
        pretrain([tmp_path / "tokens"], visual, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_text_tokenizer_without_the_control_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    write_shards([ROW], tmp_path / "tokens", TOKEN_SCHEMA)
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(BadInput, match=r"lacks <\|t2i\|>, <\|soi\|>"):
        TokenDataset([tmp_path / "tokens"], plain, OPTIONS)
    TokenDataset([tmp_path / "tokens"], build_text_tokenizer(["a", "ring"]), OPTIONS)


@pytest.mark.parametrize("text", ["{", "[1]", '{"model_type": "llama"}', '{"vocab_size": "x"}', "[" * 9999])
def test_sft_from_a_broken_checkpoint(visual: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=r"config\.json|cannot be loaded for training"):
        sft(tmp_path, [tmp_path], visual, tmp_path / "out", OPTIONS)


def test_the_end_lies_before_the_schedules() -> None:
    with pytest.raises(BadInput, match="--stop-at is 5, after the end of the schedule, --steps 4"):
        DecoderOptions(steps=4, stop_at=5)
    assert DecoderOptions(steps=4, stop_at=4).stop_at == 4


def test_images_that_the_tokenizer_does_not_take(visual: Path, tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", 2, style="clean", seed=0)
    other = tmp_path / "visual"
    shutil.copytree(visual, other)
    (other / "config.json").write_text(json.dumps({"codebook_size": 2, "downsample": 8}))
    with pytest.raises(BadInput, match="says that there are 2"):
        tokenize([tmp_path / "scenes"], other, tmp_path / "out")
    (other / "config.json").write_text(json.dumps({"codebook_size": 64, "downsample": 7}))
    with pytest.raises(BadInput, match=r"2 does_not_fit.*64x64 pixels: no multiples of 7; say --size"):
        tokenize([tmp_path / "scenes"], other, tmp_path / "out-7")
    shutil.copy(visual / "decoder.jit", other / "encoder.jit")
    shutil.copy(visual / "config.json", other / "config.json")
    with pytest.raises(BadInput, match=r"encoder\.jit does not turn images into codes"):
        tokenize([tmp_path / "scenes"], other, tmp_path / "out-swapped")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes and a tokenizer that was trained on them."""
    folder = tmp_path_factory.mktemp("trained")
    make_scenes(folder / "scenes", 2, style="clean", seed=0)
    train_tokenizer([folder / "scenes"], folder / "out", SMALL)
    return folder


def _middle_bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


STATES: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("no state"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "flipped": lambda path: path.write_bytes(_middle_bit_flipped(path.read_bytes())),
    "list": lambda path: torch.save([1, 2], path),
    "foreign": lambda path: torch.save({"options": Path}, path),
    "other": lambda path: torch.save(torch.load(path, weights_only=True) | {"model": {}}, path),
}


@pytest.mark.parametrize("damage", STATES)
def test_a_damaged_state_of_the_tokenizer(trained: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.pt"
    shutil.copy(trained / "out" / "state.pt", path)
    STATES[damage](path)
    with pytest.raises(BadInput, match=r"state\.pt (is damaged|is no state|does not fit).*remove it"):
        train_tokenizer([trained / "scenes"], tmp_path, SMALL)


@pytest.mark.parametrize(
    "damage", ["trainer_state.json", "optimizer.pt", "rng_state.pth", "model.safetensors"]
)
def test_a_damaged_state_of_the_decoder(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 2}')
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"a": torch.zeros(64)}, folder / name)
    assert _last_state(tmp_path) == str(folder)
    data = (folder / damage).read_bytes()
    (folder / damage).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=damage):
        _last_state(tmp_path)


def test_states_without_a_step_are_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-x").mkdir()
    assert _last_state(tmp_path) is None


def test_a_curve_that_was_cut_off_is_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "loss.jsonl"
    lines = [
        '{"step": 1}',
        "",
        "[" * 9999,
        '{"step": "x"}',
        "5",
        '{"step": 9}',
        '{"step": 2}',
        '{"step": 3, "lo',
    ]
    path.write_text("\n".join(lines))
    trim_curve(path, 5)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("text", ["{", "[" * 9999, '{"steps": NaN}', "[]"])
def test_edited_options_of_a_state(visual: Path, tmp_path: Path, text: str) -> None:
    write_shards([ROW], tmp_path / "tokens", TOKEN_SCHEMA)
    (tmp_path / "out" / "state" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "out" / "state" / "options.json").write_text(text)
    with pytest.raises(BadInput, match="options"):
        pretrain([tmp_path / "tokens"], visual, tmp_path / "out", replace(OPTIONS, steps=2))


def test_an_output_that_is_a_file(visual: Path, tmp_path: Path) -> None:
    write_shards([ROW], tmp_path / "tokens", TOKEN_SCHEMA)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BadInput, match="cannot be made a folder"):
        pretrain([tmp_path / "tokens"], visual, tmp_path / "out", OPTIONS)
    with pytest.raises(BadInput, match="cannot be made a folder"):
        train_tokenizer([tmp_path], tmp_path / "out", SMALL)
    with pytest.raises(BadInput, match=r"cannot make the folder|already has"):
        make_scenes(tmp_path / "out" / "below", 1, style="clean", seed=0)
    assert (tmp_path / "out").read_text() == "mine"

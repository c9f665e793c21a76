"""Draws of a set again: the same pixels, or a word on why not."""

import json
from pathlib import Path
from typing import Any

import pytest

from sar_eval.cli.draw import draw
from sar_eval.errors import BadInput, GateFailed, Incomplete, SpecMismatch
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.synthesis.begin import SetRequest, begin_set, stored_spec
from sar_eval.synthesis.block import BlockTask
from sar_eval.synthesis.draw_again import parse_keys
from sar_eval.synthesis.selection import Selection
from sar_eval.synthesis.spec import SetSpec

PAINTER = """
import os

import numpy as np

from sar_eval.images.files import encode_png
from sar_eval.types import Generation


class Painter:
    version = "1"

    def __init__(self, checkpoint, protocol, *, device, dtype, batch_size):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def generate(self, draws):
        for draw in draws:
            colour = np.random.default_rng(draw.seed + int(os.environ.get("SAR_EVAL_TEST_SHIFT", 0)))
            pixels = colour.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            yield Generation(draw.key, draw.seed, image=encode_png(pixels))


ENGINE = Painter
"""
LINES = ('{"text": "a ring"}', '{"text": "a ring", "id": "ring"}', "{", '"a box"', '"a ball"')


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetSpec:
    """A set of five rows in blocks of two, the last of which is not drawn yet."""
    monkeypatch.chdir(tmp_path)
    Path("painter.py").write_text(PAINTER)
    Path("p.jsonl").write_text("\n".join(LINES))
    request = SetRequest(
        prompts="p.jsonl",
        checkpoint="demo:sft",
        drawing={"engine": f"{tmp_path}/painter.py:Painter", "images_per_prompt": 2, "seed": 3},
        selection=Selection(top=1),
        out="set",
        block_prompts=2,
    )
    image_set, spec = begin_set(request)
    with BlockTask(image_set.store.uri, spec).open(WorkerSlot(0)) as run:
        for block in (0, 1):
            assert run(block).result().committed
    return spec


def _draw(uri: str, keys: list[str], **options: Any) -> None:
    """The command, told that the set's code may run."""
    draw(uri, keys, code=stored_spec(ImageSet(open_store(uri))).code, **options)


def test_pictures_are_those_of_the_manifest(
    drawn: SetSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _draw("set", ["3", "0/1"], out=tmp_path / "again", as_json=True)
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [fact["key"] for fact in facts] == ["0/1", "3/0", "3/1"]
    assert [fact["fate"] for fact in facts] == ["outranked", "kept", "outranked"]
    assert all(fact["same"] for fact in facts)
    assert facts[1]["text"] == "a box"
    assert (tmp_path / "again" / "000000000003-0000.png").read_bytes().startswith(b"\x89PNG")


def test_other_pixels_are_told_and_fail(
    drawn: SetSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAR_EVAL_TEST_SHIFT", "1")
    with pytest.raises(GateFailed, match="2 of 2 pictures have other pixels"):
        _draw("set", ["1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1/0  kept  drawn/000000000001-0000.png, OTHER PIXELS")
    assert lines[0].endswith("'a ring'")


def test_bad_rows_and_blocks_to_come(drawn: SetSpec, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Incomplete, match="1 of 2 pictures could not be drawn"):
        _draw("set", ["2/0", "4/0"])
    bad, new = capsys.readouterr().out.splitlines()
    assert bad.startswith("2/0  failed  no picture: broken JSON")
    assert new.startswith("4/0  not in the set yet  drawn/000000000004-0000.png, nothing to compare")


def test_keys_that_are_none(drawn: SetSpec) -> None:
    for word, message in (
        ("5/0", "5/0: the set has the rows 0 to 4"),
        ("0/2", "each prompt of the set has the draws 0 to 1"),
        ("ring/0", "'ring/0' is no key: ROW/INDEX"),
        ("-1/0", "is no key"),
        ("1/", "is no key"),
        ("\u0661/0", "is no key"),
    ):
        with pytest.raises(BadInput, match=message):
            parse_keys([word], drawn)


def test_keys_are_sorted_and_drawn_once(drawn: SetSpec) -> None:
    assert parse_keys(["3/1", "0", "0/1"], drawn) == [(0, 0), (0, 1), (3, 1)]


def test_other_files_are_refused(drawn: SetSpec, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="demo:sft-short is not the one that the set was drawn with"):
        _draw("set", ["0"], ckpt="demo:sft-short")
    Path("p.jsonl").rename("moved.jsonl")
    with pytest.raises(BadInput, match=r"no file .*p\.jsonl; --prompts names the file elsewhere"):
        _draw("set", ["0"])
    _draw("set", ["0"], prompts="moved.jsonl")
    Path("moved.jsonl").write_text("\n".join(LINES).replace("ring", "rung"))
    with pytest.raises(SpecMismatch, match=r"moved\.jsonl is not the prompt file"):
        _draw("set", ["0"], prompts="moved.jsonl")


def test_a_damaged_manifest_is_named(drawn: SetSpec) -> None:
    [path] = Path("set/manifest").glob("part-000000000-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(
        BadInput, match=r"part-000000000-\w+\.parquet is damaged: run `sar-eval synth verify`"
    ):
        _draw("set", ["0"])


def test_an_empty_name_is_no_set() -> None:
    with pytest.raises(BadInput, match="an empty address"):
        draw("", ["0"])

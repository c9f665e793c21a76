"""`synth card` and `synth repack` on the command line."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sar_eval.cli import synth_product
from sar_eval.errors import BadInput
from sar_eval.storage.set_reader import open_set
from tests.small_sets import make_set

app = typer.Typer()
synth_product.register(app)


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_card_and_a_copy_of_a_set(tmp_path: Path) -> None:
    made = make_set(tmp_path / "set", keep="tokens")
    out = run("card", tmp_path / "set", "--licence", "mit", "--title", "Rings")
    assert f"card in {tmp_path}/set/README.md" in out
    options = ("--rows", "3", "--layout", "webdataset")
    out = run("repack", tmp_path / "set", "--out", tmp_path / "copy", *options)
    assert f"8 rows in 3 objects in {tmp_path}/copy" in out
    assert [row for _, _, row in open_set(tmp_path / "copy").rows()] == made
    card = (tmp_path / "copy" / "README.md").read_text()
    assert "license: mit\npretty_name: Rings\n" in card
    assert "data/*.tar" in card
    assert "manifest/*.parquet" not in card


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_set(tmp_path / "set")
    for words, message in {
        ("card", tmp_path): "is no set",
        ("repack", tmp_path / "set", "--out", tmp_path / "copy", "--layout", "zip"): "--layout is 'zip'",
        ("repack", tmp_path / "set", "--out", tmp_path / "set"): "holds a set that was drawn there",
        ("card", tmp_path / "set", "--push", "set"): "--push is 'set': ORG/NAME",
        ("card", tmp_path / "set", "--private"): "--private is of the repository of --push",
        ("card", tmp_path / "set", "--push", "org/set"): "--push org/set: the hub may not be asked",
    }.items():
        with pytest.raises(BadInput, match=message):
            run(*words)

"""`synth verify` and `synth clean` on the command line."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sar_eval.cli import synth_verify
from sar_eval.errors import BadInput, Incomplete
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from tests.small_sets import make_set
from tests.synth_sets import contents, request, synthesise, write_prompts

app = typer.Typer()
synth_verify.register(app)


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_is_missing_is_named_and_taken_back(tmp_path: Path) -> None:
    make_set(tmp_path / "set")
    assert "0 objects" not in run("verify", tmp_path / "set")
    victim = min((tmp_path / "set" / "data").iterdir())
    victim.write_bytes(victim.read_bytes()[:-9])
    with pytest.raises(Incomplete, match=r"1 objects are missing or damaged: .* --repair"):
        run("verify", tmp_path / "set", "--quick")
    with pytest.raises(Incomplete, match="taken back"):
        run("verify", tmp_path / "set", "--repair")
    found = json.loads(run("verify", tmp_path / "set", "--json"))
    assert found["problems"] == []
    assert not victim.exists()


def test_what_cannot_be(tmp_path: Path) -> None:
    for words, message in {
        ("verify", tmp_path): "is no set",
        ("clean", tmp_path): "is no set",
        ("verify", ""): "an empty address",
    }.items():
        with pytest.raises(BadInput, match=message):
            run(*words)


@pytest.mark.slow
def test_the_next_start_draws_the_same_bytes(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", [f"thing number {n}" for n in range(10)])
    asked = request(prompts, str(tmp_path / "set"))
    synthesise(asked)
    before = contents(tmp_path / "set")
    data, manifest = (sorted((tmp_path / "set" / kind).iterdir()) for kind in ("data", "manifest"))
    data[0].unlink()
    manifest[2].write_bytes(b"PAR1")
    with pytest.raises(Incomplete, match="2 objects are missing or damaged"):
        run("verify", tmp_path / "set", "--repair")
    assert ImageSet(open_store(tmp_path / "set")).finished() == {1}
    assert synthesise(asked)[1].committed == 2
    assert contents(tmp_path / "set") == before
    assert "0 objects removed" in run("clean", tmp_path / "set", "--older-than", "0")

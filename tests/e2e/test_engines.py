"""Engines and their options from the command line: the same images by every way."""

import json
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
RUN = ("run", "shapes", "--ckpt", "demo:sft", "-n", 1, "--workers", 1, "--json")


def _tokens(folder: Path) -> dict[str, tuple[int, ...]]:
    drawn = pd.read_parquet(folder / "generations").set_index("key")
    return {key: tuple(tokens) for key, tokens in drawn["tokens"].items()}


def test_every_way_gives_the_same_run(sar_eval, suite: Path, tmp_path: Path) -> None:
    ways = {
        "native": (),
        "hf": ("--engine", "hf"),
        "speculated": ("--speculate", "--image-format", "webp", "--engine-option", "window=4"),
    }
    told = {}
    for name, words in ways.items():
        done = sar_eval(*RUN, "--suite", suite, "--out", tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
        told[name] = json.loads(done.stdout)
        assert _tokens(tmp_path / name) == _tokens(tmp_path / "native")
        assert told[name]["metrics"] == told["native"]["metrics"]
    assert told["speculated"]["steps_per_image"] < 63 / 1.5 < told["native"]["steps_per_image"] == 63
    assert told["speculated"]["spec_digest"] == told["native"]["spec_digest"] != told["hf"]["spec_digest"]


def test_a_run_may_go_on_with_speculation_but_not_with_another_vocabulary(
    sar_eval, suite: Path, tmp_path: Path
) -> None:
    words = (*RUN, "--suite", suite, "--out", tmp_path / "run")
    assert sar_eval(*words, "--batch-size", 4).returncode == 0
    [last] = sorted((tmp_path / "run" / "generations").glob("part-*.parquet"))[-1:]
    before = _tokens(tmp_path / "run")
    last.unlink()
    done = sar_eval(*words, "--speculate")
    assert done.returncode == 0, done.stderr
    assert _tokens(tmp_path / "run") == before
    refused = sar_eval(*words, "--full-vocab")
    assert refused.returncode == 2
    assert "full_vocab" in refused.stderr


def test_a_preset_is_named_in_the_summary(sar_eval, suite: Path, tmp_path: Path) -> None:
    words = (*RUN, "--suite", suite, "--out", tmp_path / "run", "--protocol", "simplear-paper")
    done = sar_eval(*words, "--guidance", 1.5, "--truncate")
    assert done.returncode == 0, done.stderr
    protocol = json.loads(done.stdout)["protocol"]
    named = {name: protocol[name] for name in ("name", "prefixes", "guidance", "truncate", "resolution")}
    expected = {"prefixes": "simplear", "guidance": 1.5, "truncate": True, "resolution": 64}
    assert named == {"name": "simplear-paper+", **expected}
    unknown = sar_eval(*RUN, "--protocol", "simpelar")
    assert unknown.returncode == 2
    assert "unknown protocol 'simpelar'; did you mean 'simplear'?" in unknown.stderr

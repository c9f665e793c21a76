"""Engines and their options on the command line: all give the same images."""

import json
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
RUN = ("run", "shapes", "--ckpt", "demo:sft", "-n", 1, "--workers", 1, "--json")


def _tokens(folder: Path) -> dict[str, tuple[int, ...]]:
    generations = pd.read_parquet(folder / "generations").set_index("key")
    return {key: tuple(tokens) for key, tokens in generations["tokens"].items()}


def test_every_engine_gives_the_same_run(sar_eval, suite: Path, tmp_path: Path) -> None:
    variants = {
        "native": (),
        "hf": ("--engine", "hf"),
        "speculative": ("--speculate", "--image-format", "webp", "--engine-option", "window=4"),
    }
    summaries = {}
    for name, words in variants.items():
        done = sar_eval(*RUN, "--suite", suite, "--out", tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
        summaries[name] = json.loads(done.stdout)
        assert _tokens(tmp_path / name) == _tokens(tmp_path / "native")
        assert summaries[name]["metrics"] == summaries["native"]["metrics"]
    steps = {name: summary["steps_per_image"] for name, summary in summaries.items()}
    assert steps["speculative"] < 63 / 1.5 < steps["native"] == 63
    digests = {name: summary["spec_digest"] for name, summary in summaries.items()}
    assert digests["speculative"] == digests["native"] != digests["hf"]


def test_a_run_may_be_resumed_with_speculation_but_not_with_another_vocabulary(
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
    expected = {"prefixes": "simplear", "guidance": 1.5, "truncate": True, "resolution": 64}
    assert protocol.items() >= {"name": "simplear-paper+", **expected}.items()
    unknown = sar_eval(*RUN, "--protocol", "simpelar")
    assert unknown.returncode == 2
    assert "unknown protocol 'simpelar'; did you mean 'simplear'?" in unknown.stderr

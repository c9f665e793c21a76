"""A run.json with values that sar-eval would not write, or that somebody changed."""

import json
from pathlib import Path

import pytest

from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt
from tests.stored_runs import begin_run, store_generations, store_verdicts

PROMPTS = [Prompt(f"p{i}", "a red ring", "colors") for i in range(3)]
KEYS = [f"{prompt.id}/0" for prompt in PROMPTS]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A finished run."""
    spec, folder = begin_run(tmp_path / "run", PROMPTS, images_per_prompt=1)
    store_generations(spec, folder, {key: key.encode() for key in KEYS})
    store_verdicts(spec, folder, dict.fromkeys(KEYS, 1.0))
    return folder


BAD_VALUES = [
    ("spec", None, "spec: Expected `object`, got `null`"),
    ("spec", [], "spec: Expected `object`, got `array`"),
    ("spec.batch_size", "x", "batch_size: Expected `int`, got `str` (it is 'x')"),
    ("spec.batch_size", 0, "batch-size is 0"),
    ("spec.images_per_prompt", 10**19, "images-per-prompt is 10000000000000000000|images_per_prompt: "),
    ("spec.engine_options", [], "engine_options: Expected `object`, got `array`"),
    ("spec.judge_options", 3, "judge_options: Expected `object`"),
    ("spec.fold", {"a": 1}, "fold: Expected `str`"),
    ("spec.protocol", None, "protocol: Expected `object`"),
    ("spec.protocol.top_p", "1", "protocol.top_p: Expected `float`"),
    ("spec.checkpoint", 1.5, "checkpoint: Expected `str`"),
    ("spec.seed", 1.5, "seed: Expected `int`"),
    ("spec.unheard_of", 1, "was written by another version of sar-eval (spec.unheard_of)"),
    ("digest", 5, "digest: Expected `str`"),
    ("versions", [], "versions: Expected `object`"),
    ("prompts", "x", "prompts: Expected `object | null`"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD_VALUES, ids=[str(v[:2]) for v in BAD_VALUES])
def test_a_wrong_value_in_run_json_is_named(
    sar_eval_here, folder: RunFolder, key: str, value: object, message: str
) -> None:
    path = folder.path / "run.json"
    manifest = json.loads(path.read_text())
    *parents, last = key.split(".")
    table = manifest
    for name in parents:
        table = table[name]
    table[last] = value
    path.write_text(json.dumps(manifest))
    code, output = sar_eval_here("summarize", folder.path)
    assert code == 2
    assert "run.json" in output
    assert any(part in output.replace("\n", " ") for part in message.split("|", 1)) or message in output


def _edit(folder: RunFolder, key: str, value: object) -> None:
    """Change a value of run.json as an editor does: its checksum stays."""
    path = folder.path / "run.json"
    manifest = json.loads(path.read_text())
    table = manifest["spec"] if key in manifest["spec"] else manifest
    table[key] = value
    path.write_text(json.dumps(manifest))


EDITS = [
    ("fold", ""),
    ("judge", ""),
    ("fold", "geneval"),
    ("checkpoint", "demo:pretrain"),
    ("benchmark", "dpg"),
]
EDITS += [
    ("judge_options", {"threshold": 0.1}),
    ("shard", {"index": 1, "of": 1}),
    ("earlier_digests", ["0"]),
]


@pytest.mark.parametrize(("key", "value"), EDITS)
def test_what_no_other_digest_covers_cannot_be_edited(
    sar_eval_here, folder: RunFolder, key: str, value: object
) -> None:
    """Else a run without a fold or judge would end well, with no score, and a label is what it says."""
    assert sar_eval_here("summarize", folder.path)[0] == 0
    _edit(folder, key, value)
    for command in ("summarize", "report", "verify", "judge"):
        code, output = sar_eval_here(command, folder.path)
        assert (code, "run.json was changed after sar-eval wrote it" in output) == (2, True), output
    code, output = sar_eval_here("join", folder.path, "--out", folder.path.parent / "joined")
    assert (code, "run.json was changed" in output) == (2, True), output


def test_a_benchmark_named_again_stands_for_an_edited_manifest(sar_eval_here, folder: RunFolder) -> None:
    _edit(folder, "fold", "")
    code, output = sar_eval_here("summarize", folder.path, "--benchmark", "shapes")
    assert (code, "note: " in output, "correct images" in output) == (0, True, True), output


@pytest.mark.parametrize(
    "shard", [{"index": 1, "of": 0}, {"index": 0, "of": 2}, {"index": 10**18, "of": 2}]
)
@pytest.mark.parametrize("command", ["summarize", "verify", "judge"])
def test_shards_that_there_are_not(sar_eval_here, folder: RunFolder, command: str, shard: dict) -> None:
    _edit(folder, "shard", shard)
    code, output = sar_eval_here(command, folder.path)
    assert (code, "there is no shard" in output) == (2, True), output

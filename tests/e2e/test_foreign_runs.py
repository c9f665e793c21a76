"""Run folders that are not what they say: parts of other runs, changed prompts, files that would be run."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.runtime.local import LocalRuntime
from sar_eval.spec import RunSpec
from sar_eval.stages.export import export
from sar_eval.stages.generate import generate
from sar_eval.stages.join import join
from sar_eval.stages.judge import judge
from sar_eval.stages.resume import prepare
from sar_eval.stages.summarize import summarize
from sar_eval.stages.verify import verify
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Prompt
from tests.stored_runs import begin_run, make_spec, store_generations, store_verdicts

PROMPTS = [Prompt(f"p{i}", "a red ring", "colors" if i % 2 else "counting") for i in range(6)]
KEYS = [f"p{i}/{j}" for i in range(6) for j in range(2)]
SCORES = {key: float(n % 3 > 0) for n, key in enumerate(KEYS)}


def _images(text: str) -> dict[str, bytes]:
    return {key: f"{text} {key}".encode() for key in KEYS}


def _run(path: Path, images: str = "ours", **changes) -> tuple[RunSpec, RunFolder]:
    """A finished run in blocks of four."""
    spec, folder = begin_run(path, PROMPTS, **{"images_per_prompt": 2, "batch_size": 4, **changes})
    store_generations(spec, folder, _images(images))
    store_verdicts(spec, folder, SCORES)
    return spec, folder


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunSpec, RunFolder]:
    return _run(tmp_path / "run")


OTHERS = [{"checkpoint_digest": "1"}, {"seed": 7}, {"engine_options": {"full_vocab": True}}]


@pytest.mark.parametrize("changes", OTHERS)
@pytest.mark.parametrize("stage", [summarize, generate, judge])
def test_generations_of_another_run_are_never_adopted(
    run, tmp_path: Path, stage: Callable, changes: dict
) -> None:
    spec, folder = run
    _, other = _run(tmp_path / "other", "theirs", **changes)
    part = other.generations.paths()[1]
    own = folder.generations.paths()[1]
    own.unlink()
    shutil.copy(part, own.parent)
    arguments = (spec, folder) if stage is summarize else (spec, folder, LocalRuntime([]))
    with pytest.raises(SpecMismatch, match=f"{part.name} was drawn for the spec"):
        stage(*arguments)
    assert (own.parent / part.name).exists()  # it is somebody's work


def test_parts_without_their_manifest_are_refused(run) -> None:
    spec, folder = run
    (folder.path / "run.json").unlink()
    with pytest.raises(BadInput, match=r"holds parts of a run, but no run\.json"):
        prepare(replace(spec, checkpoint_digest="another"), folder)


def test_verdicts_on_other_images_do_not_count(run, tmp_path: Path) -> None:
    """Same draws, same judge, other pictures: by its image's digest a verdict is known to be on another."""
    spec, folder = run
    assert summarize(spec, folder).complete
    _, other = _run(tmp_path / "other", "theirs")
    shutil.rmtree(folder.path / "verdicts")
    shutil.copytree(other.path / "verdicts", folder.path / "verdicts")
    summary = summarize(spec, folder)
    assert (summary.judged, summary.failed) == (0, 12)
    assert summary.problems[0] == "p0/0: not judged"


def test_verdicts_stay_with_the_images_that_stayed(run) -> None:
    """A block that was redone because one draw had failed: the verdicts on the others hold."""
    spec, folder = run
    changed = _images("ours") | {"p0/1": b"drawn anew"}
    store_generations(spec, folder, changed)
    summary = summarize(spec, folder)
    assert (summary.judged, summary.problems) == (11, ("p0/1: not judged",))


@pytest.mark.parametrize("change", [{"tag": "position"}, {"split": "seen"}, {"text": "x"}, {"checks": {}}])
def test_changed_prompts_change_no_score(run, change: dict) -> None:
    spec, folder = run
    folder.write_prompts([replace(PROMPTS[0], **change), *PROMPTS[1:]])
    with pytest.raises(BadInput, match=r"prompts\.parquet is not what the run was begun with"):
        summarize(spec, folder)
    folder.write_prompts(PROMPTS[:-1])
    with pytest.raises(BadInput, match=r"prompts\.parquet is not what the run was begun with"):
        summarize(spec, folder)


def test_damaged_prompts_are_made_again_from_the_suite(tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text("\n".join(json.dumps({"id": p.id, "text": p.text, "tag": p.tag}) for p in PROMPTS))
    spec, folder = begin_run(tmp_path / "run", PROMPTS, suite=str(suite))
    (folder.path / "prompts.parquet").write_bytes(b"PAR1")
    prepare(spec, folder)
    assert list(folder.prompts()) == PROMPTS
    (folder.path / "prompts.parquet").unlink()
    suite.write_text('{"text": "another"}')
    with pytest.raises(BadInput, match="no readable table of prompts"):
        prepare(spec, folder)


@pytest.mark.parametrize("change", [("value", 0.99), ("n", 5), ("name", "overall2")])
def test_a_changed_summary_is_told(run, change: tuple[str, object]) -> None:
    spec, folder = run
    summarize(spec, folder)
    assert folder.read_summary()["complete"]
    path = folder.path / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"][0][change[0]] = change[1]
    path.write_text(json.dumps(summary))
    with pytest.raises(BadInput, match="is not what sar-eval wrote"):
        folder.read_summary()


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_not_folded(run, score: float) -> None:
    spec, folder = run
    store_verdicts(spec, folder, SCORES | {"p1/0": score})
    with pytest.raises(BadInput, match=f"the score of p1/0 is {score}"):
        summarize(spec, folder)


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_figures_that_overflow_are_refused(run) -> None:
    """Each score is a number, their interval is none."""
    spec, folder = run
    store_verdicts(spec, folder, SCORES | {KEYS[0]: 1e308, KEYS[3]: -5.0})
    with pytest.raises(BadInput, match="stored scores are out of all range"):
        summarize(spec, folder)


def test_rows_of_other_draws_are_refused(run) -> None:
    spec, folder = run
    part = folder.generations.parts()[0]
    rows = folder.generations.read(part.path).to_pylist()
    rows[1]["key"] = "../../p"
    folder.write_generations(0, rows, spec.digest)
    with pytest.raises(BadInput, match=r"has a row '../../p' where p0/1 belongs"):
        summarize(spec, folder)
    assert "where p0/1 belongs" in verify(spec, folder).problems[0]


def test_a_run_of_nothing_is_not_complete(tmp_path: Path) -> None:
    spec, folder = begin_run(tmp_path / "run", [])
    summary = summarize(spec, folder)
    assert (summary.expected, summary.complete, summary.metrics) == (0, False, ())


def test_parts_of_blocks_that_the_run_does_not_have_are_refused(run) -> None:
    spec, folder = run
    [*_, last] = folder.generations.paths()
    shutil.copy(last, last.parent / last.name.replace("part-000002", "part-000009"))
    with pytest.raises(SpecMismatch, match="is of block 9, but the run has 3"):
        summarize(spec, folder)


def test_mixed_devices_are_named_where_dtype_rounds(tmp_path: Path) -> None:
    for dtype, named in (("float32", ()), ("bfloat16", ("A100, wave size 8", "H100, wave size 64"))):
        spec, folder = begin_run(tmp_path / dtype, PROMPTS, dtype=dtype, images_per_prompt=2, batch_size=6)
        store_generations(spec, folder, _images("ours"))
        for number, (device, wave) in enumerate([("H100", 64), ("A100", 8)]):
            rows = folder.generations.read_block(number)
            for row in rows:
                row["provenance"] = json.dumps({"device": device, "wave_size": wave})
            folder.write_generations(number, rows, spec.digest)
        assert summarize(spec, folder).devices == named


# A run folder from a stranger.

EVIL = "from pathlib import Path\nPath({!r}).touch()\nfrom sar_eval.{} import {} as X\n"


@pytest.fixture
def evil(run, tmp_path: Path) -> tuple[RunFolder, str, Path]:
    """A run whose run.json can name a file, that file, and what it would write."""
    pwned = tmp_path / "PWNED"
    (tmp_path / "evil.py").write_text(EVIL.format(str(pwned), "benchmarks.shapes", "ShapesFold"))
    return run[1], f"{tmp_path / 'evil.py'}:X", pwned


def _name(folder: RunFolder, **changes: object) -> None:
    manifest = folder.read_manifest()
    folder.write_manifest(replace(manifest, spec={**manifest.spec, **changes}))


@pytest.mark.parametrize("command", ["report", "summarize", "judge", "export"])
@pytest.mark.parametrize("field", ["fold", "judge", "engine", "answerer"])
def test_files_named_by_a_run_folder_are_not_run(sar_eval_here, evil, command: str, field: str) -> None:
    folder, file, pwned = evil
    vqa = {"judge": "vqa", "judge_options": {"answerer": file}}
    _name(folder, **(vqa if field == "answerer" else {field: file}))
    words = ["--layout", "folder", "--out", folder.path / "out"] if command == "export" else []
    code, output = sar_eval_here(command, folder.path, *words)
    assert not pwned.exists(), output
    refused = field != "engine" and command != "export" and not (field != "fold" and command != "judge")
    if refused:
        assert code == 2
        assert "which is code and would be run" in output


def test_a_file_named_again_is_run(sar_eval_here, evil, tmp_path: Path) -> None:
    folder, file, pwned = evil
    _name(folder, fold=file)
    (tmp_path / "mine.toml").write_text(f"suite = 'suite.jsonl'\njudge = 'shapes'\nfold = {file!r}\n")
    code, output = sar_eval_here("summarize", folder.path, "--benchmark", tmp_path / "mine.toml")
    assert (code, pwned.exists()) == (0, True), output


def test_a_key_is_sent_only_where_the_command_says(
    sar_eval_here, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a stranger's run folder gets any variable of the environment sent to the stranger's server."""
    folder = run[1]
    monkeypatch.setenv("MY_TOKEN", "secret")
    options = {
        "answerer": "server",
        "url": "http://127.0.0.1:9/v1",
        "model": "m",
        "api_key_env": "MY_TOKEN",
    }
    _name(folder, judge="vqa", judge_options=options)
    code, output = sar_eval_here("judge", folder.path)
    assert (code, "says to send what is in MY_TOKEN to http://127.0.0.1:9" in output) == (2, True), output
    code, output = sar_eval_here("judge", folder.path, "--judge-option", "api_key_env=MY_TOKEN")
    assert "says to send" not in output


def test_a_resume_runs_no_file_of_the_folder(evil, tmp_path: Path) -> None:
    """`generate` into a folder whose run.json names a judge keeps that judge, but must not run it."""
    folder, file, pwned = evil
    stored = RunSpec.from_json(folder.read_manifest().spec)
    _name(folder, fold=file)
    with pytest.raises(BadInput, match="which is code and would be run"):
        prepare(replace(stored, judge="", fold=""), folder)
    assert not pwned.exists()


@pytest.mark.parametrize("changes", [{"judge_version": "2"}, {"judge_options": {"threshold": 0.9}}])
def test_verdicts_of_another_judge_are_not_folded(run, changes: dict) -> None:
    spec, folder = run
    changed = replace(spec, **changes)
    folder.write_manifest(replace(folder.read_manifest(), spec=changed.to_json()))
    with pytest.raises(BadInput, match="holds verdicts given under other options"):
        summarize(changed, folder)
    assert "given under other options" in verify(changed, folder).problems[0]


def test_judge_options_that_are_refused_leave_the_run_as_it_was(run) -> None:
    """Else its next summary shows the old verdicts as given under the new options."""
    spec, folder = run
    before = (folder.path / "run.json").read_bytes()
    with pytest.raises(BadInput, match="holds verdicts given under other options"):
        prepare(replace(spec, judge_options={"threshold": 0.9}), folder)
    assert (folder.path / "run.json").read_bytes() == before


@pytest.mark.parametrize("layout", ["folder", "geneval", "dpg"])
def test_images_of_another_run_are_not_exported(tmp_path: Path, layout: str) -> None:
    png = b"\x89PNG\r\n\x1a\n"
    _, folder = begin_run(tmp_path / "run", PROMPTS, images_per_prompt=1)
    spec, other = begin_run(tmp_path / "other", PROMPTS, images_per_prompt=1, checkpoint_digest="1")
    store_generations(spec, other, {f"p{i}/0": png for i in range(6)})
    shutil.copytree(other.path / "generations", folder.path / "generations")
    with pytest.raises(SpecMismatch, match="was drawn for the spec"):
        export(folder, layout, tmp_path / "out")


def test_shards_judged_under_other_options_are_not_joined(run, tmp_path: Path) -> None:
    _, folder = run
    _, other = _run(tmp_path / "other", judge_options={"threshold": 0.9})
    with pytest.raises(SpecMismatch, match="its judge_options is another"):
        join([folder, other], RunFolder(tmp_path / "joined"))
    assert not (tmp_path / "joined" / "verdicts").exists()


def test_verify_knows_the_prompts_by_the_suite(run) -> None:
    """Prompts that were replaced together with their digest in run.json."""
    spec, folder = run
    stored = folder.write_prompts([replace(PROMPTS[0], tag="position"), *PROMPTS[1:]])
    folder.write_manifest(replace(folder.read_manifest(), prompts=stored))
    assert "holds other prompts than the run was begun with" in verify(spec, folder).problems[0]


@pytest.mark.parametrize("kind", ["/dev/zero", "a pipe", "a folder", "a dangling link"])
@pytest.mark.parametrize("table", ["generations", "verdicts"])
def test_parts_that_are_no_files_are_named(run, table: str, kind: str) -> None:
    spec, folder = run
    part = (folder.generations if table == "generations" else folder.verdicts(spec.judge)).paths()[1]
    part.unlink()
    target = kind if kind.startswith("/") else "nowhere"
    {"a pipe": os.mkfifo, "a folder": os.mkdir}.get(kind, lambda path: path.symlink_to(target))(part)
    for stage in (summarize, lambda *run: judge(*run, LocalRuntime([]))):
        with pytest.raises(BadInput, match=f"{part.name} is no regular file"):
            stage(spec, folder)


def test_a_report_is_not_written_through_a_link(sar_eval_here, run, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (run[1].path / "report_assets").symlink_to(tmp_path / "pictures")
    code, output = sar_eval_here("report", run[1].path)
    assert (code, "report_assets is a link" in output) == (2, True), output
    assert list((tmp_path / "pictures").iterdir()) == []


@pytest.mark.parametrize("source", ["/dev/zero", "a pipe"])
def test_prompts_that_never_end_are_not_read(run, tmp_path: Path, source: str) -> None:
    spec, folder = run
    if source == "a pipe":
        os.mkfifo(tmp_path / "pipe")
        source = str(tmp_path / "pipe")
    manifest = folder.read_manifest()
    folder.write_manifest(replace(manifest, prompts=replace(manifest.prompts, source=source)))
    with pytest.raises(BadInput, match="it is no regular file"):
        summarize(spec, folder)
    folder.write_manifest(manifest)
    (folder.path / "prompts.parquet").unlink()
    (folder.path / "prompts.parquet").symlink_to(source)
    with pytest.raises(BadInput, match="it is no regular file"):
        summarize(spec, folder)


def test_the_digest_of_a_spec_is_that_of_its_values() -> None:
    spec = make_spec(PROMPTS)
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_verify_names_and_repairs(sar_eval_here, run) -> None:
    _, folder = run
    code, output = sar_eval_here("verify", folder.path)
    assert code == 0
    assert "6 parts" in output
    paths = [folder.generations.paths()[1], folder.verdicts("shapes").paths()[2]]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    code, output = sar_eval_here("verify", folder.path)
    assert code == 3
    assert all(f"damaged: {path}" in output for path in paths)
    code, output = sar_eval_here("verify", folder.path, "--repair")
    assert (code, [path.exists() for path in paths]) == (3, [False, False])
    assert sar_eval_here("verify", folder.path)[0] == 0


@pytest.mark.parametrize("change", [{"scores": (1.0,) * 4}, {"errors": 1}, {"rows": 3}, {"made_for": "x"}])
def test_verify_holds_footers_against_their_rows(run, change: dict) -> None:
    """A summary believes the footers of a whole run; whoever forged one is found by `verify`."""
    spec, folder = run
    table = folder.verdicts("shapes")
    rows, facts = table.read_block(1), table.facts(table.parts()[1])
    if "scores" in change:
        assert facts.scores == tuple(SCORES[row["key"]] for row in rows) != change["scores"]
    table.write(1, rows, replace(facts, **change))
    [problem] = verify(spec, folder).problems
    assert "its footer says otherwise" in problem or "under other options" in problem


def test_scores_come_from_footers_and_from_rows_alike(run) -> None:
    spec, folder = run
    expected = summarize(spec, folder).metrics
    table = folder.verdicts("shapes")
    for number, part in table.parts().items():
        table.write(number, table.read_block(number), replace(table.facts(part), scores=()))
    assert summarize(spec, folder).metrics == expected

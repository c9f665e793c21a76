"""Best-of-N from judged runs: which pictures, as which rows, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.families.simplear import find_checkpoint
from sar_eval.rl.judged_draws import read_judged_run
from sar_eval.rl.select import SelectOptions, select
from sar_eval.spec import RunSpec
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import verdict_row
from sar_eval.storage.shards import SELECTED_SCHEMA, TOKEN_SCHEMA, read_shards
from sar_eval.train.batches import MicroBatches, TextIds
from sar_eval.train.fit import check_tokens
from sar_eval.train.token_stream import TokenStream, WeightedPlace
from sar_eval.types import Prompt, Verdict, make_draw
from tests.judged_runs import PROMPTS, PROTOCOL, judged_run, random_codes
from tests.stored_runs import store_verdicts

SCORES = {"a/0": 0.2, "a/1": 0.9, "a/2": 0.9, "a/3": 0.5, "b/0": 0.1, "b/2": 0.3, "b/3": 0.0}


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """Two prompts of four pictures; b/1 is unscored."""
    return judged_run(tmp_path / "run", tiny_checkpoint, SCORES)


def _chosen(runs: list[Path], out: Path, **options) -> list[str]:
    select(runs, out, SelectOptions(**options))
    [table] = read_shards([out], SELECTED_SCHEMA)
    return table["draw"].to_pylist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["a/1", "b/2"]),
        ({"top": 2}, ["a/1", "a/2", "b/2", "b/0"]),
        ({"top": 9, "min_score": 0.3}, ["a/1", "a/2", "a/3", "b/2"]),
        ({"top": 9, "min_score": 0.5}, ["a/1", "a/2", "a/3"]),
        ({"top": 9}, ["a/1", "a/2", "a/3", "a/0", "b/2", "b/0", "b/3"]),
    ],
)
def test_the_best_of_each_prompt(run: Path, tmp_path: Path, options, expected: list[str]) -> None:
    """Equal scores go by index; what has no score is never taken."""
    assert _chosen([run], tmp_path / "out", **options) == [f"run/{key}" for key in expected]


def test_rows_are_what_the_checkpoint_drew(run: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    checkpoint = find_checkpoint(str(tiny_checkpoint))
    select([run], tmp_path / "out", SelectOptions())
    data = [WeightedPlace(tmp_path / "out")]
    stream = TokenStream(data, seed=0, window=9, caption_dropout=0)
    check_tokens(stream.metadata, checkpoint.visual_folder)
    [table] = read_shards([tmp_path / "out"], TOKEN_SCHEMA)
    first = table.to_pylist()[0]
    assert tuple(first["tokens"]) == random_codes(make_draw(PROMPTS[0], 1, 0))
    assert first["caption"] == "a photo of a teal ring beside a cross"
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_checkpoint)
    how = {"rank": 0, "ranks": 1, "batch_size": 1, "micro": 1, "first_step": 0}
    rows = MicroBatches(stream, TextIds(tokenizer), steps=stream.rows_an_epoch, **how)
    trained = [batch["input_ids"][0, :-16].tolist() for batch in rows]
    assert checkpoint.prompt_ids(first["caption"]) in trained, "the sequence that the engine sampled"


def test_the_selection_says_what_it_is_of(run: Path, tmp_path: Path) -> None:
    facts = select([run], tmp_path / "out", SelectOptions(top=2, min_score=0.4)).facts()
    stored = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert stored["runs"][0]["by"] == "shapes"
    assert {name: stored[name] for name in facts} == facts
    assert facts["prompts"], facts["prompts_without"] == (2, 1)
    assert (facts["pictures"], facts["unscored"], facts["below_min_score"], facts["rows"]) == (8, 1, 4, 2)
    assert facts["mean_score"] == pytest.approx(sum(SCORES.values()) / 7)
    assert facts["mean_score_of_rows"] == pytest.approx(0.9)


def test_runs_are_put_together_by_prompt(run: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    other = judged_run(tmp_path / "other", tiny_checkpoint, dict.fromkeys(SCORES, 0.4), seed=1)
    assert _chosen([run, other], tmp_path / "out") == ["run/a/1", "other/b/0"]


def test_a_picture_is_taken_once(run: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert _chosen([run, run], tmp_path / "twice", top=9)[:4] == [
        "run/a/1",
        "run/a/2",
        "run/a/3",
        "run/a/0",
    ]
    same = judged_run(tmp_path / "same", tiny_checkpoint, SCORES, codes=lambda _: (7,) * 16)
    assert _chosen([same], tmp_path / "once", top=9) == ["same/a/1", "same/b/2"]


def test_a_verdict_on_an_earlier_picture_does_not_count(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    [part] = [p for n, p in folder.generations.parts().items() if n == 0]
    rows = folder.generations.read(part.path).to_pylist()
    rows[1]["image"]["bytes"] = b"drawn anew"
    folder.write_generations(0, rows, folder.read_manifest().digest)
    assert _chosen([run], tmp_path / "out") == ["run/a/2", "run/b/2"]


def _store_scorers(run: Path, evidence: dict[str, object]) -> None:
    """Verdicts of the judge `score` beside the run's own."""
    folder = RunFolder(run)
    for number, part in folder.generations.parts().items():
        keys = folder.generations.read(part.path, ["key"]).column("key").to_pylist()
        images = folder.generations.image_digests(part, len(keys))
        verdicts = [Verdict(key, "score", "1", 0.0, evidence=evidence.get(key)) for key in keys]
        rows = [verdict_row(v, "digest", image) for v, image in zip(verdicts, images, strict=True)]
        folder.write_verdicts("score-1234abcd", number, rows, "digest", part)


def test_a_scorer_beside_the_judge_chooses(run: Path, tmp_path: Path) -> None:
    versions = {"hps": "2"}
    scores = {"a/0": 3.0, "a/1": 2.0, "b/3": 1.0}
    evidence = {key: {"scores": {"hps": value}, "versions": versions} for key, value in scores.items()}
    _store_scorers(run, evidence)
    assert _chosen([run], tmp_path / "out", by="scorer/hps", top=9) == ["run/a/0", "run/a/1", "run/b/3"]
    assert read_judged_run(run, "scorer/hps").judge_version == "2"
    with pytest.raises(BadInput, match=r"no numbers of 'clip'; those there are: scorer/hps"):
        read_judged_run(run, "scorer/clip")
    _store_scorers(run, evidence | {"a/2": {"scores": {"hps": 1.0}, "versions": {"hps": "3"}}})
    with pytest.raises(BadInput, match="several versions or options"):
        read_judged_run(run, "scorer/hps")
    for wrong in ({"scores": [1]}, {"scores": {"hps": "high"}}):
        _store_scorers(run, evidence | {"a/2": wrong})
        with pytest.raises(BadInput, match="judge again"):
            read_judged_run(run, "scorer/hps")


def test_scores_that_are_none_are_told(run: Path, tmp_path: Path) -> None:
    for options, message in [
        ({"by": "geneval"}, "no verdicts of 'geneval': say whose score counts with --by: shapes"),
        ({"min_score": 0.95}, r"no picture of 2 prompts reaches --min-score 0\.95; the best has 0\.9"),
    ]:
        with pytest.raises(BadInput, match=message):
            select([run], tmp_path / "out", SelectOptions(**options))
    with pytest.raises(BadInput, match="must be a number"):
        SelectOptions(min_score=float("nan"))
    assert not (tmp_path / "out").exists()


def test_runs_without_scores_are_told(tmp_path: Path, tiny_checkpoint: Path) -> None:
    unjudged = judged_run(tmp_path / "unjudged", tiny_checkpoint, {})
    with pytest.raises(BadInput, match="none of 8 pictures has a score"):
        select([unjudged], tmp_path / "out", SelectOptions())
    for path in sorted((unjudged / "verdicts").rglob("part-*")):
        path.unlink()
    with pytest.raises(BadInput, match="has no verdicts: judge it first"):
        select([unjudged], tmp_path / "out", SelectOptions())
    with pytest.raises(BadInput, match=r"no run folder|not a run folder"):
        select([tmp_path], tmp_path / "out", SelectOptions())


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((), "is a picture without tokens"),
        ((0,) * 15, "has 15 codes from 0 to 0; the run's protocol and checkpoint make 16 from 0 to 63"),
        ((64,) * 16, "from 64 to 64"),
        ((-1,) * 16, "from -1 to -1"),
    ],
)
def test_codes_that_are_none_are_refused(
    tmp_path: Path, tiny_checkpoint: Path, codes: tuple[int, ...], message: str
) -> None:
    run = judged_run(tmp_path / "run", tiny_checkpoint, SCORES, codes=lambda _: codes)
    with pytest.raises(BadInput, match=message):
        select([run], tmp_path / "out", SelectOptions())


def test_what_is_no_more_the_run_is_refused(run: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = RunFolder(run)
    spec = RunSpec.from_json(folder.read_manifest().spec)
    manifest = folder.read_manifest()
    for changes, message in [
        ({"checkpoint_digest": "0123"}, "was drawn by .* when its files had the digest 0123; now"),
        ({"protocol": replace(PROTOCOL, prefixes="none")}, "no set of prefixes is called 'none'"),
        ({"protocol": replace(PROTOCOL, top_p=3.0)}, r"top-p is 3\.0"),
    ]:
        folder.write_manifest(replace(manifest, spec=replace(spec, **changes).to_json()))
        with pytest.raises(BadInput, match=message):
            read_judged_run(run)
    folder.write_manifest(replace(manifest, digest="another"))
    with pytest.raises(BadInput, match="is of another run"):
        read_judged_run(run)
    folder.write_manifest(replace(manifest, spec=replace(spec, checkpoint="/gone").to_json()))
    with pytest.raises(BadInput, match=r"the checkpoint that drew .*/gone.*say where with --run-ckpt"):
        read_judged_run(run)
    assert read_judged_run(run, checkpoints=[str(tiny_checkpoint)]).checkpoint.folder == tiny_checkpoint


def test_verdicts_under_two_options_are_refused(run: Path) -> None:
    folder = RunFolder(run)
    spec = RunSpec.from_json(folder.read_manifest().spec)
    [second] = [part for number, part in folder.generations.parts().items() if number == 1]
    rows = [verdict_row(Verdict("a/3", "shapes", "2", 1.0), "other", None)]
    folder.write_verdicts("shapes", 1, rows, "other", second)
    with pytest.raises(BadInput, match="several versions or options"):
        read_judged_run(run)
    store_verdicts(spec, folder, {"a/0": float("inf")})
    with pytest.raises(BadInput, match="the score of a/0 is inf"):
        read_judged_run(run)


def test_runs_that_do_not_go_together_are_refused(run: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    judged_otherwise = judged_run(tmp_path / "judge", tiny_checkpoint, SCORES, judge_version="9")
    small = judged_run(
        tmp_path / "small",
        tiny_checkpoint,
        SCORES,
        protocol=replace(PROTOCOL, resolution=16),
        codes=lambda draw: random_codes(draw)[:4],
    )
    demo = judged_run(tmp_path / "demo", Path("demo:pretrain"), SCORES)
    for other, message in [
        (judged_otherwise, "of different judges, versions or options"),
        (small, "drawn at 32 pixels, .* at 16"),
        (demo, "the same code is another piece of a picture"),
    ]:
        with pytest.raises(BadInput, match=message):
            select([run, other], tmp_path / "out", SelectOptions())


def test_prompts_of_a_test_are_refused_or_marked(tmp_path: Path, tiny_checkpoint: Path) -> None:
    asked = (Prompt("a", "A photo of a  bench."), PROMPTS[1])
    run = judged_run(tmp_path / "run", tiny_checkpoint, SCORES, prompts=asked)
    with pytest.raises(BadInput, match=r"geneval\.jsonl.*--train-on-test"):
        select([run], tmp_path / "out", SelectOptions())
    found = select([run, run], tmp_path / "out", SelectOptions(train_on_test=True))
    assert found.tested == 1
    assert json.loads((tmp_path / "out" / "selection.json").read_text())["prompts_of_a_test"] == 1


def test_a_folder_with_shards_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    select([run], tmp_path / "out", SelectOptions())
    with pytest.raises(BadInput, match="already has shards"):
        select([run], tmp_path / "out", SelectOptions())

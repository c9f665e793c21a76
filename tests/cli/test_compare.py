"""`sar-eval compare` and `baseline save`: what people really bring, and what each must hear."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import DrawProtocol, Prompt, Shard
from tests.stored_runs import begin_run, scored_run, store_generations

PROMPTS = [Prompt(f"p{n}", f"text {n}", tag=f"t{n % 2}") for n in range(8)]
Cli = Callable[..., tuple[int, str]]


def scores_of(right: int, prompts: int = 8, images: int = 2) -> dict[str, float]:
    """The first `right` prompts right, the others wrong."""
    return {f"p{n}/{i}": float(n < right) for n in range(prompts) for i in range(images)}


def make_run(path: Path, scores: Mapping[str, float], prompts=PROMPTS, images: int = 2, **changes) -> Path:
    return scored_run(path, prompts, scores, images, **changes)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages go to `runs/compare/` of the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return make_run(tmp_path / "a", scores_of(3), checkpoint="demo:pretrain")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return make_run(tmp_path / "b", scores_of(8))


def _json(sar_eval_here: Cli, *words: object) -> dict:
    code, output = sar_eval_here("compare", *words, "--json")
    assert code == 0, output
    return json.loads(output[output.index("{") :])


def test_the_sentence_the_table_and_json(sar_eval_here: Cli, a: Path, b: Path) -> None:
    code, output = sar_eval_here("compare", a, b)
    assert code == 0
    # Five of eight prompts differ, all in one direction: p = 2 / 2^5.
    assert "A (demo:pretrain) and B (demo:sft) are not distinguishable: overall +0.625" in output
    assert "p = 0.06" in output
    pair = _json(sar_eval_here, a, b)["pairs"][0]
    assert [d["measure"] for d in pair["differences"]] == [
        *("overall", "task/t0", "task/t1", "correct_images", "correct_prompts"),
    ]
    overall = pair["differences"][0]
    assert (overall["first"], overall["second"], overall["p"]) == (0.375, 1.0, 0.0625)
    assert (overall["won"], overall["lost"], overall["tied"]) == (5, 0, 3)
    assert (overall["winner"], pair["shares_noise"], pair["missing_count"]) == (None, True, {})


def test_a_better_run_is_named(sar_eval_here: Cli, tmp_path: Path) -> None:
    prompts = [Prompt(f"p{n}", "x", tag="t") for n in range(40)]
    a = make_run(tmp_path / "a", scores_of(10, 40), prompts, checkpoint="org/x-sft")
    b = make_run(tmp_path / "b", scores_of(30, 40), prompts, checkpoint="org/x-rl")
    code, output = sar_eval_here("compare", a, b)
    assert (code, "B (x-rl) is better than A (x-sft): overall +0.500" in output) == (0, True)
    code, output = sar_eval_here("compare", b, a)
    assert "A (x-rl) is better than B (x-sft): overall -0.500" in output


def test_a_baseline_stands_for_its_run(sar_eval_here: Cli, a: Path, b: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    code, output = sar_eval_here("baseline", "save", a, file)
    assert (code, "7 measures of 16 images" in output) == (0, True)
    with_run, with_file = _json(sar_eval_here, a, b), _json(sar_eval_here, file, b)
    assert with_run["pairs"] == with_file["pairs"]
    assert [side["is_baseline"] for side in with_file["sides"]] == [True, False]
    assert sar_eval_here("baseline", "save", b, file)[0] == 0  # replaced


def test_three_runs_are_ranked(sar_eval_here: Cli, tmp_path: Path) -> None:
    prompts = [Prompt(f"p{n}", "x", tag="t") for n in range(40)]
    runs = [
        make_run(tmp_path / f"r{n}", scores_of(n, 40), prompts, checkpoint=f"c{n}") for n in (5, 30, 31)
    ]
    found = _json(sar_eval_here, *runs)
    assert [(r["letter"], r["groups"]) for r in found["ranking"]] == [("C", "a"), ("B", "a"), ("A", "b")]
    assert [p["first"] + p["second"] for p in found["pairs"]] == ["AB", "AC", "BC"]
    code, output = sar_eval_here("compare", *runs)
    assert (code, "ranking" in output, "C - A" in output) == (0, True, True)


ANOTHER = [replace(PROMPTS[0], text="another"), *PROMPTS[1:]]
HOLES = {key: score for key, score in scores_of(8).items() if key not in ("p1/0", "p6/1")}


@pytest.mark.parametrize(
    ("changes", "scores", "code", "message"),
    [
        ({"prompts": ANOTHER}, None, 2, "have other prompts: suite_digest is '"),
        ({"judge": "geneval"}, None, 2, "have other judges: judge is 'shapes' and 'geneval'"),
        ({"judge_options": {"threshold": 0.9}}, None, 2, "threshold is None and 0.9"),
        ({"judge_version": "2"}, None, 2, "have other judges: judge_version is '' and '2'"),
        ({"fold": "geneval"}, None, 2, "have other rules of scoring: fold is 'shapes' and 'geneval'"),
        (
            {"protocol": DrawProtocol("x", 64, guidance=3.0)},
            None,
            2,
            "guidance is 1.0 and 3.*--across protocol",
        ),
        ({"engine": "none"}, None, 2, "protocol is 'shapes' and 'not known"),
        ({"images": 3}, None, 2, "has no score for 8 of 24 images of .*p0/2.*--allow-missing 0.334"),
        ({}, HOLES, 3, "is incomplete: 2 of 16 images have no score: finish it, or --allow-missing 0.125"),
    ],
)
def test_unlike_runs_are_refused_with_what_differs(
    sar_eval_here: Cli, a: Path, tmp_path: Path, changes: dict, scores, code: int, message: str
) -> None:
    images = changes.get("images", 2)
    other = make_run(tmp_path / "other", scores or scores_of(8, images=images), **changes)
    found, output = sar_eval_here("compare", a, other)
    assert found == code
    assert re.search(message, output), output
    assert "Traceback" not in output


def test_what_is_missing_is_counted_and_named(sar_eval_here: Cli, a: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", HOLES)
    pair = _json(sar_eval_here, a, other, "--allow-missing", "0.125")["pairs"][0]
    assert pair["missing"] == {"B": ["p1/0", "p6/1"]}
    assert pair["differences"][0]["draws"] == 14
    assert pair["differences"][0]["unpaired"] == 2
    output = sar_eval_here("compare", a, other, "--allow-missing", "0.125")[1]
    assert "B has no score for 2 images of A, which are left out of both: p1/0, p6/1" in output


def test_two_runs_with_the_same_holes_are_not_compared_silently(sar_eval_here: Cli, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, HOLES) for name in "ab"]
    assert sar_eval_here("compare", *runs)[0] == 3
    assert sar_eval_here("compare", *runs, "--allow-missing", "0.2")[0] == 0


def test_more_images_are_compared_over_those_in_common(sar_eval_here: Cli, a: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", scores_of(8, images=3), images=3)
    pair = _json(sar_eval_here, a, other, "--allow-missing", "0.34")["pairs"][0]
    assert (pair["differences"][0]["draws"], pair["missing_count"]) == (16, {"A": 8})


def test_other_protocols_by_name(sar_eval_here: Cli, a: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "o", scores_of(8), protocol=DrawProtocol("x", 64, guidance=3.0))
    code, output = sar_eval_here("compare", a, other, "--across", "protocol")
    assert (code, "note: A and B have other protocols: guidance is 1.0 and 3" in output) == (0, True)
    code, output = sar_eval_here("compare", a, other, "--across", "judge")
    assert (code, "only `protocol` may differ" in output) == (2, True)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"engine": "none"}])
def test_runs_of_other_seeds_are_paired_by_prompt_only(
    sar_eval_here: Cli, a: Path, tmp_path: Path, changes: dict
) -> None:
    other = make_run(tmp_path / "o", scores_of(8), **changes)
    found = _json(sar_eval_here, a, other, "--across", "protocol")
    assert not found["pairs"][0]["shares_noise"]
    assert any("paired by prompt only" in note for note in found["notes"])


def test_a_shard_and_a_run_without_verdicts(sar_eval_here: Cli, a: Path, tmp_path: Path) -> None:
    spec, folder = begin_run(tmp_path / "drawn", PROMPTS, images_per_prompt=2)
    store_generations(spec, folder, dict.fromkeys(scores_of(1), b"x"))
    code, output = sar_eval_here("compare", a, folder.path)
    assert (code, "has no score yet: `sar-eval judge" in output) == (2, True)
    plain = begin_run(tmp_path / "plain", PROMPTS, judge="", fold="")[1]
    code, output = sar_eval_here("compare", a, plain.path)
    assert (code, "has no judge, so it has no scores" in output) == (2, True), output
    manifest = RunFolder(a).read_manifest()
    RunFolder(a).write_manifest(replace(manifest, shard=Shard(1, 2)))
    code, output = sar_eval_here("compare", a, plain.path)
    assert (code, "is shard 1/2 of a run: `sar-eval join` the shards first" in output) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "1 runs to compare: give two to 26"),
        (["a", "published:SimpleAR"], "1 runs to compare"),
        (["a", "bb"], "there is no 'bb'"),
        (["a", "aa"], "did you mean 'a'"),
        (["a", "a/run.json"], "cannot be read as Parquet"),
        (["a", "."], "is not a run folder"),
        (["a", "b", "published:nobody"], "no score of 'nobody' on 'shapes' is published"),
    ],
)
def test_words_that_name_nothing(
    sar_eval_here: Cli, a: Path, b: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(a.parent)
    code, output = sar_eval_here("compare", *words)
    assert (code, message in output) == (2, True), output


def test_a_published_score_stands_beside(sar_eval_here: Cli, tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / n, scores_of(k), fold="geneval", benchmark="geneval")
        for n, k in (("a", 3), ("b", 8))
    ]
    found = _json(sar_eval_here, *runs, "published:simplear-0.5b-rl")
    assert found["published"][0]["overall"] == 0.59
    output = sar_eval_here("compare", *runs, "published:SimpleAR-0.5B-RL")[1]
    assert "not paired: its images are not at hand" in output


@pytest.mark.parametrize("prompts", [1, 2])
def test_few_prompts(sar_eval_here: Cli, tmp_path: Path, prompts: int) -> None:
    suite = PROMPTS[:prompts]
    runs = [make_run(tmp_path / n, scores_of(k, prompts), suite) for n, k in (("a", 0), ("b", prompts))]
    overall = _json(sar_eval_here, *runs)["pairs"][0]["differences"][0]
    assert (overall["value"], overall["winner"]) == (1, None)
    assert overall["low"] < 0 <= overall["high"]


def test_all_equal_and_a_single_task(sar_eval_here: Cli, tmp_path: Path) -> None:
    suite = [replace(p, tag="") for p in PROMPTS]
    runs = [make_run(tmp_path / n, scores_of(4), suite) for n in "ab"]
    code, output = sar_eval_here("compare", *runs)
    assert (code, "are not distinguishable: overall +0.000" in output, "untagged" in output) == (
        0,
        True,
        True,
    )


def test_a_baseline_of_another_suite_with_the_same_ids(sar_eval_here: Cli, a: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", scores_of(8), prompts=ANOTHER)
    sar_eval_here("baseline", "save", other, tmp_path / "other.parquet")
    code, output = sar_eval_here("compare", a, tmp_path / "other.parquet")
    assert (code, "have other prompts: suite_digest is" in output) == (2, True)


def test_a_baseline_of_a_run_with_holes(sar_eval_here: Cli, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", HOLES)
    code, output = sar_eval_here("baseline", "save", run, tmp_path / "r.parquet")
    assert (code, "2 of 16 images have no score" in output) == (3, True)
    assert not (tmp_path / "r.parquet").exists()
    assert sar_eval_here("baseline", "save", run, tmp_path / "r.parquet", "--partial")[0] == 0
    assert sar_eval_here("compare", run, tmp_path / "r.parquet")[0] == 3


@pytest.mark.parametrize("name", ["x.csv", "notes.parquet"])
def test_a_baseline_replaces_nothing_else(sar_eval_here: Cli, a: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert sar_eval_here("baseline", "save", a, tmp_path / name)[0] == 2
    assert (tmp_path / name).read_text() == "mine"


def test_hostile_names_are_shown_and_do_nothing(sar_eval_here: Cli, a: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "o", scores_of(8), checkpoint="x/[red]\x1b[31m\nevil")
    output = sar_eval_here("compare", a, other)[1]
    assert "\x1b[31m" not in output
    assert "[red]" in output


def test_the_suites_order_changes_nothing(sar_eval_here: Cli, a: Path, tmp_path: Path) -> None:
    """A baseline whose rows somebody sorted pairs by prompt and index all the same."""
    import pyarrow.parquet as pq

    sar_eval_here("baseline", "save", a, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.sort_by([("sum", "descending")]), tmp_path / "sorted.parquet")
    overall = _json(sar_eval_here, a, tmp_path / "sorted.parquet")["pairs"][0]["differences"][0]
    assert (overall["value"], overall["tied"], overall["unpaired"]) == (0, 8, 0)

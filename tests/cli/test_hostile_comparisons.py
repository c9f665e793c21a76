"""Comparing and gating of what hostile or careless people bring: edited baselines, odd files, names."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sar_eval.comparisons import Question
from sar_eval.report.gate_words import answer_words
from sar_eval.storage.baselines import METADATA
from sar_eval.types import Prompt
from tests.stored_runs import scored_run

pytestmark = pytest.mark.slow  # many commands; CI runs them all
Cli = Callable[..., tuple[int, str]]
PROMPTS = [Prompt(f"p{n}", f"text {n}", tag=f"t{n % 2}") for n in range(8)]
SCORES = {f"p{n}/{i}": float(n < 5) for n in range(8) for i in range(2)}
HOSTILE = "\x1b[31m|`*<script>\n::error::boo##[error]\u202e@me [x](http://a)"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pages go that no test names."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return scored_run(tmp_path / "run", PROMPTS, SCORES)


@pytest.fixture
def saved(run: Path, tmp_path: Path, sar_eval_here: Cli) -> Path:
    assert sar_eval_here("baseline", "save", run, tmp_path / "saved.parquet")[0] == 0
    return tmp_path / "saved.parquet"


def edit(path: Path, footer=lambda data: None, table=lambda table: table) -> Path:
    """The baseline as somebody edited it: `footer` changes its data in place, `table` gives other rows."""
    rows = pq.read_table(path)
    data = json.loads(rows.schema.metadata[METADATA])
    footer(data)
    metadata = {METADATA: json.dumps(data).encode()}
    pq.write_table(table(rows).replace_schema_metadata(metadata), path.with_name("edited.parquet"))
    return path.with_name("edited.parquet")


def column(name: str, change: Callable[[list], list]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        values = pa.array(change(table[name].to_pylist()))
        return table.set_column(table.column_names.index(name), name, values)

    return changed


def facts(**changes) -> Callable[[dict], None]:
    return lambda data: data["facts"].update(changes)


def rule(**changes) -> Callable[[dict], None]:
    return lambda data: data["measures"][0].update(changes)


def is_measure(table: pa.Table, name: str) -> pa.ChunkedArray:
    return pc.equal(table["measure"].cast(pa.string()), name)


def refused(sar_eval_here: Cli, message: str, *words: object) -> None:
    code, output = sar_eval_here(*words)
    assert (code, message in output, "Traceback" in output) == (2, True, False), output


@pytest.mark.parametrize(
    ("footer", "message"),
    [
        (facts(expected=0, failed=1), "it is of 8 prompts and 0 images, which no run has"),
        (facts(expected=-5), "it is of 8 prompts and -5 images"),
        (facts(expected=10**12), "images are more than 2 of each prompt"),
        (facts(failed=-1), "-1 of 16 images have no score"),
        (facts(failed=17), "17 of 16 images have no score"),
        (rule(scale=0), "the scale of measure 'overall' is 0"),
        (rule(scale=-1), "the scale of measure 'overall' is -1"),
        (lambda data: data.update(format=0), "the format is 0"),
    ],
)
def test_numbers_that_no_run_has(sar_eval_here: Cli, run: Path, saved: Path, footer, message: str) -> None:
    edited = edit(saved, footer)
    refused(sar_eval_here, message, "compare", run, edited)
    refused(sar_eval_here, message, "gate", run, "--baseline", edited)


@pytest.mark.parametrize("changes", [{"scale": 100}, {"combine": "max"}, {"is_effect": True}])
def test_measures_of_other_rules(sar_eval_here: Cli, run: Path, saved: Path, changes: dict) -> None:
    edited = edit(saved, rule(**changes))
    refused(sar_eval_here, f"have another 'overall': {next(iter(changes))} is", "compare", run, edited)
    refused(sar_eval_here, "have another 'overall'", "compare", edited, run)
    refused(sar_eval_here, "have another 'overall'", "gate", run, "--baseline", edited)


@pytest.mark.parametrize(
    "rename", [lambda tasks: [t.replace("t0", "x") for t in tasks], lambda tasks: [""] * len(tasks)]
)
def test_prompts_of_other_tasks_are_not_dropped_silently(
    sar_eval_here: Cli, run: Path, saved: Path, rename
) -> None:
    edited = edit(saved, table=column("task", rename))
    refused(sar_eval_here, "the task of prompt 'p0' is ['t0'] and", "compare", run, edited)


def test_what_other_figures_leave_out_is_said(sar_eval_here: Cli, run: Path, saved: Path) -> None:
    def thinned(table: pa.Table) -> pa.Table:
        first = pc.and_(is_measure(table, "task/t0"), pc.equal(table["index"], 0))
        return table.filter(pc.invert(pc.or_(first, is_measure(table, "task/t1"))))

    edited = edit(saved, table=thinned)
    for words in (("compare", run, edited), ("gate", run, "--baseline", edited, "--tolerance", 1)):
        code, output = sar_eval_here(*words)
        assert code == 0, output
        assert "A and B, task/t0: 4 images count in one of the two alone and are left out" in output
        assert "no image in common of 1 figures, which are not compared: task/t1" in output
    refused(
        sar_eval_here, "no image of it in common", "gate", run, "--baseline", edited, "--measure", "task/t1"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sum", 1e101, "a score is larger than 1e+100"),
        ("sum", -1e200, "stored scores are out of all range"),
        ("weight", 1e10, "a weight is not between 1e-09 and 1e+09"),
        ("weight", 5e-324, "a weight is not between"),
    ],
)
def test_numbers_whose_squares_overflow(
    sar_eval_here: Cli, run: Path, saved: Path, name: str, value: float, message: str
) -> None:
    edited = edit(saved, table=column(name, lambda values: [value, *values[1:]]))
    refused(sar_eval_here, message, "compare", run, edited)


@pytest.mark.parametrize(
    ("score", "message"), [(1e120, "a score is larger than 1e+100"), (-1e250, "are out of all range")]
)
def test_runs_of_such_scores(
    sar_eval_here: Cli, run: Path, tmp_path: Path, score: float, message: str
) -> None:
    other = scored_run(tmp_path / "other", PROMPTS, SCORES | {"p0/0": score})
    refused(sar_eval_here, message, "compare", run, other)
    refused(sar_eval_here, message, "baseline", "save", other, tmp_path / "x.parquet")


def test_a_baseline_without_rows(sar_eval_here: Cli, run: Path, saved: Path) -> None:
    refused(sar_eval_here, "holds no score", "compare", run, edit(saved, table=lambda t: t.slice(0, 0)))


@pytest.mark.parametrize("word", ["x" * 300, "a/" * 3000, "a\0b", "\ud800"])
def test_words_that_no_path_can_be(sar_eval_here: Cli, run: Path, word: str) -> None:
    code, output = sar_eval_here("compare", run, word)
    assert (code, "Traceback" in output) == (2, False), output


def test_pipes_are_not_waited_for(sar_eval_here: Cli, run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    refused(sar_eval_here, "is no regular file", "compare", run, tmp_path / "pipe.parquet")
    assert sar_eval_here("history", tmp_path)[0] == 0


def test_a_part_that_links_to_itself(sar_eval_here: Cli, run: Path, tmp_path: Path) -> None:
    good = scored_run(tmp_path / "good", PROMPTS, SCORES)
    part = next((run / "verdicts").rglob("part-*.parquet"))
    part.unlink()
    part.symlink_to(part.name)
    refused(sar_eval_here, "remove it, it is no part of ours", "compare", good, run)
    code, output = sar_eval_here("history", tmp_path)
    assert (code, "it is no part of ours" in output) == (0, True), output


OUTPUTS = [
    ("compare", "saved.parquet", "run", "--markdown"),
    ("compare", "saved.parquet", "run", "--out"),
    ("gate", "run", "--baseline", "saved.parquet", "--tolerance", "1", "--markdown"),
    ("gate", "run", "--baseline", "saved.parquet", "--tolerance", "1", "--junit"),
    ("history", ".", "--out"),
    ("history", ".", "--markdown"),
]


@pytest.mark.parametrize("words", OUTPUTS)
def test_a_result_replaces_no_run_and_no_data(
    sar_eval_here: Cli, run: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, words
) -> None:
    monkeypatch.chdir(saved.parent)
    link = Path("link.md")
    link.symlink_to(run / "run.json")
    part = next((run / "verdicts").rglob("part-*.parquet"))
    for path in (run / "run.json", link, run / "prompts.parquet", part, saved):
        before = path.read_bytes()
        code, output = sar_eval_here(*words, path)
        assert (code, "Traceback" in output, path.read_bytes() == before) == (2, False, True), output


@pytest.mark.parametrize("words", OUTPUTS)
def test_a_result_replaces_no_device_and_no_link(
    sar_eval_here: Cli, run: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, words
) -> None:
    """As root, which CI often is, /dev/stdout could be replaced, for every process of the machine."""
    monkeypatch.chdir(saved.parent)
    Path("link.md").symlink_to("result.md")
    assert sar_eval_here(*words, "link.md")[0] == 0
    assert Path("link.md").is_symlink()
    assert Path("result.md").stat().st_size > 0
    for device in ("/dev/fd/nothing", "/proc/self/nothing", "/dev/null"):  # no device is at risk here
        code, output = sar_eval_here(*words, device)
        assert (code, "name a file" in output) == (2, True), output


def test_one_name_for_page_and_tables(sar_eval_here: Cli, run: Path, tmp_path: Path) -> None:
    name = tmp_path / "x.html"
    refused(sar_eval_here, "give another", "history", run, "--out", name, "--markdown", name)


@pytest.mark.parametrize("name", [HOSTILE, "c" * 10**6, "", "///", "  \n"])
def test_checkpoints_names_stay_on_their_line(
    sar_eval_here: Cli, run: Path, saved: Path, tmp_path: Path, name: str
) -> None:
    edited = edit(saved, facts(checkpoint=name))
    markdown = tmp_path / "out.md"
    code, output = sar_eval_here("compare", run, edited, "--markdown", markdown)
    assert code == 0, output
    for text in (output, markdown.read_text()):
        assert len(text) < 5000
        assert "\x1b" not in text
        assert "()" not in text
        assert not any(line.startswith("::error") for line in text.splitlines())


@pytest.mark.parametrize("measures", [1100, 20_000])
def test_certainty_is_never_claimed(measures: int) -> None:
    """5 % shared out over hundreds of measures leave 99.99 % for each, not 100."""
    question = Question(
        asked="worse",
        measure="overall",
        scale=1,
        limit=0.01,
        answer="no",
        passed=True,
        figure=0.5,
        lower=0.0,
        upper=0.0,
        confidence=1 - 0.05 / measures,
    )
    assert "with 99.99" in answer_words(question)


@pytest.mark.parametrize("columns", ["0", "1", "20", "79"])
@pytest.mark.parametrize("number", [2, 3])
def test_no_figure_is_cut_for_want_of_room(
    sar_eval_here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str, number: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    runs = [
        scored_run(tmp_path / str(k), PROMPTS, {key: v * k * 1234567.25 for key, v in SCORES.items()})
        for k in range(1, number + 1)
    ]
    code, output = sar_eval_here("compare", *runs)
    assert code == 0
    table = output[output.index("B - A") :]
    assert "+771604.531" in table  # 5 of 8 prompts
    assert "\u2026" not in table.partition("difference with")[0]


def test_a_link_to_a_baseline_stays_one(sar_eval_here: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "link.parquet").symlink_to("real.parquet")
    assert sar_eval_here("baseline", "save", run, tmp_path / "link.parquet")[0] == 0
    assert (tmp_path / "link.parquet").is_symlink()
    assert (tmp_path / "real.parquet").is_file()


@pytest.mark.parametrize("name", [HOSTILE, "@org/team", "www.a.example", "$x^2$"])
def test_files_for_ci_hold_nothing_that_acts(
    sar_eval_here: Cli, run: Path, saved: Path, tmp_path: Path, name: str
) -> None:
    words = {"checkpoint": name, "benchmark": f"{name}\x9b"}
    edited = edit(saved, facts(**words))
    markdown, junit, table = (tmp_path / file for file in ("gate.md", "gate.xml", "history.md"))
    asked = ("--baseline", saved, "--tolerance", "1", "--markdown", markdown, "--junit", junit)
    assert sar_eval_here("gate", edited, *asked)[0] == 0
    (tmp_path / "all").mkdir()
    edited.rename(tmp_path / "all" / edited.name)
    assert sar_eval_here("history", tmp_path / "all", "--markdown", table)[0] == 0
    ElementTree.fromstring(junit.read_bytes())
    for file in (markdown, junit, table):
        text = file.read_text()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), file
        if file is not junit:
            assert not re.search(r"@(?!\u200b)|<script|(?<!\\)[$`]|(?<!\\)\]\(|www\.", text), file


@pytest.mark.parametrize("data", [b"\xff\xfe---\n", b"---\nlicense: \xe9\n---\n"])
def test_a_readme_in_another_encoding(sar_eval_here: Cli, run: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_bytes(data)
    refused(sar_eval_here, "is not UTF-8", "summarize", run, "--eval-results", tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_bytes() == data

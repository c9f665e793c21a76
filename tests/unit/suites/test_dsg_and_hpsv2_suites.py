"""The official files of DSG-1k and HPSv2 as suites, with what is odd in them said."""

import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.images.folder import HowToRead, match_files
from sar_eval.suites import source as sources
from sar_eval.suites.dsg.scoring import UNREAD
from sar_eval.suites.dsg.suite import import_suite as import_dsg
from sar_eval.suites.hpsv2.suite import STYLES
from sar_eval.suites.hpsv2.suite import import_suite as import_hpsv2
from sar_eval.suites.prompts import load_suite

HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
)


def _table(folder: Path, *rows: str) -> Path:
    path = folder / "dsg-1k-anns.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def _dsg_row(item: str, number: int, dependency: str, text: str = "a cat") -> str:
    return f'{item},{text},cat,{number},"{dependency}",entity,whole,entity - whole (cat),Is there a cat?'


def test_a_table_of_dsg_becomes_prompts_with_categories(tmp_path: Path) -> None:
    _table(tmp_path, _dsg_row("whoops_5", 1, "0"), _dsg_row("vrd_1", 1, "0"), _dsg_row("whoops_5", 2, "1"))
    suite = import_dsg(tmp_path)
    assert [(p.id, p.tag, p.text) for p in suite.prompts] == [
        ("whoops_5", "defying", "a cat"),
        ("vrd_1", "relation", "a cat"),
    ]
    assert [q["parents"] for q in suite.prompts[0].checks["questions"]] == [[], [1]]
    assert (suite.notes, suite.counted) == ((), "with 3 questions")


def test_a_word_among_dependencies_is_noted_and_the_item_marked(tmp_path: Path) -> None:
    table = _table(tmp_path, _dsg_row("tifa160_67", 1, "0"), _dsg_row("tifa160_67", 2, "1, right"))
    suite = import_dsg(table)
    (prompt,) = suite.prompts
    assert prompt.checks[UNREAD] is True
    assert prompt.checks["questions"][1]["parents"] == [1]
    assert len(suite.notes) == 1
    assert suite.notes[0].startswith(f"{table}:3: dependency '1, right' has more than whole numbers")


def test_what_the_script_stops_at_is_noted(tmp_path: Path) -> None:
    rows = (_dsg_row("tifa160_134", 2, "1"), _dsg_row("pose_1", 1, "2"), _dsg_row("pose_1", 2, "1"))
    notes = "\n".join(import_dsg(_table(tmp_path, *rows)).notes)
    assert "dependency 1 of tifa160_134 does not exist" in notes
    assert "dependencies of pose_1 form a cycle (1, 2)" in notes
    assert "pose_1 is of no category of DSG" in notes


def test_a_question_that_names_itself_is_no_cycle(tmp_path: Path) -> None:
    assert import_dsg(_table(tmp_path, _dsg_row("vrd_1", 1, "1"))).notes == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_dsg_row("vrd_1", 0, "0"), ":2: proposition_id is 0"),
        (_dsg_row("", 1, "0"), ":2: no item_id"),
        (_dsg_row("vrd_1", 1, "0", text=""), ":2: no text of vrd_1"),
    ],
)
def test_rows_of_dsg_that_cannot_be(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        import_dsg(_table(tmp_path, row))


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """HPSv2's four files with two prompts each."""
    folder = tmp_path / "benchmark"
    folder.mkdir()
    for style in STYLES:
        (folder / f"{style}.json").write_text(json.dumps([f"{style}, first", f"{style}, second"]))
    return folder


def test_hpsv2s_files_become_prompts_by_style(official: Path, tmp_path: Path) -> None:
    suite = import_hpsv2(official)
    assert [(p.id, p.tag) for p in suite.prompts[:3]] == [
        ("anime-00000", "anime"),
        ("anime-00001", "anime"),
        ("concept-art-00000", "concept-art"),
    ]
    assert len(suite.notes) == 4  # 2 prompts of officially 800
    (tmp_path / "hpsv2.jsonl").write_bytes(sources.to_lines(suite.prompts))
    assert load_suite(tmp_path / "hpsv2.jsonl").prompts == tuple(suite.prompts)


def test_hpsv2s_pictures_are_found_by_style_and_number(official: Path, tmp_path: Path) -> None:
    """As the official package names them, in a folder of their own or one above."""
    prompts = import_hpsv2(official).prompts
    for prompt in prompts:
        style, _, number = prompt.id.rpartition("-")
        path = tmp_path / "images" / "mymodel" / style / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for folder in (tmp_path / "images", tmp_path / "images" / "mymodel"):
        found = match_files(folder, prompts, HowToRead(1))
        assert not found.unmatched
        assert {key: path.parent.name for key, path in found.files.items()} == {
            f"{prompt.id}/0": prompt.tag for prompt in prompts
        }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "must be a list of prompts"),
        ("[]", "must be a list"),
        ('["a", " "]', "prompt 1 must be text"),
    ],
)
def test_files_of_hpsv2_that_are_no_prompts(official: Path, content: str, message: str) -> None:
    (official / "paintings.json").write_text(content)
    with pytest.raises(BadInput, match=f"paintings.json.*{message}"):
        import_hpsv2(official)


def test_a_missing_file_of_hpsv2(official: Path) -> None:
    (official / "photo.json").unlink()
    with pytest.raises(BadInput, match=r"photo\.json"):
        import_hpsv2(official)
    with pytest.raises(BadInput, match="is no folder"):
        import_hpsv2(official / "anime.json")


def test_both_can_be_fetched() -> None:
    assert {"dsg", "hpsv2"} <= set(sources.names())
    assert {file.name for file in sources.load("hpsv2").files} == {
        f"sources/hpsv2/{s}.json" for s in STYLES
    }
    assert len(sources.load("dsg").files) == 1

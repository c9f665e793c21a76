"""Import of DPG-Bench's official files: order is kept, every inconsistency reported."""

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import Question, read_questions
from sar_eval.suites.dpg.suite import COLUMNS, import_suite
from sar_eval.suites.prompts import load_suite
from sar_eval.suites.source import to_lines
from sar_eval.types import safe_id

HEAD = (*COLUMNS[:2], "keywords", *COLUMNS[2:])


def _row(item: str = "a", number: object = 1, dependency: object = 0, **changes: str) -> list[str]:
    cells = {
        "item_id": item,
        "text": f"an image of {item}",
        "keywords": "",
        "proposition_id": str(number),
        "dependency": str(dependency),
        "category_broad": "entity",
        "category_detailed": "whole",
        "tuple": f"entity - whole ({item})",
        "question_natural_language": f"Is there {item}, number {number}?",
    }
    return [(cells | changes)[name] for name in HEAD]


def _table(folder: Path, *rows: list[str], head: tuple[str, ...] = HEAD) -> Path:
    path = folder / "dpg_bench.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def _files(folder: Path, **texts: str) -> Path:
    (folder / "prompts").mkdir()
    for item, text in texts.items():
        (folder / "prompts" / f"{item}.txt").write_text(text)
    return folder


def test_order_questions_and_texts_survive(tmp_path: Path) -> None:
    table = _table(tmp_path, _row("b", 2, "3, 1"), _row("b", 1), _row("b", 3), _row("a"))
    suite = import_suite(table)
    assert suite.notes == ()
    assert [(p.id, p.text) for p in suite.prompts] == [("b", "an image of b"), ("a", "an image of a")]
    questions = read_questions(suite.prompts[0].checks)
    assert [q.id for q in questions] == [2, 1, 3]
    assert questions[0] == Question(
        2, "Is there b, number 2?", (3, 1), "entity", "whole", "entity - whole (b)"
    )


def test_a_suite_file_reads_back_to_the_same_prompts(tmp_path: Path) -> None:
    rows = (_row("b", 2, 1, text='with "quotes",\n a new line and \u2028'), _row("b"), _row("1", 1, 7))
    suite = import_suite(_table(tmp_path, *rows))
    (tmp_path / "dpg.jsonl").write_bytes(to_lines(suite.prompts))
    assert load_suite(tmp_path / "dpg.jsonl").prompts == suite.prompts


def test_texts_of_the_folder_override_those_of_the_table(tmp_path: Path) -> None:
    table = _table(tmp_path, _row("a"), _row("b"), _row("c"), _row("d", text=""), _row("e"))
    _files(tmp_path, a="an image of a\n", b="another text", d="from the file", e=" \n", lonely="x")
    suite = import_suite(tmp_path)
    texts = {prompt.id: prompt.text for prompt in suite.prompts}
    assert texts == {
        "a": "an image of a",
        "b": "another text",
        "c": "an image of c",
        "d": "from the file",
        "e": "an image of e",
    }
    folder = tmp_path / "prompts"
    assert set(suite.notes) == {
        f"{table}:3: text differs from {folder}/b.txt, which counts",
        f"{folder}/c.txt: missing; the text of {table}:4 counts",
        f"{table}:5: no text of d; that of {folder}/d.txt counts",
        f"{folder}/e.txt: empty; the text of {table}:6 counts",
        f"{folder}/lonely.txt: no questions in {table}: left out of the suite",
    }


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([_row(), _row(number=2, dependency="1,9")], r":3: dependency 9 of a does not exist"),
        (
            [_row(dependency=2), _row(number=2, dependency=1)],
            r":2: dependencies of a form a cycle \(1, 2\)",
        ),
        ([_row(), _row(dependency=1)], r":3: proposition_id 1 of a repeats .*:2; this row counts"),
        ([_row(), _row("b"), _row("a", 2)], r":4: a continues after rows of other items"),
        ([_row(), _row(number=2, text="other")], r":3: text of a differs from .*:2, which counts"),
        (
            [_row(), _row(number=2, category_detailed="hole", tuple="entity - hole (a)")],
            r":3: unknown category 'entity - hole' \(1 rows\)",
        ),
        ([_row(category_broad="mood")], r":2: unknown category 'mood - whole' \(1 rows\)"),
        (
            [_row(tuple="global (a)"), _row(number=2, tuple="global (b)")],
            r":2: tuple says 'global', the columns 'entity - whole'.*\(2 rows\)",
        ),
    ],
)
def test_inconsistencies_are_noted_and_do_not_stop_the_import(tmp_path: Path, rows, note) -> None:
    suite = import_suite(_table(tmp_path, *rows))
    assert len([line for line in suite.notes if re.search(note, line)]) == 1, suite.notes
    for prompt in suite.prompts:
        assert read_questions(prompt.checks)


def test_of_two_rows_with_one_id_the_later_one_is_at_the_position_of_the_earlier(tmp_path: Path) -> None:
    rows = (_row(), _row(number=2), _row(question_natural_language="Later?"))
    questions = read_questions(import_suite(_table(tmp_path, *rows)).prompts[0].checks)
    assert [(q.id, q.text) for q in questions] == [(1, "Later?"), (2, "Is there a, number 2?")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"dpg_bench.csv has no rows"),
        ([_row(number="one")], r":2: proposition_id has 'one', which is not a whole number"),
        ([_row(number="1.0")], r":2: proposition_id has '1.0'"),
        ([_row(number="")], r":2: proposition_id has ''"),
        ([_row(number=0)], r":2: proposition_id is 0"),
        ([_row(), _row(number=2, dependency="1;2")], r":3: dependency has '1;2'"),
        ([_row(dependency="")], r":2: dependency has ''"),
        ([_row(dependency=-1)], r":2: dependency has '-1'"),
        ([_row(question_natural_language=" ")], r":2: no question_natural_language"),
        ([_row(item="")], r":2: no item_id"),
        ([_row(number="9" * 5000)], r":2: proposition_id has '9999.*\.\.\., which is not a whole number"),
        ([_row(), _row(number=2, dependency="9" * 5000)], r":3: dependency has '9999"),
        ([_row(), _row(item="A")], r":3: item_id 'A' differs from 'a' only in case"),
        ([_row(text="")], r":2: no text of a, neither here nor in prompts/a.txt"),
        ([[*_row(), "more"]], r":2: more cells than columns"),
    ],
)
def test_unusable_rows_are_refused_by_line(tmp_path: Path, rows, message) -> None:
    with pytest.raises(BadInput, match=message):
        import_suite(_table(tmp_path, *rows))


def test_unreadable_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no .*dpg_bench.csv: give ELLA's folder dpg_bench, or its"):
        import_suite(tmp_path)
    with pytest.raises(BadInput, match=r":1: no column 'dependency'"):
        import_suite(_table(tmp_path, _row(), head=tuple(h.replace("dep", "ind") for h in HEAD)))
    (tmp_path / "dpg_bench.csv").write_bytes(b"item_id\n\xff")
    with pytest.raises(BadInput, match=r":2: not UTF-8"):
        import_suite(tmp_path)
    (tmp_path / "dpg_bench.csv").write_text(",".join(HEAD) + '\na,"never closed')
    with pytest.raises(BadInput, match=r":2: broken CSV"):
        import_suite(tmp_path)


def test_ids_that_are_no_file_names_are_rewritten(tmp_path: Path) -> None:
    suite = import_suite(_table(tmp_path, _row("../a"), _row("a b"), _row("c")))
    assert [prompt.id for prompt in suite.prompts] == [safe_id("../a"), safe_id("a b"), "c"]
    (note,) = suite.notes
    assert "2 item_ids were rewritten for file names: '../a' is a-" in note


def test_a_table_as_spreadsheets_save_it(tmp_path: Path) -> None:
    table = _table(tmp_path, _row("a"), _row("b", 1, "0,2"), _row("b", 2))
    expected, text = import_suite(table), table.read_text()
    with_semicolons = text.replace('"0,2"', "0+2").replace(",", ";").replace("0+2", "0,2")
    for data in ("\ufeff" + text + ",,,,,,,,\n\n", with_semicolons.replace("; ", ", ")):
        table.write_bytes(data.encode())
        assert import_suite(table).prompts == expected.prompts
    table.write_bytes(text.encode("utf-16"))
    assert import_suite(table).prompts == expected.prompts


def test_a_login_page_is_no_table(tmp_path: Path) -> None:
    page = b"<!DOCTYPE html>\n<html><body>Please log in, item_id, text</body></html>"
    (tmp_path / "dpg_bench.csv").write_bytes(page)
    with pytest.raises(BadInput, match="is an HTML page, not a table"):
        import_suite(tmp_path)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(0, 5)), min_size=1))
def test_no_item_is_lost_whatever_the_order_of_rows(tmp_path_factory, rows) -> None:
    table = _table(tmp_path_factory.mktemp("table"), *(_row(*row) for row in rows))
    suite = import_suite(table)
    assert [prompt.id for prompt in suite.prompts] == list(dict.fromkeys(item for item, _, _ in rows))
    kept = sum(len(read_questions(prompt.checks)) for prompt in suite.prompts)
    assert kept == len({(item, number) for item, number, _ in rows})
    assert all(note.startswith(f"{table}:") for note in suite.notes)

"""Prompts of mass synthesis by row: those of the suite, whatever the file; bad rows fail alone."""

import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.storage import prompt_source
from sar_eval.storage.objects import open_store
from sar_eval.suites.prompts import load_suite
from sar_eval.synthesis.prompts import BadRow, FilePrompts, ListedPrompts, draws_of_row, open_prompts
from sar_eval.types import Prompt, make_draw

TEXTS = [f"a {colour} ring, number {n}" for n in range(40) for colour in ("red", "blue", "gr\u00fcner")]


def _write(path: Path) -> Path:
    """The same prompts in the format of the suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"Prompt": TEXTS, "image": [b"x"] * len(TEXTS)}), path, row_group_size=17)
    elif path.suffix == ".jsonl":
        path.write_text(
            "\n".join(json.dumps({"text": text}) + "\n\n \t"[: n % 4] for n, text in enumerate(TEXTS))
        )
    elif path.suffix == ".json":
        path.write_text(json.dumps(TEXTS))
    elif path.suffix == ".csv":
        path.write_text("text\n" + "".join(f'"{text}"\n' for text in TEXTS))
    elif path.suffix == ".txt":
        path.write_text("\n \n".join(TEXTS), encoding="utf-16" if path.stem == "wide" else "utf-8")
    else:
        path.mkdir()
        for number, text in enumerate(TEXTS):
            (path / f"{number:04d}.txt").write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("p.parquet", FilePrompts),
        ("p.jsonl", FilePrompts),
        ("p.txt", FilePrompts),
        ("wide.txt", ListedPrompts),
        ("p.json", ListedPrompts),
        ("p.csv", ListedPrompts),
        ("folder", ListedPrompts),
    ],
)
def test_any_range_is_that_of_the_suite(tmp_path: Path, name: str, kind: type) -> None:
    path = _write(tmp_path / name)
    whole = list(load_suite(path).prompts)
    first = open_prompts(str(path))
    later = open_prompts(str(path), first.index())
    assert isinstance(first, kind)
    assert len(first) == len(later) == len(whole) == len(TEXTS)
    assert first.identity() == later.identity()
    assert first.identity()["rows"] == len(TEXTS)
    order = random.Random(1)
    for _ in range(30):
        start, stop = order.randrange(len(TEXTS)), order.randrange(len(TEXTS) + 9)
        assert first.prompts(start, stop) == later.prompts(start, stop) == whole[start:stop]


@pytest.mark.parametrize("name", ["p.parquet", "p.jsonl", "p.csv"])
def test_a_file_in_a_bucket_is_read_the_same(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / name)
    store = open_store("memory://prompt-source")
    store.write(name, path.read_bytes())
    here, there = open_prompts(str(path)), open_prompts(f"memory://prompt-source/{name}")
    assert there.identity() == here.identity()
    assert there.prompts(20, 90) == here.prompts(20, 90)
    index = there.index()
    assert open_prompts(f"memory://prompt-source/{name}", index).prompts(3, 4) == here.prompts(3, 4)
    store.write(name, path.read_bytes().replace(b"number", b"numder"))
    with pytest.raises(SpecMismatch, match="is not the prompt file that the set was begun with"):
        open_prompts(f"memory://prompt-source/{name}", index)
    with pytest.raises(BadInput, match="there is no memory://prompt-source/none"):
        open_prompts(f"memory://prompt-source/none{path.suffix}")


def test_what_the_user_is_told(tmp_path: Path) -> None:
    [note] = open_prompts(str(_write(tmp_path / "p.parquet"))).notes()
    assert note.endswith("p.parquet: columns are taken by other names: prompts from 'Prompt'")
    store = open_store("memory://prompt-notes")
    store.write("p.csv", b"Caption;id\na ring;1.0\n")
    notes = open_prompts("memory://prompt-notes/p.csv").notes()
    assert notes[0] == "memory://prompt-notes/p.csv: cells are separated by semicolons"
    assert any("prompts from 'Caption'" in note for note in notes)


def test_bad_rows_fail_alone_and_say_nothing_of_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [
        b'{"text": "a ring"}',
        b'{"text": "a ring"',
        b'{"text": ""}',
        b'{"text": "caf\xe9"}',
        b"17",
        b'{"text": "x", "id": [1]}',
        b'{"text": "x", "checks": "{"}',
        b'{"text": "last"}',
    ]
    path.write_bytes(b"\n".join(lines))
    found = open_prompts(str(path)).prompts(0, 99)
    whys = [row.why for row in found if isinstance(row, BadRow)]
    assert [row.row for row in found if isinstance(row, BadRow)] == [1, 2, 3, 4, 5, 6]
    assert found[0] == Prompt("00000", "a ring")
    assert found[-1] == Prompt("00007", "last")
    for why, start in zip(
        whys, ("broken JSON", "no prompt text", "not UTF-8", "each line", "the id"), strict=False
    ):
        assert why.startswith(start), why
    assert "column checks" in whys[-1]
    assert not [why for why in whys if str(tmp_path) in why or "p.jsonl" in why]


def test_a_changed_file_is_refused_and_a_copy_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "p.jsonl")
    index, reads = open_prompts(str(path)).index(), []
    scan_chunk = prompt_source._scan_chunk
    monkeypatch.setattr(
        prompt_source, "_scan_chunk", lambda *a, **k: reads.append(a) or scan_chunk(*a, **k)
    )
    assert len(open_prompts(str(path), index)) == len(TEXTS)
    assert reads == []  # size and time are those of the first start
    copy = tmp_path / "copy.jsonl"
    shutil.copyfile(path, copy)
    os.utime(copy, (1, 1))
    assert len(open_prompts(str(copy), index)) == len(TEXTS)
    assert len(reads) == 1
    renamed = tmp_path / "renamed.txt"
    shutil.copy2(path, renamed)
    with pytest.raises(SpecMismatch, match=r"renamed\.txt is not the prompt file"):
        open_prompts(str(renamed), index)  # its lines would be taken as texts
    source = open_prompts(str(path), index)
    path.write_text(path.read_text().replace("number 7", "number 8", 1))
    for act in (lambda: open_prompts(str(path), index), lambda: source.prompts(0, 1)):
        with pytest.raises(SpecMismatch, match=r"p\.jsonl (is not the prompt file|was written while)"):
            act()
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(SpecMismatch, match=r"restore it, or make another set"):
        open_prompts(str(path), index)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.jsonl", b"\n \n", "has no prompts"),
        ("p.parquet", b"no", "is not a readable Parquet file"),
        ("p.jsonl", b"\x1f\x8b\x08", "is compressed by gzip"),
        ("p.docx", b"x", "a prompt file ends in"),
    ],
)
def test_files_without_prompts_are_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=message):
        open_prompts(str(tmp_path / name))


def test_a_parquet_file_without_a_column_of_prompts_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "p.parquet")
    with pytest.raises(BadInput, match=r"p\.parquet: no column text, prompt.*the columns are 'url'"):
        open_prompts(str(tmp_path / "p.parquet"))


def test_the_suite_of_a_benchmark_and_names_that_are_none(tmp_path: Path) -> None:
    assert len(open_prompts("geneval")) == 553
    with pytest.raises(BadInput, match="no file"):
        open_prompts(str(tmp_path / "none.jsonl"))
    with pytest.raises(BadInput, match="no file genevall"):
        open_prompts("genevall")


def test_draws_are_called_by_row_and_seeded_by_id() -> None:
    prompt = Prompt("ring-7", "a ring", "t", {"include": []})
    draws = draws_of_row(123, prompt, 5, [0, 3])
    assert [draw.key for draw in draws] == ["123/0", "123/3"]
    assert [draw.seed for draw in draws] == [make_draw(prompt, n, 5).seed for n in (0, 3)]
    assert draws[0].prompt.checks == prompt.checks

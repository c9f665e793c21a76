"""Manifests as people write them, and the manifest that `score` would assume."""

import json
from pathlib import Path

import pytest
from test_grid_folders import PROMPTS as GRID_PROMPTS
from test_grid_folders import write_grids
from test_names import NUMBERED, save

from sar_eval.errors import BadInput
from sar_eval.images.folder import HowToRead, find_images, match_files
from sar_eval.stages.write_manifest import write_manifest
from sar_eval.types import Prompt

PROMPTS = NUMBERED[:2]
SECOND = b'{"file": "1.png", "prompt_id": "00001"}'
LINES = ["file,prompt_id,index", "0.png,00000,0", "1.png,00001,0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
    return tmp_path


def keys(folder: Path, each: int = 1) -> dict[str, str]:
    return {key: path.name for key, path in find_images(folder, PROMPTS, HowToRead(each)).files.items()}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("manifest.csv", "\n".join(LINES).encode("utf-8-sig")),
        ("manifest.csv", "\n".join(LINES).encode("utf-16")),
        ("manifest.csv", "\r\n".join([*LINES, ",,", "", ",,"]).encode()),
        ("manifest.csv", "\n".join(line.replace(",", ";") for line in LINES).encode()),
        ("manifest.csv", "\n".join([" file, prompt_id , index", *LINES[1:]]).encode()),
        ("manifest.tsv", "\n".join(line.replace(",", "\t") for line in LINES).encode()),
        ("manifest.jsonl", b'\xef\xbb\xbf{"file": "0.png", "prompt_id": "00000"}\n' + SECOND + b"\n"),
        (
            "manifest.json",
            b'[{"file": "0.png", "prompt_id": "00000"}, ' + SECOND + b"]",
        ),
    ],
)
def test_tables_as_they_come(folder, name, data) -> None:
    (folder / name).write_bytes(data)
    assert keys(folder) == {"00000/0": "0.png", "00001/0": "1.png"}


TEXTS = [prompt.text for prompt in PROMPTS]


@pytest.mark.parametrize(
    ("name", "data", "noted"),
    [
        ("manifest.csv", "file,prompt_id,index\n0.png,0,0.0\n1.png,1,0.0\n", False),  # as pandas writes
        ("manifest.csv", "file, prompt_id, index\n 0.png, 00000, 0\n1.png ,00001 ,0 \n", False),
        (
            "manifest.json",
            '[{"file": "0.png", "prompt_id": 0.0}, {"file": "1.png", "prompt_id": 1}]',
            False,
        ),
        ("manifest.csv", "File;Prompt_ID\n0.png;00000\n1.png;00001\n", True),
        ("manifest.csv", f'file_name,text\n0.png,"{TEXTS[0].upper()}."\n1.png,"{TEXTS[1]} "\n', True),
        ("metadata.csv", f'file_name,text\n0.png,"{TEXTS[0]}"\n1.png,"{TEXTS[1]}"\n', True),
        ("metadata.jsonl", '{"file_name": "0.png", "id": 0}\n{"file_name": "1.png", "id": 1}', True),
        ("manifest.csv", "file,prompt_id\n.\\0.png,00000\n.\\1.png,00001\n", False),
    ],
)
def test_tables_of_other_tools(folder, name, data, noted) -> None:
    (folder / name).write_text(data)
    images = find_images(folder, PROMPTS, HowToRead(1))
    assert {key: path.name for key, path in images.files.items()} == {
        "00000/0": "0.png",
        "00001/0": "1.png",
    }
    assert sum("columns are taken by other names" in note for note in images.notes) == noted


def test_what_is_doubtful_is_told(folder) -> None:
    (folder / "manifest.csv").write_text("file,prompt_id\n0.png,00000\n0.png,00001\n")
    (folder / "manifest.jsonl").write_text('{"file": "0.png", "prompt_id": "00000"}\n' * 2)
    notes = find_images(folder, PROMPTS, HowToRead(2)).notes
    assert "manifest.jsonl is taken, and not manifest.csv" in notes[0]
    assert "1 files are taken as several images each" in notes[1]
    same = [Prompt(prompt.id, "x") for prompt in PROMPTS]
    (folder / "manifest.jsonl").write_text('{"file": "0.png", "prompt": "x"}')
    with pytest.raises(BadInput, match=r"jsonl:1: 2 prompts have this text \(00000, 00001\)"):
        match_files(folder, same, HowToRead(1))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "manifest.csv",
            b"name,id\n0.png,00000\n",
            r"manifest.csv:2: no `file`.*the columns are 'name', 'id'",
        ),
        ("manifest.csv", b"file,title\n0.png,x\n", r":2: neither .*the columns are 'file', 'title'"),
        ("manifest.csv", "file,prompt\n0.png,一只可爱的小猫坐在椅子上\n".encode("gbk"), "manifest.csv"),
        (
            "manifest.csv",
            b"file,prompt_id\n0.png," + b"x" * 140_000,
            "manifest.csv:2: broken CSV|names a prompt",
        ),
        ("manifest.jsonl", b'\xff\xfe{"file"', "manifest.jsonl"),
        ("manifest.jsonl", b'{"file": "a\\u0000.png", "prompt_id": "00000"}', r":1: .*NUL"),
        ("manifest.jsonl", b'{"file": "\\ud800.png", "prompt_id": "00000"}', ":1.*lone surrogate"),
        ("manifest.jsonl", b'{"file": ["0.png"], "prompt_id": "00000"}', ":1: no `file`"),
        ("manifest.jsonl", b'{"file": "/etc/hostname", "prompt_id": "00000"}', "no `file` inside"),
        ("manifest.jsonl", b'{"file": "a/../../x.png", "prompt_id": "00000"}', "no `file` inside"),
        ("manifest.jsonl", b'{"file": "' + b"x" * 300 + b'.png", "prompt_id": "00000"}', ":1: no file"),
        ("manifest.jsonl", b'{"file": "0.png", "prompt_id": "00000", "index": -1}', "`index` is -1"),
        ("manifest.jsonl", b'{"file": "0.png", "prompt_id": "00000", "index": 99999999999}', "`index` is"),
        (
            "manifest.jsonl",
            b'{"file": "0.png", "prompt_id": "00000", "index": ' + b"9" * 5000 + b"}",
            "digits",
        ),
        ("manifest.jsonl", b'{"file": "0.png", "prompt_id": "00000", "index": 1.5}', "`index` is 1.5"),
        ("manifest.jsonl", b'{"file": "0.png", "prompt_id": "00000", "tile": 3}', "`tile` is 3"),
        ("manifest.jsonl", b"[" * 3000, "nested deeper|broken JSON"),
    ],
)
def test_unusable_manifests_are_named_with_their_line(folder, name, data, message) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises(BadInput, match=message):
        keys(folder)


def test_links_and_folders_inside_are_fine(folder) -> None:
    (folder / "deep" / "er" / "down" / "here").mkdir(parents=True)
    (folder / "deep" / "er" / "down" / "here" / "x.png").symlink_to("../../../../0.png")
    (folder / "gone.png").symlink_to("nowhere")
    rows = [
        {"file": "deep/er/down/here/x.png", "prompt_id": "00000"},
        {"file": "gone.png", "prompt_id": "00001"},
    ]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images = find_images(folder, PROMPTS, HowToRead(1))
    assert list(images.problems) == [folder / "gone.png"]


def test_indices_may_count_from_one_or_be_seeds(folder) -> None:
    for numbers, note in (((1, 2), "counted from 1"), ((42, 43), "by seed")):
        rows = [
            {"file": f"{i}.png", "prompt_id": "00000", "index": number} for i, number in enumerate(numbers)
        ]
        (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
        images = find_images(folder, PROMPTS, HowToRead(2))
        assert {key: path.name for key, path in images.files.items()} == {
            "00000/0": "0.png",
            "00000/1": "1.png",
        }
        assert note in images.notes[0]


@pytest.mark.parametrize("names", ["{0}_{1}", "out/{0}_{1}", "out/{2:05d}"])
def test_the_assumed_manifest_gives_the_same_images(tmp_path, names) -> None:
    prompts = [Prompt(f"s-{i}", f"text {i}") for i in range(2)] if "{2" in names else PROMPTS
    files = [names.format(i, 42 + j, 2 * i + j) + ".png" for i in range(2) for j in range(2)]
    for color, file in enumerate(files):
        save(tmp_path / file, color)
    before = find_images(tmp_path, prompts, HowToRead(2))
    text = write_manifest(
        match_files(tmp_path, prompts, HowToRead(2)), prompts, tmp_path / "manifest.jsonl"
    )
    row = {"file": files[1], "prompt_id": prompts[0].id, "index": 1, "prompt": prompts[0].text}
    assert [json.loads(line) for line in text.splitlines()][1] == row
    for where in (tmp_path, tmp_path / "manifest.jsonl"):
        after = find_images(where, prompts, HowToRead(2))
        assert (after.layout, after.files, after.notes) == ("manifest", before.files, [])
        assert (str(after), after.digest()) == (str(before), before.digest())


def test_the_assumed_manifest_of_grids_gives_the_same_tiles(tmp_path) -> None:
    write_grids(tmp_path, padding=2)
    before = find_images(tmp_path, GRID_PROMPTS, HowToRead(4))
    text = write_manifest(match_files(tmp_path, GRID_PROMPTS, HowToRead(4)), GRID_PROMPTS, None)
    assert json.loads(text.splitlines()[3])["tile"] == 3
    (tmp_path / "manifest.jsonl").write_text(text)
    after = find_images(tmp_path, GRID_PROMPTS, HowToRead(4))
    assert (after.layout, after.files, after.grid) == ("manifest", before.files, before.grid)
    assert (str(after), after.digest()) == (str(before), before.digest())


def test_rows_with_and_without_tiles_are_refused(folder) -> None:
    rows = [{"file": "0.png", "prompt_id": "00000", "tile": 0}, {"file": "1.png", "prompt_id": "00001"}]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadInput, match="1 rows have a `tile` and 1 have none"):
        keys(folder)

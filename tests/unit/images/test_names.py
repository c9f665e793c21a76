"""File names as people bring them: which prompt, which image of it, and what is said of it."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.cli.score import parse_grid
from sar_eval.errors import BadInput
from sar_eval.images.folder import HowToRead, ImageFolder, find_images, match_files
from sar_eval.types import Prompt, safe_id

NUMBERED = [Prompt(f"{i:05d}", f"a photo of {i} benches, number {i}") for i in range(12)]
TEXTS = [
    Prompt("a-1", "a photo of a bench"),
    Prompt("a-2", "a photo of a bench left of a bear"),
    Prompt("b-1", "An old man's hat: red, green & blue / 1950"),
    Prompt("b-2", "a dog " * 60 + "with a very long end"),
]
SHAPES = [Prompt(name, name) for name in ("counting-000", "counting-001", "position-000")]


def save(path: Path, color: int = 7, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), color % 255, np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path)
    return path


def found(root: Path, prompts, names, each: int, **how) -> ImageFolder:
    for name in names:
        save(root / f"{name}.png")
    return find_images(root, prompts, HowToRead(each, **how))


def stems(root: Path, images: ImageFolder) -> dict[str, str]:
    return {key: path.relative_to(root).with_suffix("").as_posix() for key, path in images.files.items()}


@pytest.mark.parametrize("separator", ["_", "/", "/samples/", "-", "_seed", "_seed_", "/seed_", "/image_"])
def test_numbers_are_ordered_as_numbers(tmp_path, separator) -> None:
    """As text, 10 and 11 would come before 2."""
    names = [f"{i}{separator}{j}" for i in range(12) for j in range(11)]
    images = found(tmp_path, NUMBERED, names, 11)
    assert stems(tmp_path, images)["00010/2"] == f"10{separator}2"
    assert stems(tmp_path, images)["00002/10"] == f"2{separator}10"
    assert (len(images.files), images.notes) == (132, ["ids are written without their leading zeros"])


@pytest.mark.parametrize(
    "pattern", ["{j}/{i:05d}", "seed_{j}/{i:05d}", "seed{j}/a photo of {i} benches, number"]
)
def test_folders_may_be_the_numbers_of_images(tmp_path, pattern) -> None:
    names = [pattern.format(i=i, j=j) for i in range(12) for j in range(2)]
    images = found(tmp_path, NUMBERED, names, 2)
    assert stems(tmp_path, images)["00003/1"] == pattern.format(i=3, j=1)
    assert "folders are the numbers of the images" in images.notes[0]


def test_folders_and_files_that_fit_either_way_are_refused(tmp_path) -> None:
    """`0/00001` is image 1 of prompt 0, or image 0 of prompt 1."""
    with pytest.raises(BadInput, match="may be <prompt id>/<index> or <index>/<prompt id>"):
        found(tmp_path, NUMBERED[:2], ["0/00000", "0/00001", "1/00000", "1/00001"], 2)


@pytest.mark.parametrize("pattern", ["{i:05d}_{text}", "{i}-{text}"])
@pytest.mark.parametrize("each", [1, 2])
def test_names_of_ids_and_texts(tmp_path, pattern, each) -> None:
    prompts = [Prompt(f"{i:05d}", prompt.text) for i, prompt in enumerate(TEXTS[:2])]
    numbers = [""] if each == 1 else ["_0", "_1"]
    names = [pattern.format(i=i, text=p.text) + n for i, p in enumerate(prompts) for n in numbers]
    images = found(tmp_path, prompts, names, each)
    assert stems(tmp_path, images)["00001/0"] == names[each]
    assert images.notes == ["files are named by the ids and texts of prompts"]
    save(tmp_path / f"00000 {prompts[1].text}.png")  # the number is of one prompt, the text of another
    assert match_files(tmp_path, prompts, HowToRead(each)).unmatched


def test_running_numbers_over_folders_of_gpus(tmp_path) -> None:
    names = [f"gpu{i // 3}/{i}" for i in range(6)]
    images = found(tmp_path, SHAPES, names, 2)
    assert stems(tmp_path, images)["counting-001/1"] == "gpu1/3"


def test_accents_that_a_mac_takes_apart(tmp_path) -> None:
    prompts = [Prompt("a", "un café à Orléans"), Prompt("b", "un thé")]
    names = [unicodedata.normalize("NFD", prompt.text) for prompt in prompts]
    assert stems(tmp_path, found(tmp_path, prompts, names, 1)) == {"a/0": names[0], "b/0": names[1]}


@pytest.mark.parametrize(
    ("numbers", "note"),
    [
        ((1, 2, 3, 4), "files are counted from 1: taken as 0 to 3"),
        ((42, 43, 44, 45), "files are numbered 42 to 45 (by seed?): taken in order as 0 to 3"),
        ((5, 100, 20, 3), "files are numbered 3, 5, 20, 100 (by seed?): taken in order as 0 to 3"),
        ((0, 1, 2, 3), None),
    ],
)
@pytest.mark.parametrize("pattern", ["{}_{}", "{}/{}", "{}_seed_{}"])
def test_numbers_that_are_no_indices(tmp_path, pattern, numbers, note) -> None:
    names = [pattern.format(prompt.id, number) for prompt in NUMBERED[:3] for number in numbers]
    images = found(tmp_path, NUMBERED[:3], names, 4)
    assert images.notes == ([note] if note else [])
    ordered = sorted(numbers)
    assert stems(tmp_path, images) == {
        f"{prompt.id}/{i}": pattern.format(prompt.id, ordered[i])
        for prompt in NUMBERED[:3]
        for i in range(4)
    }


def test_seeds_of_each_prompt_of_its_own(tmp_path) -> None:
    names = [f"{p.id}_{1000 * n + 7 * i + 5}" for n, p in enumerate(NUMBERED[:3]) for i in range(2)]
    images = found(tmp_path, NUMBERED[:3], names, 2)
    assert images.notes == ["each prompt has numbers of its own (by seed?): taken in order as 0 to 1"]
    assert stems(tmp_path, images)["00002/1"] == "00002_2012"


def test_a_missing_seed_keeps_the_others_in_place(tmp_path) -> None:
    names = [f"{p.id}_{seed}" for p in NUMBERED[:3] for seed in (42, 43, 44)]
    names.remove("00001_43")
    images = found(tmp_path, NUMBERED[:3], names, 3)
    assert stems(tmp_path, images)["00001/2"] == "00001_44"
    assert "00001/1" not in images.files


@pytest.mark.parametrize("names", [["0_0", "00000_0"], ["00000_1", "00000_01"], ["00000/1", "00000_1"]])
def test_two_files_of_one_draw_are_refused_with_both_names(tmp_path, names) -> None:
    with pytest.raises(
        BadInput, match=rf"{names[0]}\.png.*{names[1]}\.png|{names[1]}\.png.*{names[0]}\.png"
    ):
        found(tmp_path, NUMBERED, names, 2)


def test_more_images_than_expected_are_refused(tmp_path) -> None:
    names = [f"{prompt.id}_{i}" for prompt in NUMBERED for i in range(1, 6)]
    with pytest.raises(BadInput, match=r"which has 5 images, but 4 a prompt.*--images-per-prompt"):
        found(tmp_path, NUMBERED, names, 4)


@pytest.mark.parametrize("folder", ["", "samples/", "out/images/"])
def test_prompt_texts_as_names(tmp_path, folder) -> None:
    """As T2I-CompBench writes them, with characters replaced and the end cut off."""
    names = [
        *("a photo of a bench", "a_photo_of_a_bench_left_of_a_bear"),
        *("An old man_s hat_ red, green & blue _ 1950", ("a dog " * 60)[:200]),
    ]
    images = found(tmp_path, TEXTS, [f"{folder}{name}_{i:06d}" for name in names for i in range(10)], 10)
    assert images.notes[0] == "files are named by the texts of their prompts"
    assert [note[-34:] for note in images.notes[1:]] == ["the folders above them are ignored"][
        : bool(folder)
    ]
    assert len(images.files) == 40
    assert stems(tmp_path, images)["a-2/9"] == f"{folder}{names[1]}_000009"
    assert stems(tmp_path, images)["b-2/3"] == f"{folder}{names[3]}_000003"


def test_a_cut_off_text_of_several_prompts_is_refused(tmp_path) -> None:
    prompts = [Prompt("x", "a very long story of a cat"), Prompt("y", "a very long story of a dog")]
    with pytest.raises(BadInput, match="names no prompt"):
        found(tmp_path, prompts, ["a very long story of a_0"], 1)
    with pytest.raises(BadInput, match="names no prompt"):
        found(tmp_path / "2", [Prompt("x", "a cat!"), Prompt("y", "A cat")], ["a cat_0"], 1)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("pattern", ["{:05d}", "{}", "image_{:03d}", "out/{:05d}"])
def test_running_numbers_are_taken_where_they_are_no_ids(tmp_path, first, pattern) -> None:
    names = [pattern.format(first + i) for i in range(12)]
    images = found(tmp_path, SHAPES, names, 4)
    assert stems(tmp_path, images) == {f"{SHAPES[i // 4].id}/{i % 4}": names[i] for i in range(12)}
    (note,) = images.notes
    assert f"numbered {first} to {first + 11} over the whole folder" in note


@pytest.mark.parametrize("first", [0, 1])
def test_running_numbers_that_meet_ids_must_be_said(tmp_path, first) -> None:
    names = [f"{first + i:05d}" for i in range(48)]
    with pytest.raises(BadInput, match=r"12 prompts x 4 images are expected, but.*say --numbered"):
        found(tmp_path, NUMBERED, names, 4)
    images = find_images(tmp_path, NUMBERED, HowToRead(4, numbered=True))
    assert stems(tmp_path, images)["00002/1"] == names[9]


def test_one_image_a_prompt_counted_from_one_must_be_said(tmp_path) -> None:
    """Number 1 is the id of the second prompt, and may be the first file."""
    with pytest.raises(BadInput, match="--numbered"):
        found(tmp_path, NUMBERED, [f"{i + 1}" for i in range(12)], 1)
    images = found(tmp_path / "ids", NUMBERED, [f"{i}" for i in range(12)], 1)
    assert stems(tmp_path / "ids", images)["00011/0"] == "11"


@pytest.mark.parametrize("numbers", [range(11), range(2, 14), [*range(11), 12]])
def test_running_numbers_must_be_complete(tmp_path, numbers) -> None:
    with pytest.raises(BadInput, match=r"x 4 = 12 images|names no prompt"):
        found(tmp_path, SHAPES, [f"{i:04d}" for i in numbers], 4)
    with pytest.raises(BadInput, match="running numbers must be those of 3 prompts x 4 = 12 images"):
        find_images(tmp_path, SHAPES, HowToRead(4, numbered=True))


def test_ids_with_dots_and_ids_that_were_made_safe(tmp_path) -> None:
    prompts = [
        Prompt("v1.5_a", "x"),
        Prompt("2.0", "y"),
        Prompt(safe_id("vg/12"), "z"),
        Prompt(safe_id("猫"), "c"),
    ]
    images = found(tmp_path, prompts, ["v1.5_a_0", "2.0_0", "vg/12_0", "猫_0"], 1)
    assert [stems(tmp_path, images)[f"{p.id}/0"] for p in prompts] == [
        "v1.5_a_0",
        "2.0_0",
        "vg/12_0",
        "猫_0",
    ]


def test_folders_of_gpus_do_not_matter(tmp_path) -> None:
    names = [f"gpu{i % 2}/{prompt.id}_0" for i, prompt in enumerate(NUMBERED)]
    images = found(tmp_path, NUMBERED, names, 1)
    assert len(images.files) == 12
    assert images.notes == ["files are matched by their names alone: the folders above them are ignored"]


def test_a_folder_of_the_only_prompt_that_has_images_is_no_wrapping(tmp_path) -> None:
    images = found(tmp_path, TEXTS, [f"a photo of a bench/{i}" for i in range(4)], 4)
    assert stems(tmp_path, images)["a-1/3"] == "a photo of a bench/3"


def test_files_of_systems_are_skipped_in_one_note(tmp_path) -> None:
    found(tmp_path, NUMBERED[:1], ["00000_0", "00000_1", ".ipynb_checkpoints/00000_0-checkpoint"], 2)
    for name in (
        "._00000_0.png",
        ".DS_Store",
        "Thumbs.db",
        "__MACOSX/._00000_1.png",
        "__MACOSX/00000_0.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    images = find_images(tmp_path, NUMBERED[:1], HowToRead(2))
    (note,) = images.notes
    assert note.startswith("6 hidden files or files of the system are skipped: .DS_Store, ._00000_0.png")
    assert sorted(stems(tmp_path, images).values()) == ["00000_0", "00000_1"]


def test_images_in_other_formats_are_told(tmp_path) -> None:
    save(tmp_path / "00000_0.png")
    (tmp_path / "00001_0.gif").write_bytes(b"GIF89a")
    (note,) = find_images(tmp_path, NUMBERED[:2], HowToRead(1)).notes
    assert note == "1 files are in formats that are not read (convert them to PNG): 00001_0.gif"


def test_links_are_followed_and_loops_are_not(tmp_path) -> None:
    save(tmp_path / "store" / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "00000_0.png").symlink_to("../store/a.png")
    (tmp_path / "in" / "00001_0.png").symlink_to("00001_0.png")
    (tmp_path / "in" / "again").symlink_to(".")
    images = find_images(tmp_path / "in", NUMBERED[:2], HowToRead(1))
    assert len(images.files) == 2
    assert images.problems.keys() == {tmp_path / "in" / "00001_0.png"}
    assert len(images.digest()) == 16


def test_names_that_are_no_text(tmp_path) -> None:
    save(tmp_path / "00000_0.png")
    os.rename(tmp_path / "00000_0.png", os.fsencode(tmp_path) + b"/\xff_0.png")  # noqa: PTH104
    with pytest.raises(BadInput, match=r"udcff_0\.png names no prompt") as error:
        find_images(tmp_path, NUMBERED, HowToRead(1))
    str(error.value).encode()


def test_sizes_are_noted_and_may_be_refused(tmp_path) -> None:
    for i, size in enumerate([(64, 64), (80, 48), (64, 64), (48, 80)]):
        save(tmp_path / f"{NUMBERED[i].id}_0.png", size=size)
    images = find_images(tmp_path, NUMBERED[:4], HowToRead(1))
    assert str(images) == "64x64 and 2 other sizes"
    assert images.notes == [
        (
            "2 of 4 images are of other sizes than most (64x64): 80x48, 48x80; judged as they are "
            "(--same-size makes each an error)"
        )
    ]
    same = find_images(tmp_path, NUMBERED[:4], HowToRead(1, same_size=True))
    assert (str(same), same.digest()) == ("64x64", images.digest())
    assert same.notes[0].endswith("an error each")


CHECKS = [
    {"tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": f"a photo of a {name}"}
    for name in ("dog", "cup", "dog")
]
OFFICIAL = [Prompt(f"{i:05d}", str(c["prompt"]), "single_object", c) for i, c in enumerate(CHECKS)]


def official(root: Path, numbers, each: int = 1, **changes) -> Path:
    for number, checks in zip(numbers, CHECKS, strict=True):
        for index in range(each):
            save(root / f"{number:05d}" / "samples" / f"{index:05d}.png")
        (root / f"{number:05d}" / "metadata.jsonl").write_text(json.dumps(checks | changes), "utf-8-sig")
    return root


def test_rewritten_prompts_are_matched_by_what_is_to_be_seen(tmp_path) -> None:
    """Two of them ask for the same, so their folders' numbers decide. All files have a byte order mark."""
    folder = official(tmp_path, (0, 1, 2), prompt="a long description of a thing", index=5)
    images = find_images(folder, OFFICIAL, HowToRead(1))
    assert {key: path.parts[-3] for key, path in images.files.items()} == {
        f"{i:05d}/0": f"{i:05d}" for i in range(3)
    }
    assert images.notes == ["3 prompts were rewritten: their folders are matched by `tag` and `include`"]


def test_rewritten_prompts_in_folders_of_other_numbers_may_be_ambiguous(tmp_path) -> None:
    folder = official(tmp_path, (7, 8, 9), prompt="a long description of a thing")
    with pytest.raises(BadInput, match=r"fits 2 prompts \(00000, 00002\): write a manifest"):
        find_images(folder, OFFICIAL, HowToRead(1))


def test_more_keys_in_the_metadata_do_not_matter(tmp_path) -> None:
    folder = official(tmp_path, (5, 9, 3), index=7, detailed_caption="...")
    with pytest.raises(BadInput, match="fits 2 prompts"):
        find_images(folder, OFFICIAL, HowToRead(1))
    assert len(find_images(official(tmp_path / "2", (2, 1, 0)), OFFICIAL, HowToRead(1)).files) == 3


def test_what_lies_beside_official_folders(tmp_path) -> None:
    folder = official(tmp_path, (0, 1, 2))
    (folder / "00000" / "samples" / "._00000.png").write_bytes(b"\0\5\26\7")
    save(folder / "00003" / "samples" / "00000.png")
    save(folder / "00000" / "grid.png")
    images = find_images(folder, OFFICIAL, HowToRead(1))
    assert len(images.files) == 3
    assert images.notes == [
        "1 folders without metadata.jsonl are left out: 00003",
        "1 hidden files or files of the system are skipped: 00000/samples/._00000.png",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"[]", "is no JSON object"),
        (b"[" * 5000, "nested deeper"),
        (b'{"prompt": NaN}', "NaN"),
        (b'{"prompt": "\\ud800"}', "lone surrogate"),
        (b"", "broken JSON"),
    ],
)
def test_unusable_metadata_is_named(tmp_path, data, message) -> None:
    folder = official(tmp_path, (0, 1, 2))
    (folder / "00001" / "metadata.jsonl").write_bytes(data)
    with pytest.raises(BadInput, match=f"00001/metadata.jsonl.*{message}"):
        find_images(folder, OFFICIAL, HowToRead(1))


def test_match_files_keeps_what_matches_nothing(tmp_path) -> None:
    for name in ("00000_0", "overview"):
        save(tmp_path / f"{name}.png")
    matched = match_files(tmp_path, NUMBERED, HowToRead(1))
    assert (list(matched.files), [path.name for path in matched.unmatched]) == (
        ["00000/0"],
        ["overview.png"],
    )


def test_the_grid_that_is_said_must_hold_the_images_that_are_expected(tmp_path) -> None:
    with pytest.raises(BadInput, match="--grid 2x2 shows 4 images, but 9 are expected"):
        found(tmp_path, NUMBERED, ["00000"], 9, grid=(2, 2))
    with pytest.raises(BadInput, match="--grid is for one file a prompt"):
        found(tmp_path / "2", NUMBERED[:1], ["00000_0"], 4, grid=(2, 2))


@pytest.mark.parametrize("text", ["2by2", "2", "0x4", "2x", "x", "1000x1000"])
def test_grids_are_rows_and_columns(text) -> None:
    with pytest.raises(BadInput, match=r"--grid is '.*': rows and columns, as 2x2 or 1x4"):
        parse_grid(text)
    assert parse_grid(" 1X4 ") == (1, 4)

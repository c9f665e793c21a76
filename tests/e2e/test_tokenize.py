"""`train tokenize` and `train inspect` as commands: workers, kills, a full disk, a bucket.

`SAR_EVAL_KILLS=20` kills so often at random moments; the default is a look.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import s3_server
from tests.small_sets import png
from tests.token_folders import small_tokenizer, tokenize
from tests.warm_command import WarmCommand

KILLS = int(os.environ.get("SAR_EVAL_KILLS", "2"))
BLOCK = ("--block-pictures", "5", "--size", "16", "--crop", "random", "--workers", "2", "--devices", "cpu")
OPTIONS = {"block_pictures": 5, "size": (16, 16), "crop": "random"}


@pytest.fixture(scope="module")
def visual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tokenizer(tmp_path_factory.mktemp("visual"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """41 pictures, of which one is damaged."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(41):
        (folder / f"{number:02d}.png").write_bytes(png(number, 24))
        (folder / f"{number:02d}.txt").write_text(f"number {number}")
    (folder / "07.png").write_bytes(b"torn")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".tmp/")}


def test_a_damaged_picture_is_told_and_strict_fails(
    sar_eval_here: Callable[..., tuple[int, str]], visual: Path, data: Path, tmp_path: Path
) -> None:
    tokenize([data], visual, tmp_path / "out", **OPTIONS)  # so that no worker has to start
    words = ("train", "tokenize", "--data", data, "--tokenizer", visual, "--out", tmp_path / "out", *BLOCK)
    code, said = sar_eval_here(*words)
    assert code == 0
    assert "40 rows, 160 tokens, 40 captions in" in said
    assert "left out: 1 damaged, or of a format that is not read" in said
    assert "data/07.png: unreadable (" in said
    code, said = sar_eval_here(*words, "--strict")
    assert code == 3
    assert "1 pictures are damaged or lack something" in said
    page = tmp_path / "page.html"
    code, said = sar_eval_here(
        "train", "inspect", tmp_path / "out", "--tokenizer", visual, "--rows", 3, "--out", page
    )
    assert code == 0
    assert page.read_text().count("data:image/png") == 3
    for flags, word in (
        (("--size", "x"), "--size is 'x'"),
        (
            ("--size", "20"),
            "--size 20: this tokenizer takes pictures whose height is a multiple of 8 pixels",
        ),
        (("--crop", "left"), "--crop is 'left'"),
        (("--caption-column", "text"), "no table of captions"),
        (("--min-side", "8"), "begun with min_side 0, not 8"),
    ):
        code, said = sar_eval_here(*words, *flags)
        assert (code, "Traceback" in said) == (2, False), said
        assert word in said


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * KILLS)
def test_killed_at_random_moments(visual: Path, data: Path, tmp_path: Path) -> None:
    dice = random.Random(19)  # moments; what happens in them is up to the machine
    tokenize([data], visual, tmp_path / "calm", **OPTIONS)
    calm, out, kills, finished = contents(tmp_path / "calm"), tmp_path / "out", 0, 0
    words = ("train", "tokenize", "--data", data, "--tokenizer", visual, "--out", out, *BLOCK)
    with WarmCommand() as warm:
        began = time.monotonic()
        assert warm.run(words) == 0
        lasts = time.monotonic() - began
        assert contents(out) == calm
        shutil.rmtree(out)
        while kills < KILLS or not finished:
            code = warm.run(words, dice.uniform(0.0, lasts) if kills < KILLS else None)
            kills += code is None
            if code is not None:
                assert code == 0
                assert contents(out) == calm
                shutil.rmtree(out)
                finished += 1


@pytest.mark.slow
def test_a_full_disk_leaves_what_is_done(
    sar_eval: Callable[..., subprocess.CompletedProcess[str]],
    faulty_disk: Callable[..., dict[str, str]],
    visual: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    words = ("train", "tokenize", "--data", data, "--tokenizer", visual, "--out", tmp_path / "out", *BLOCK)
    done = sar_eval(*words, "--workers", 1, env=faulty_disk("fsync", "ENOSPC", "/out/.tmp", 9))
    assert done.returncode == 3, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    tokenize([data], visual, tmp_path / "out", **OPTIONS)
    tokenize([data], visual, tmp_path / "calm", **OPTIONS)
    assert contents(tmp_path / "out") == contents(tmp_path / "calm")


@pytest.mark.slow
def test_from_a_bucket_to_a_bucket(
    visual: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    with s3_server.s3_server() as proxy:
        s3_server.use(proxy, monkeypatch)
        store = fsspec.filesystem("s3", skip_instance_cache=True, endpoint_url=proxy.url)
        store.put(f"{data}/", "bucket/data/", recursive=True)
        assert tokenize(["s3://bucket/data"], visual, "s3://bucket/out", **OPTIONS).rows == 40
        tokenize([data], visual, tmp_path / "local", **OPTIONS)
        shards = {path.name: path.read_bytes() for path in (tmp_path / "local").glob("shard-*")}
        assert {name: store.cat_file(f"bucket/out/{name}") for name in shards} == shards
        manifest = json.loads(store.cat_file("bucket/out/manifest.json"))
        assert manifest["rejected"] == {"unreadable": 1}

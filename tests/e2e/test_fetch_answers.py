"""Downloads: answers that are not the file, versions that change, and machines without a home."""

import hashlib
import os
import random
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, Incomplete
from sar_eval.stages.fetch import fetch
from sar_eval.tensors import published_weights
from sar_eval.tensors.published_weights import cache_folder, checksum_path
from sar_eval.tensors.remote_file import RemoteFile
from tests.e2e.download_server import DATA, LOGIN, QUESTIONS, UNKNOWN, fetch_file, fetch_unknown


@pytest.mark.parametrize("value", ["0", "false", "", "no", "off"])
def test_other_values_are_not_offline(server, monkeypatch, value) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert fetch_file().read_bytes() == DATA


def fetch_questions():
    return fetch((QUESTIONS,), pause_s=0)[0]


@pytest.mark.parametrize(
    ("file", "body", "message"),
    [
        (QUESTIONS, LOGIN, "is a web page"),
        (QUESTIONS, b"\n  <html>", "is a web page"),
        (QUESTIONS, b"id,text\n1,a\n", "is no table of DPG's questions .no column item_id"),
        (UNKNOWN, LOGIN, "is a web page"),
        (UNKNOWN, b"junk", "is no torch file of weights"),
        (UNKNOWN, b"PK\x03\x04", "is no torch file of weights"),
        (RemoteFile("c.yaml", "https://example.org/c.yaml", "", ""), b"junk", "is no table of settings"),
        (
            RemoteFile("c.yaml", "https://example.org/c.yaml", "", ""),
            b"a: [",
            "is no readable configuration",
        ),
        (RemoteFile("c.json", "https://example.org/c.json", "", ""), b"[" * 999, "is no readable config"),
        (
            RemoteFile("vocab.txt", "https://example.org/w.txt", "", ""),
            b"\xff\xfe",
            "is no list of word pieces",
        ),
        (RemoteFile("w.pt", "https://example.org/w.pt", "", ""), b"junk", "is no torch file of weights"),
        (
            RemoteFile("w.safetensors", "https://example.org/w.safetensors", "", ""),
            b"\xff" * 8 + b"{}",
            "is no safetensors file",
        ),
        (RemoteFile("rows.json", "https://example.org/r.json", "", ""), b'"a"', "is no table of settings"),
        (RemoteFile("rows.jsonl", "https://example.org/r.jsonl", "", ""), b"Gone", "holds no JSON lines"),
        (RemoteFile("rows.csv", "https://example.org/r.csv", "", ""), b"\xff\xfe abcd", "is no text"),
        (RemoteFile("rows.parquet", "https://example.org/r", "", ""), b"id,text", "is no Parquet file"),
    ],
)
def test_what_cannot_be_the_file_is_not_kept(server, tmp_path, file, body, message) -> None:
    server.body = body
    with pytest.raises(Incomplete, match=rf"gave {message}.*; it is removed.*put it at"):
        fetch((file,), pause_s=0)
    left = {path.name for path in (tmp_path / "cache" / file.name).parent.iterdir()}
    assert left == {f"{(tmp_path / file.name).name}.lock"}


def test_what_an_earlier_version_kept_is_told_with_the_files_to_remove(server, tmp_path) -> None:
    path = tmp_path / "cache" / "dpg_bench.csv"
    path.parent.mkdir()
    path.write_bytes(LOGIN)
    checksum_path(path).write_text(f"{hashlib.sha256(LOGIN).hexdigest()}  dpg_bench.csv\n")
    with pytest.raises(BadInput, match=rf"{path} is a web page.*: remove it and {checksum_path(path)}"):
        fetch_questions()
    path.unlink()
    server.body = b"item_id,text\n"
    with pytest.raises(Incomplete, match=rf"if its publisher changed it, remove {checksum_path(path)}"):
        fetch_questions()


def test_two_versions_of_a_file_are_not_joined(server, tmp_path) -> None:
    server.headers, server.cut_after = {"ETag": '"one"'}, [700_000] + [0] * 20
    with pytest.raises(Incomplete, match="700000 bytes are kept"):
        fetch_unknown(tmp_path)
    server.headers, server.cut_after = {"ETag": '"two"'}, []
    server.body = b"PK\x03\x04" + random.Random(1).randbytes(2_000_000)
    assert fetch_unknown(tmp_path).read_bytes() == server.body
    assert server.requests[-1][1] == "bytes=700000-"


def test_a_server_that_ignores_if_range_is_asked_anew(server, tmp_path) -> None:
    server.headers, server.cut_after = {"ETag": '"one"'}, [700_000] + [0] * 20
    with pytest.raises(Incomplete):
        fetch_unknown(tmp_path)
    server.headers, server.cut_after, server.ignores_if_range = {"ETag": '"two"'}, [], True
    server.body = b"PK\x03\x04" + random.Random(1).randbytes(2_000_000)
    assert fetch_unknown(tmp_path).read_bytes() == server.body


def test_the_same_version_is_resumed(server, tmp_path) -> None:
    server.headers, server.cut_after = (
        {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"},
        [700_000] + [0] * 20,
    )
    with pytest.raises(Incomplete):
        fetch_unknown(tmp_path)
    server.cut_after, server.ignores_if_range = [], True
    assert fetch_unknown(tmp_path).read_bytes() == DATA
    assert server.sent == len(DATA)
    assert sorted(path.name for path in (tmp_path / "cache" / "folder").iterdir()) == [
        *("weights.bin", "weights.bin.lock", "weights.bin.sha256")
    ]


@pytest.mark.parametrize("length", ["abc", "-5", "9" * 30, "1.5"])
def test_an_answer_with_a_senseless_length_is_told(server, length) -> None:
    server.length = length
    with pytest.raises(Incomplete, match=rf"the Content-Length '{length}"):
        fetch_file()


def test_a_server_that_always_answers_416_is_given_up(server, tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.bin.part").write_bytes(b"x" * 50)
    server.always_416 = True
    with pytest.raises(Incomplete, match="416"):
        fetch_file()
    assert len(server.requests) < 10


@pytest.mark.parametrize(
    "mirror", ["example.org", "//example.org", "ftp://example.org", "file:///etc", "https://"]
)
def test_a_mirror_needs_a_scheme(server, monkeypatch, mirror) -> None:
    monkeypatch.setenv("SAR_EVAL_MIRROR", mirror)
    with pytest.raises(BadInput, match=r"SAR_EVAL_MIRROR is .*must begin with https:// or http://"):
        fetch_file()


@pytest.mark.parametrize("note", [b"\xff\xfe", b"", b"<html>", b"abc"])
def test_a_note_that_is_no_checksum_is_told(server, tmp_path, note) -> None:
    path = fetch_unknown(tmp_path)
    path.unlink()
    checksum_path(path).write_bytes(note)
    with pytest.raises(BadInput, match=rf"{checksum_path(path)} holds no SHA-256: remove it and {path}"):
        fetch_unknown(tmp_path)


def test_a_user_without_a_home_has_a_cache(monkeypatch, capsys, tmp_path) -> None:
    """A container's `--user 12345`: neither HOME nor an entry in the password file."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("SAR_EVAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    published_weights._folder_without_home.cache_clear()
    assert cache_folder() == cache_folder() == tmp_path / f"sar-eval-{os.getuid()}"
    assert capsys.readouterr().err.count("note: this user has no home folder") == 1
    published_weights._folder_without_home.cache_clear()


def test_what_the_hub_announces_must_come(server, tmp_path) -> None:
    """The answer that leads to the hub's store has the SHA-256 of a large file."""
    server.linked_tag, server.cut_after = f'"{hashlib.sha256(DATA).hexdigest()}"', [700_000]
    assert fetch_unknown(tmp_path).read_bytes() == DATA
    assert [byte_range for _, byte_range in server.requests] == [None, "bytes=700000-"]
    assert server.requests[0][0] == "/store/models/weights.bin"
    (tmp_path / "cache" / "folder" / "weights.bin").unlink()
    checksum_path(tmp_path / "cache" / "folder" / "weights.bin").unlink()
    server.body = DATA[:-1] + b"x"
    with pytest.raises(Incomplete, match=r"gave other bytes than published .*they are removed"):
        fetch_unknown(tmp_path)
    server.linked_tag = '"not-a-checksum"'
    assert fetch_unknown(tmp_path).read_bytes() == server.body

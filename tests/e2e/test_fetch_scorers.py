"""`fetch scorers`: sizes and licences first, files and folders by name, and which file is which."""

import io
import json
import os
import shutil
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, StorageFailed, UnknownName
from sar_eval.stages.fetch_plan import Part, download, plan, weights_of
from sar_eval.tensors.published_weights import (
    FOR_SCORERS,
    WEIGHTS,
    checksum_path,
    find_weights,
    which_published,
)
from sar_eval.tensors.remote_file import HubFolder, RemoteFile, in_words
from tests.e2e.download_server import DATA, SHA
from tests.e2e.hub_server import Hub

SAFETENSORS = (2).to_bytes(8, "little") + b"{}" + b"\0" * 1_000_000
SCORER = """
from sar_eval.types import ScorerFacts

class Two:
    variants = {
        "new": ScorerFacts("points", None, None, True, "MIT", ("hps-v2.1", "clip")),
        "old": ScorerFacts("points", None, None, True, "MIT", ("hps-v2.0", "clip")),
    }
"""


def test_every_name_says_size_licence_and_address(server, sar_eval_here) -> None:
    code, listing = sar_eval_here("fetch", "scorers", "--dry-run")
    assert code == 0
    for name in FOR_SCORERS:
        weights = WEIGHTS[name]
        size = weights.size if isinstance(weights, HubFolder) else sum(file.size for file in weights)
        assert size, name
        assert f"missing  [{name}]" in listing
    assert "HPSv2.1 (ViT-H-14); about 1.97 GB; licence: Apache-2.0" in listing
    assert "4.07 kB; licence: MIT\n" in listing
    assert "https://huggingface.co/zhiqiulin/clip-flant5-xxl" in listing
    assert "licence: not known" not in listing
    assert server.requests == []
    assert listing.splitlines()[-1].startswith("to download: about 6")


def test_published_checksums_stand_where_the_publisher_has_them() -> None:
    for name in ("clip", "clip-b32", "clip-l14-336"):
        (file,) = WEIGHTS[name]
        assert file.url.split("/")[-2] == file.sha256
        assert len(file.sha256) == 64
    (inception,) = WEIGHTS["inception-fid"]
    assert inception.url.endswith(f"-{inception.sha256}.pth")


def test_one_file_is_found_as_a_file(server, sar_eval_here, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"sar-eval fetch scorers hps-v2.1` downloads HPSv2.1.*xswu/HPSv2"):
        find_weights("hps-v2.1")
    server.cut_after = [1_000_000]
    code, output = sar_eval_here("fetch", "scorers", "hps-v2.1")
    assert code == 0, output
    assert "HPSv2.1 (ViT-H-14): about 1.97 GB; licence: Apache-2.0" in output
    assert f"no checksum is published; that of the first download is noted: {SHA}" in output
    assert [byte_range for _, byte_range in server.requests] == [None, "bytes=1000000-"]
    assert server.requests[0][0] == "/xswu/HPSv2/resolve/main/HPS_v2.1_compressed.pt"
    assert find_weights("hps-v2.1").read_bytes() == DATA
    assert sar_eval_here("fetch", "scorers", "hps-v2.1")[0] == 0
    assert len(server.requests) == 2


def test_several_files_are_found_as_a_folder(server, sar_eval_here, tmp_path) -> None:
    server.body = SAFETENSORS
    code, output = sar_eval_here("fetch", "scorers", "dinov2-l14")
    assert code == 0, output
    folder = find_weights("dinov2-l14")
    assert folder == tmp_path / "cache" / "dinov2-large"
    assert json.loads((folder / "config.json").read_text()) == {"hidden_size": 8}
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(BadInput, match=r"no .*/dinov2-large/preprocessor_config.json: `sar-eval fetch sc"):
        find_weights("dinov2-l14")


def test_other_bytes_than_the_published_are_refused(server, sar_eval_here) -> None:
    code, output = sar_eval_here("fetch", "scorers", "aesthetic-v1")
    assert code == 3
    assert "gave other bytes than published" in output
    assert "expected 2cd4e60f4f24ae3b" in output


def test_offline_says_what_to_get(server, sar_eval_here, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, output = sar_eval_here("fetch", "scorers", "pickscore")
    assert code == 2
    assert "offline, and" in output
    assert "get https://huggingface.co/yuvalkirstain/PickScore_v1/resolve/main/model.safetensors" in output
    assert server.requests == []


def test_a_wrong_variant_is_told_by_its_checksum(server, sar_eval_here, tmp_path) -> None:
    server.body = DATA[:-1] + b"0"
    sar_eval_here("fetch", "scorers", "hps-v2.0")
    server.body = DATA
    sar_eval_here("fetch", "scorers", "hps-v2.1")
    mine = tmp_path / "mine.pt"
    shutil.copy(find_weights("hps-v2.0"), mine)
    assert which_published(mine) == "hps-v2.0"
    assert which_published(find_weights("hps-v2.1")) == "hps-v2.1"
    assert which_published(mine, SHA) == "hps-v2.1"
    mine.write_bytes(b"of nobody")
    assert which_published(mine) is None
    published = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
    assert which_published(mine, published) == "aesthetic-v2"
    checksum_path(find_weights("hps-v2.0")).unlink()  # nothing is known of it any more
    assert which_published(find_weights("hps-v2.0")) is None


def test_a_scorers_name_stands_for_its_weights(tmp_path) -> None:
    (tmp_path / "two.py").write_text(SCORER)
    assert weights_of(f"{tmp_path}/two.py:Two") == ("hps-v2.1", "clip")  # of its default form
    parts = plan("scorers", [f"{tmp_path}/two.py:Two", "hps-v2.0", "clip"])
    # `clip` is both weights and a scorer, whose default form needs others.
    assert [part.name for part in parts] == ["hps-v2.1", "clip", "hps-v2.0", "clip-b32"]
    with pytest.raises(UnknownName, match=r"unknown scorer or weights 'hps-2.1'; did you mean 'hps-v2.1'"):
        weights_of("hps-2.1")
    (tmp_path / "odd.py").write_text(SCORER.replace('"clip"', '"mine"') + "\nclass Nothing: pass\n")
    with pytest.raises(BadInput, match="knows no weights 'mine'; leave them out of its facts"):
        weights_of(f"{tmp_path}/odd.py:Two")
    with pytest.raises(BadInput, match="is no scorer: it has no table `variants`"):
        weights_of(f"{tmp_path}/odd.py:Nothing")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("geneval", "clip"), "fetch geneval gets all of its files: leave out clip"),
        (("tifa",), "nothing to fetch for 'tifa': geneval, dpg, scorers"),
        (("scorers", "nowhere.py:X"), "no file nowhere.py"),
    ],
)
def test_bad_input_is_one_line(server, sar_eval_here, words, message) -> None:
    code, output = sar_eval_here("fetch", *words)
    assert code == 2
    assert message in output
    assert len(output.splitlines()) == 1


class Terminal(io.StringIO):
    """Standard input of a person."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "requests"), [("n\n", 0), ("y\n", 1)])
def test_a_person_is_asked_before_much(server, sar_eval_here, monkeypatch, answer, requests) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    server.status = [404]
    code, output = sar_eval_here("fetch", "scorers", "hpsv3")
    assert "Download about 16.6 GB?" in output
    assert ("nothing was downloaded" in output) == (requests == 0)
    assert (code, len(server.requests)) == (2 * requests, requests)


def test_yes_asks_nothing(server, sar_eval_here, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(""))
    tokenizer = json.dumps({str(number): number for number in range(100_000)}).encode()
    assert len(tokenizer) > 1_000_000  # as Qwen's are
    names = ("chat_template.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")
    server.body, server.files = SAFETENSORS, {**dict.fromkeys(names, tokenizer), "merges.txt": b"a b\n"}
    code, output = sar_eval_here("fetch", "scorers", "hpsv3", "--yes")
    assert (code, "Download about" in output) == (0, False), output
    assert find_weights("hpsv3").read_bytes() == SAFETENSORS


def test_a_disk_without_room_is_told_before_the_download(server) -> None:
    file = RemoteFile("huge.bin", "https://example.org/huge.bin", "", "a test", 10**18)
    parts = [Part("huge", file, None, file.size, False)]
    with pytest.raises(StorageFailed, match=r"1e\+09 GB are to come, and .* free: make room"):
        list(download(parts, lambda name, done, total: None))
    assert server.requests == []


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "size unknown"), (5, "5 bytes"), (28_400, "28.4 kB"), (16_600_000_000, "16.6 GB")],
)
def test_sizes_in_words(size, words) -> None:
    assert in_words(size) == words
    assert in_words(size, exact=False) == (f"about {words}" if size else words)


@pytest.fixture
def flan(tmp_path: Path, monkeypatch):
    """A hub with CLIP-FlanT5's repository: two shards and their index."""
    folder = tmp_path / "flan"
    folder.mkdir()
    shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for shard in shards:
        (folder / shard).write_bytes(DATA[:20_000])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    (folder / "spiece.model").write_bytes(b"pieces")
    (folder / "evil.py").write_text("raise SystemExit('ran')")

    class FlanHub(Hub):
        """With lists of its own."""

    FlanHub.folders = {"zhiqiulin/clip-flant5-xl": folder}
    FlanHub.requests = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), FlanHub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SAR_EVAL_"))}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1"}
    yield env | {"HF_HOME": str(tmp_path / "hf"), "SAR_EVAL_CACHE": str(tmp_path / "cache")}
    server.shutdown()
    server.server_close()


FIND = (
    "from sar_eval.errors import BadInput\n"
    "from sar_eval.tensors.published_weights import find_weights\n"
    "try: print(find_weights('clip-flant5-xl'))\n"
    "except BadInput as error: print(error)"
)


@pytest.mark.slow
def test_weights_in_shards_come_through_the_hub(sar_eval, flan, tmp_path) -> None:
    import subprocess
    import sys

    def found(env: dict[str, str]) -> str:
        command = [sys.executable, "-c", FIND]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()

    assert found(flan).startswith("no weights of zhiqiulin/clip-flant5-xl: `sar-eval fetch scorers clip-fl")
    done = sar_eval("fetch", "scorers", "clip-flant5-xl", "--yes", env=flan)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    nowhere = flan | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert found(nowhere) == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
        *("pytorch_model.bin.index.json", "spiece.model"),
    ]
    assert "is there  [clip-flant5-xl]" in sar_eval("fetch", "scorers", "--dry-run", env=nowhere).stdout
    (folder / "pytorch_model-00002-of-00002.bin").unlink()  # as a download that broke off
    assert found(nowhere).startswith("no pytorch_model-00002-of-00002.bin of zhiqiulin/clip-flant5-xl")

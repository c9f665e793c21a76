"""Downloads from a real local server that misbehaves in the usual ways."""

import hashlib
import http.server
import multiprocessing
import random
import threading
import time
from dataclasses import dataclass, field

import pytest

from sar_eval.errors import BadInput, Incomplete
from sar_eval.stages.fetch import fetch
from sar_eval.tensors.published_weights import (
    CLIP,
    MASK2FORMER,
    MPLUG,
    WHAT,
    RemoteFile,
    find_weights,
    note_of,
    noted_sha256,
)

DATA = random.Random(0).randbytes(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()
FILE = RemoteFile("weights.bin", "https://example.org/models/weights.bin", SHA, "a test")
UNKNOWN = RemoteFile("folder/weights.bin", "https://example.org/models/weights.bin", "", "a test")


@dataclass
class Server:
    """What the server does, and what it saw."""

    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes until the line breaks, request by request
    status: list[int] = field(default_factory=list)  # errors answered first
    stall_s: float = 0.0
    body: bytes = DATA
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    address: str = ""


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.asked.append((self.path, wanted))
            if server.status:
                self.send_error(server.status.pop(0))
                return
            start = int(wanted[6:-1]) if wanted and server.ranges else 0
            if start >= len(server.body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(server.body) - start))
            self.end_headers()
            time.sleep(server.stall_s)
            stop = start + server.cut_after.pop(0) if server.cut_after else None
            part = server.body[start:stop]
            server.sent += len(part)
            self.wfile.write(part)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Server()
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    server.address = f"http://127.0.0.1:{listening.server_port}"
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAR_EVAL_MIRROR", server.address)
    for name in ("SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield server
    listening.shutdown()
    thread.join()
    listening.server_close()


def get(**options):
    return fetch((FILE,), pause_s=0, **options)[0]


def test_a_file_arrives_whole_and_is_not_asked_for_again(server, tmp_path) -> None:
    told = []
    path = get(progress=lambda *event: told.append(event))
    assert path == tmp_path / "cache" / "weights.bin"
    assert path.read_bytes() == DATA
    assert told[-1] == ("weights.bin", len(DATA), len(DATA))
    assert get() == path
    assert server.asked == [("/models/weights.bin", None)]


def test_a_broken_line_costs_no_byte_twice(server) -> None:
    server.cut_after = [1_000_000, 500_000]
    assert get().read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert server.sent == len(DATA)


def test_what_an_earlier_start_left_is_gone_on_with(server, tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.bin.part").write_bytes(DATA[:2_000_000])
    assert get().read_bytes() == DATA
    assert server.sent == 1_000_000


def test_all_there_but_the_name(server, tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.bin.part").write_bytes(DATA)
    assert get().read_bytes() == DATA


def test_a_server_without_ranges_starts_anew(server) -> None:
    server.ranges, server.cut_after = False, [1_000_000]
    assert get().read_bytes() == DATA
    assert server.sent == len(DATA) + 1_000_000


def test_a_server_that_keeps_breaking_is_given_up_and_the_part_kept(server, tmp_path) -> None:
    server.cut_after = [700_000] + [0] * 20
    with pytest.raises(Incomplete, match="broke off; 700000 bytes are kept: run the same command again"):
        get()
    assert (tmp_path / "cache" / "weights.bin.part").stat().st_size == 700_000
    assert not (tmp_path / "cache" / "weights.bin").exists()
    server.cut_after = []
    assert get().read_bytes() == DATA


def test_passing_trouble_is_waited_out(server) -> None:
    server.status = [503, 429, 500]
    assert get().read_bytes() == DATA


def test_a_slow_server_is_given_up(server) -> None:
    server.stall_s = 0.6
    with pytest.raises(Incomplete, match="timed out"):
        get(timeout_s=0.1)


def test_wrong_bytes_are_removed_and_named(server, tmp_path) -> None:
    server.body = DATA[:-1] + b"x"
    with pytest.raises(Incomplete, match=f"expected {SHA}"):
        get()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["weights.bin.lock"]


def test_a_file_that_is_not_there(server) -> None:
    server.status = [404]
    with pytest.raises(BadInput, match=r"/models/weights.bin answers 404"):
        get()


def test_no_server(server, monkeypatch) -> None:
    monkeypatch.setenv("SAR_EVAL_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(Incomplete, match="refused"):
        get()


@pytest.mark.parametrize("name", ["SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_names_the_file_and_its_place(server, monkeypatch, tmp_path, name) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(BadInput, match=rf"offline, and {tmp_path}/cache/weights.bin.*example.org/models"):
        get()
    assert server.asked == []


def test_two_processes_make_one_download(server) -> None:
    server.stall_s = 0.5
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=((FILE,),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.asked) == 1


def test_a_cache_that_cannot_be_made(server, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Exception, match=r"cannot write .*SAR_EVAL_CACHE") as caught:
        get()
    assert caught.value.exit_code == 3


def test_weights_that_are_missing_say_how_to_get_them(server, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"sar-eval fetch geneval.*download.openmmlab.com.*put it there"):
        find_weights("mask2former")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / CLIP.name).touch()
    assert find_weights("clip") == tmp_path / "cache" / CLIP.name


def test_the_published_checksums_stand_in_the_published_names() -> None:
    assert MASK2FORMER.url.endswith(f"-{MASK2FORMER.sha256}.pth")
    assert CLIP.url.split("/")[-2] == CLIP.sha256
    assert len(CLIP.sha256) == 64


def test_the_command(server, sar_eval, tmp_path) -> None:
    """Both files are asked for under their real paths; what comes is not what was published."""
    told = sar_eval("fetch", "geneval", "--dry-run").stdout
    assert MASK2FORMER.url in told
    assert str(tmp_path / "cache" / CLIP.name) in told
    done = sar_eval("fetch", "geneval")
    assert done.returncode == 3
    assert "expected 743b7d99" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.asked[0][0].endswith(
        "/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth"
    )
    done = sar_eval("fetch", "dpg9")
    assert (done.returncode, "nothing to fetch for 'dpg9': geneval" in done.stderr) == (2, True)


def get_unknown(tmp_path, **options):
    """Fetch the file that no checksum is published of; its place in the cache."""
    path = fetch((UNKNOWN,), pause_s=0, **options)[0]
    assert path == tmp_path / "cache" / "folder" / "weights.bin"
    return path


def test_without_a_published_checksum_the_first_downloads_is_noted(server, tmp_path) -> None:
    path = get_unknown(tmp_path)
    assert noted_sha256(path) == SHA
    assert note_of(path).read_text() == f"{SHA}  weights.bin\n"  # as sha256sum -c reads it
    path.unlink()
    assert get_unknown(tmp_path).read_bytes() == DATA


def test_a_later_download_must_be_the_first_ones(server, tmp_path) -> None:
    path = get_unknown(tmp_path)
    path.unlink()
    server.body = DATA[:-1] + b"x"
    with pytest.raises(Incomplete, match=rf"than at the first download \(noted in {note_of(path)}.*{SHA}"):
        get_unknown(tmp_path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["weights.bin.lock", "weights.bin.sha256"]
    note_of(path).unlink()  # the publisher's change is accepted
    assert get_unknown(tmp_path).read_bytes() == server.body


def test_an_unnoted_download_goes_on_after_a_break_too(server, tmp_path) -> None:
    server.cut_after = [700_000] + [0] * 20
    with pytest.raises(Incomplete, match="700000 bytes are kept"):
        get_unknown(tmp_path)
    server.cut_after = []
    assert noted_sha256(get_unknown(tmp_path)) == SHA
    assert server.sent == len(DATA)


def test_dpgs_table_names_the_five_files_in_a_folder_of_their_own() -> None:
    names = {"pytorch_model.bin", "config.yaml", "config_bert.json", "vocab.txt", "configuration.json"}
    assert {file.name for file in WHAT["dpg"]} == {f"mplug-vqa-large/{name}" for name in names}
    for file in MPLUG:
        model = "models/damo/mplug_visual-question-answering_coco_large_en"
        assert file.url == f"https://www.modelscope.cn/{model}/resolve/master/{file.name.split('/')[1]}"
        assert file.sha256 == ""


def test_the_command_fetches_dpgs_files(server, sar_eval, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"sar-eval fetch dpg.*modelscope.cn.*put it there"):
        find_weights("mplug")
    server.cut_after = [1_000_000]
    done = sar_eval("fetch", "dpg")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"no checksum is published; that of the first download is noted: {SHA}") == 5
    assert [path for path, _ in server.asked[1:]] == [file.url.split(".cn", 1)[1] for file in MPLUG]
    assert find_weights("mplug") == tmp_path / "cache" / "mplug-vqa-large" / "pytorch_model.bin"
    asked = len(server.asked)
    assert sar_eval("fetch", "dpg").returncode == 0
    assert len(server.asked) == asked
    note_of(tmp_path / "cache" / "mplug-vqa-large" / "vocab.txt").unlink()
    assert "no checksum is published; and none was noted" in sar_eval("fetch", "dpg").stdout

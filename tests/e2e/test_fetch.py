"""Downloads from a local server with the usual failures."""

import multiprocessing

import pytest

from sar_eval.errors import BadInput, Incomplete
from sar_eval.stages.fetch import fetch
from sar_eval.tensors.published_weights import (
    CLIP,
    FILES_BY_BENCHMARK,
    MASK2FORMER,
    MPLUG,
    checksum_path,
    find_weights,
    recorded_sha256,
)
from tests.e2e.download_server import DATA, FILE, SHA, fetch_file, fetch_unknown


def test_a_file_is_downloaded_once(server, tmp_path) -> None:
    events = []
    path = fetch_file(progress=lambda *event: events.append(event))
    assert path == tmp_path / "cache" / "weights.bin"
    assert path.read_bytes() == DATA
    assert events[-1] == ("weights.bin", len(DATA), len(DATA))
    assert fetch_file() == path
    assert server.requests == [("/models/weights.bin", None)]


def test_a_broken_connection_is_resumed(server) -> None:
    server.cut_after = [1_000_000, 500_000]
    assert fetch_file().read_bytes() == DATA
    assert [byte_range for _, byte_range in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert server.sent == len(DATA)


def test_a_partial_file_is_resumed(server, tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.bin.part").write_bytes(DATA[:2_000_000])
    assert fetch_file().read_bytes() == DATA
    assert server.sent == 1_000_000


def test_a_complete_partial_file_is_renamed(server, tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights.bin.part").write_bytes(DATA)
    assert fetch_file().read_bytes() == DATA


def test_without_ranges_the_download_restarts(server) -> None:
    server.ranges, server.cut_after = False, [1_000_000]
    assert fetch_file().read_bytes() == DATA
    assert server.sent == len(DATA) + 1_000_000


def test_a_failing_server_leaves_the_partial_file(server, tmp_path) -> None:
    server.cut_after = [700_000] + [0] * 20
    with pytest.raises(Incomplete, match="broke off; 700000 bytes are kept: run the same command again"):
        fetch_file()
    assert (tmp_path / "cache" / "weights.bin.part").stat().st_size == 700_000
    assert not (tmp_path / "cache" / "weights.bin").exists()
    server.cut_after = []
    assert fetch_file().read_bytes() == DATA


def test_temporary_errors_are_retried(server) -> None:
    server.status = [503, 429, 500]
    assert fetch_file().read_bytes() == DATA


def test_a_slow_server_times_out(server) -> None:
    server.stall_s = 0.6
    with pytest.raises(Incomplete, match="timed out"):
        fetch_file(timeout_s=0.1)


def test_a_wrong_checksum_is_reported_and_the_file_removed(server, tmp_path) -> None:
    server.body = DATA[:-1] + b"x"
    with pytest.raises(Incomplete, match=f"expected {SHA}"):
        fetch_file()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["weights.bin.lock"]


def test_a_file_missing_on_the_server_is_reported(server) -> None:
    server.status = [404]
    with pytest.raises(BadInput, match=r"/models/weights.bin answers 404"):
        fetch_file()


def test_an_unreachable_server_is_reported(server, monkeypatch) -> None:
    monkeypatch.setenv("SAR_EVAL_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(Incomplete, match="refused"):
        fetch_file()


@pytest.mark.parametrize("name", ["SAR_EVAL_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "true", "True", "ON", "yes"])
def test_offline_names_the_file_and_its_path(server, monkeypatch, tmp_path, name, value) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=rf"offline, and {tmp_path}/cache/weights.bin.*example.org/models"):
        fetch_file()
    assert server.requests == []


def test_two_processes_download_once(server) -> None:
    server.stall_s = 0.5
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=((FILE,),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.requests) == 1


def test_a_cache_folder_that_cannot_be_created(server, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(Exception, match=r"cannot write .*SAR_EVAL_CACHE") as caught:
        fetch_file()
    assert caught.value.exit_code == 3


def test_the_error_of_missing_weights_says_how_to_get_them(server, tmp_path) -> None:
    with pytest.raises(BadInput, match=r"sar-eval fetch geneval.*download.openmmlab.com.*put it there"):
        find_weights("mask2former")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / CLIP.name).touch()
    assert find_weights("clip") == tmp_path / "cache" / CLIP.name


def test_the_published_checksums_are_part_of_the_urls() -> None:
    assert MASK2FORMER.url.endswith(f"-{MASK2FORMER.sha256}.pth")
    assert CLIP.url.split("/")[-2] == CLIP.sha256
    assert len(CLIP.sha256) == 64


def test_the_command(server, sar_eval, tmp_path) -> None:
    """Both files are requested at their real paths; the content is not the published one."""
    listing = sar_eval("fetch", "geneval", "--dry-run").stdout
    assert MASK2FORMER.url in listing
    assert str(tmp_path / "cache" / CLIP.name) in listing
    done = sar_eval("fetch", "geneval")
    assert done.returncode == 3
    assert "expected 743b7d99" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.requests[0][0].endswith(
        "/mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth"
    )
    done = sar_eval("fetch", "dpg9")
    assert (done.returncode, "nothing to fetch for 'dpg9': geneval" in done.stderr) == (2, True)


def test_without_a_published_checksum_that_of_the_first_download_is_recorded(server, tmp_path) -> None:
    path = fetch_unknown(tmp_path)
    assert recorded_sha256(path) == SHA
    assert checksum_path(path).read_text() == f"{SHA}  weights.bin\n"  # as sha256sum -c reads it
    path.unlink()
    assert fetch_unknown(tmp_path).read_bytes() == DATA


def test_a_later_download_must_have_the_recorded_checksum(server, tmp_path) -> None:
    path = fetch_unknown(tmp_path)
    path.unlink()
    server.body = DATA[:-1] + b"x"
    with pytest.raises(
        Incomplete, match=rf"than at the first download \(noted in {checksum_path(path)}.*{SHA}"
    ):
        fetch_unknown(tmp_path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["weights.bin.lock", "weights.bin.sha256"]
    checksum_path(path).unlink()  # the publisher's change is accepted
    assert fetch_unknown(tmp_path).read_bytes() == server.body


def test_a_download_without_a_checksum_is_resumed_too(server, tmp_path) -> None:
    server.cut_after = [700_000] + [0] * 20
    with pytest.raises(Incomplete, match="700000 bytes are kept"):
        fetch_unknown(tmp_path)
    server.cut_after = []
    assert recorded_sha256(fetch_unknown(tmp_path)) == SHA
    assert server.sent == len(DATA)


def test_the_five_files_of_dpg_have_a_folder_of_their_own() -> None:
    names = {"pytorch_model.bin", "config.yaml", "config_bert.json", "vocab.txt", "configuration.json"}
    assert {file.name for file in FILES_BY_BENCHMARK["dpg"]} == {
        f"mplug-vqa-large/{name}" for name in names
    }
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
    assert done.stdout.count("no checksum is published; that of the first download is noted: ") == 5
    assert f"is noted: {SHA}" in done.stdout
    assert [path for path, _ in server.requests[1:]] == [file.url.split(".cn", 1)[1] for file in MPLUG]
    assert find_weights("mplug") == tmp_path / "cache" / "mplug-vqa-large" / "pytorch_model.bin"
    number = len(server.requests)
    assert sar_eval("fetch", "dpg").returncode == 0
    assert len(server.requests) == number
    checksum_path(tmp_path / "cache" / "mplug-vqa-large" / "vocab.txt").unlink()
    assert "no checksum is published; and none was noted" in sar_eval("fetch", "dpg").stdout

"""Checkpoints from the hub: the real client against a local server."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hub_server import COMMIT, Hub, running_hub
from tests.tiny_janus import write_janus
from tests.tiny_llamagen import NETWORK, network_tensors, save, write_llamagen


@pytest.fixture
def hub(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    """A running hub with `org/tiny` and `org/visual`, and environment variables that point to it."""

    (tmp_path / "tiny").mkdir()
    for path in tiny_checkpoint.iterdir():
        if path.name != "sar_eval.json":
            (tmp_path / "tiny" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tiny" / "modeling_evil.py").write_text("raise SystemExit('ran')")
    folders = {"org/tiny": tmp_path / "tiny", "org/visual": tiny_checkpoint.parent / "tokenizer"}
    with running_hub(folders, tmp_path / "hf") as running:
        yield running


INFO = ("ckpt", "info", "--visual-tokenizer", "org/visual", "--json")


@pytest.mark.slow
def test_a_hub_name_is_downloaded_once_and_pinned(sar_eval, hub) -> None:
    server, env = hub
    first = sar_eval(*INFO, "org/tiny", env=env)
    assert first.returncode == 0, first.stderr
    facts = json.loads(first.stdout)
    assert facts["checkpoint"] == f"org/tiny@{COMMIT}"
    assert facts["visual_codes"] == 64
    assert not [line for line in server.requests if line.endswith(".py")]
    again = sar_eval(
        *INFO, f"org/tiny@{COMMIT}", "--local-only", env=env | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    )
    assert json.loads(again.stdout)["digest"] == facts["digest"], again.stderr


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_reported(sar_eval, hub) -> None:
    _, env = hub
    assert sar_eval(*INFO, "org/tiny", env=env).returncode == 0
    [weights] = Path(env["HF_HOME"]).glob("hub/models--org--tiny/snapshots/*/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.resolve().write_bytes(data)
    done = sar_eval(*INFO, "org/tiny", env=env)
    assert done.returncode == 2
    assert "is not what the hub published" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/none", "the hub has no 'org/none': check the name and the revision"),
        ("org/tiny@v9", "the hub has no 'org/tiny@v9'"),
        ("org/gated", "accept its terms there, then set HF_TOKEN"),
    ],
)
def test_errors_of_the_hub_are_reported(sar_eval, hub, name: str, message: str) -> None:
    done = sar_eval(*INFO, name, env=hub[1])
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_local_only_makes_no_request(sar_eval, hub) -> None:
    server, env = hub
    done = sar_eval(*INFO, "org/tiny", "--local-only", env=env)
    assert (done.returncode, server.requests) == (2, [])
    assert "nothing of it is cached (offline, so the hub was not asked)" in done.stderr


@pytest.mark.slow
def test_native_and_hf_give_the_same_run_with_a_hub_checkpoint(
    sar_eval, hub, suite: Path, tmp_path: Path
) -> None:
    _, env = hub
    words = ("run", "shapes", "--ckpt", "org/tiny", "--visual-tokenizer", "org/visual", "--suite", suite)
    common = (*words, "--resolution", 32, "-n", 1, "--workers", 1, "--json")
    runs = {}
    for engine in ("native", "hf"):
        done = sar_eval(*common, "--engine", engine, "--out", tmp_path / f"run-{engine}", env=env)
        assert done.returncode == 0, done.stderr
        runs[engine] = json.loads(done.stdout)
        assert runs[engine]["checkpoint"] == f"org/tiny@{COMMIT}"
    assert runs["native"]["metrics"] == runs["hf"]["metrics"]


@pytest.mark.slow
def test_a_subfolder_of_a_repository_is_a_checkpoint(sar_eval, hub, tiny_checkpoint: Path) -> None:
    server, env = hub
    shutil.copytree(tiny_checkpoint, server.folders["org/tiny"] / "step/200")
    done = sar_eval(*INFO, "org/tiny/step/200", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checkpoint"] == f"org/tiny/step/200@{COMMIT}"
    fetched = [line for line in server.requests if "/resolve/" in line and "tiny" in line]
    assert fetched
    assert all("/step/200/" in line for line in fetched)
    again = sar_eval(*INFO, f"org/tiny/step/200@{COMMIT}", "--local-only", env=env)
    assert json.loads(again.stdout)["digest"] == json.loads(done.stdout)["digest"]
    top = sar_eval(*INFO, "org/tiny", env=env)
    assert json.loads(top.stdout)["checkpoint"] == f"org/tiny@{COMMIT}"
    none = sar_eval(*INFO, "org/tiny/step/300", env=env)
    assert (none.returncode, "no folder 'step/300'" in none.stderr) == (2, True)


@pytest.mark.slow
def test_a_subfolder_may_hold_a_checkpoint_of_another_family(sar_eval, hub) -> None:
    server, env = hub
    write_janus(server.folders["org/tiny"] / "janus")
    for name in ("org/tiny/janus", f"org/tiny/janus@{COMMIT}"):
        done = sar_eval("ckpt", "info", "--json", name, env=env)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert (facts["family"], facts["checkpoint"]) == ("janus", f"org/tiny/janus@{COMMIT}")


@pytest.mark.slow
def test_a_repository_may_hold_several_checkpoints_as_files(sar_eval, hub, tmp_path: Path) -> None:
    server, env = hub
    folder = write_llamagen(tmp_path / "llamagen")
    shutil.move(folder / "t5", tmp_path / "t5")
    server.folders |= {"org/files": folder, "google/flan-t5-xl": tmp_path / "t5"}
    save(network_tensors(6), folder / "t2i_tiny_stage2_96.pt")
    info = ("ckpt", "info", "--json")
    several = sar_eval(*info, "org/files", env=env)
    assert several.returncode == 2
    assert "has 2 checkpoints: name one of" in several.stderr
    assert f"org/files/{NETWORK}.pt@{COMMIT}" in several.stderr
    assert not [line for line in server.requests if line.endswith(".pt")]
    name = f"org/files/{NETWORK}.pt"
    first = sar_eval(*info, name, env=env)
    assert first.returncode == 0, first.stderr
    facts = json.loads(first.stdout)
    assert (facts["family"], facts["checkpoint"]) == ("llamagen", f"{name}@{COMMIT}")
    assert (facts["resolution"]["pixels"], facts["licences"]["decoder"]) == (64, "mit")
    assert not [line for line in server.requests if "stage2" in line]
    again = sar_eval(*info, f"{name}@{COMMIT}", "--local-only", env=env)
    assert json.loads(again.stdout)["digest"] == facts["digest"], again.stderr
    lost = env | {"HF_ENDPOINT": "http://127.0.0.1:9"}  # the hub's client itself goes on with its cache
    assert json.loads(sar_eval(*info, name, env=lost).stdout)["digest"] == facts["digest"]
    none = sar_eval(*info, "org/files/t2i_tiny_stage3_64.pt", env=env)
    assert (none.returncode, "has no 't2i_tiny_stage3_64.pt' in org/files" in none.stderr) == (2, True)


@pytest.mark.slow
def test_a_repository_with_one_checkpoint_as_a_file_needs_no_choice(
    sar_eval, hub, suite: Path, tmp_path: Path
) -> None:
    """In a subfolder, drawn by the command: workers find it by the name that was pinned."""
    server, env = hub
    folder = write_llamagen(tmp_path / "llamagen")
    shutil.move(folder / "t5", tmp_path / "t5")
    (tmp_path / "repository").mkdir()
    shutil.move(folder, tmp_path / "repository" / "sub")
    server.folders |= {"org/one": tmp_path / "repository", "google/flan-t5-xl": tmp_path / "t5"}
    words = ("generate", suite, "--ckpt", "org/one/sub", "--protocol", "llamagen", "-n", 1, "--workers", 1)
    done = sar_eval(*words, "--out", tmp_path / "run", env=env)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["spec"]["checkpoint"] == f"org/one/sub@{COMMIT}"
    file = f"org/one/sub/{NETWORK}.pt@{COMMIT}"
    named = sar_eval("ckpt", "info", "--json", file, "--local-only", env=env)
    facts = json.loads(named.stdout)
    assert (facts["checkpoint"], facts["digest"]) == (file, run["spec"]["checkpoint_digest"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["true", "ON"])
def test_the_hubs_own_switches_make_no_request(sar_eval, hub, name: str, value: str) -> None:
    server, env = hub
    done = sar_eval(*INFO, "org/tiny", env=env | {name: value})
    assert (done.returncode, server.requests) == (2, [])
    assert "nothing of it is cached (offline, so the hub was not asked)" in done.stderr


@pytest.mark.slow
def test_a_mirror_that_leads_nowhere_is_named(sar_eval, hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server, env = hub

    def redirect(self: Hub) -> None:
        self._respond(308, b"", {"Location": "http://127.0.0.1:9" + self.path})

    monkeypatch.setattr(server, "do_GET", redirect)
    done = sar_eval(*INFO, "org/tiny", env=env)
    assert done.returncode == 2
    assert f"(asked at {env['HF_ENDPOINT']}: HF_ENDPOINT is set)" in done.stderr
    assert re.search(r"refused .*http://127\.0\.0\.1:9/", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_notes_and_refusals_reach_the_terminal(sar_eval, hub, suite: Path, tmp_path: Path) -> None:
    server, env = hub
    folder = server.folders["org/tiny"]
    (folder / "old.safetensors").write_bytes(b"")
    visual = server.folders["org/visual"]
    words = ("--visual-tokenizer", visual, "--resolution", 32, "-n", 1, "--workers", 1)
    done = sar_eval("generate", suite, "--ckpt", folder, *words, "--out", tmp_path / "r", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("note: ") == 1
    assert "model.safetensors is loaded, and not old.safetensors" in done.stderr
    (folder / "adapter_config.json").write_text("{}")
    done = sar_eval("generate", suite, "--ckpt", folder, *words, "--out", tmp_path / "r", env=env)
    assert (done.returncode, "merge it first" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_set_goes_on_with_the_commit_that_it_was_begun_with(
    sar_eval, hub, suite: Path, tmp_path: Path
) -> None:
    server, env = hub
    where = ("--out", tmp_path / "set", "--workers", 1, "--resolution", 32, "--block-prompts", 6)
    command = ("synth", suite, "--ckpt", "org/tiny", "--visual-tokenizer", "org/visual", *where)
    done = sar_eval(*command, env=env)
    assert done.returncode == 0, done.stderr
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("part-*")}
    _move_on(server, tmp_path)
    [record] = (tmp_path / "set/done").glob("*/000000001-0.json")
    for path in (record, *(tmp_path / "set/ledger").glob("*")):  # the block is to be drawn again
        path.unlink()
    done = sar_eval(*command, env=env)
    assert done.returncode == 0, done.stderr
    assert record.is_file()
    assert {path: path.read_bytes() for path in (tmp_path / "set").rglob("part-*")} == before
    drawn = sar_eval("draw", tmp_path / "set", "0/0", "--out", tmp_path / "drawn", "--json", env=env)
    assert json.loads(drawn.stdout)["same"] is True, drawn.stderr
    options = json.loads((tmp_path / "set/spec.json").read_text())["run"]["engine_options"]
    assert options["visual_tokenizer"] == f"org/visual@{COMMIT}"
    other = sar_eval(*command, "--ckpt", f"org/tiny@{server.commit}", env=env)
    assert (other.returncode, "the checkpoint's weights" in other.stderr) == (2, True)


def _move_on(server: type[Hub], tmp_path: Path) -> None:
    """Push other weights and another decoder under the same names."""
    server.earlier, server.commit = {COMMIT: server.folders}, "f" * 40
    server.folders = {}
    for name, folder in server.earlier[COMMIT].items():
        server.folders[name] = tmp_path / "pushed" / folder.name
        shutil.copytree(folder, server.folders[name])
    weights = server.folders["org/tiny"] / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    shutil.copy(server.folders["org/visual"] / "encoder.jit", server.folders["org/visual"] / "decoder.jit")

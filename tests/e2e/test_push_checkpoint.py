"""A checkpoint is uploaded to a model repository, goes on where it broke off, and draws from there."""

import json
import shutil
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import HfApi, constants

from sar_eval.errors import BadInput, Incomplete
from sar_eval.families.locate import DEMO
from sar_eval.families.simplear import find_checkpoint
from sar_eval.tensors.hub import hub_name_of
from sar_eval.train.push_checkpoint import push_checkpoint
from tests.e2e.hub_uploads import UploadHub

# What huggingface_hub does with a file, its HTTP library no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
VISUAL = {f"visual_tokenizer/{name}" for name in ("config.json", "encoder.jit", "decoder.jit")}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[UploadHub]]:
    handler = type("Hub", (UploadHub,), {"files": {}, "sent": {}, "commits": [], "kind": "model"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    handler.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits before it tries again
    monkeypatch.setattr("sar_eval.train.push_checkpoint.LARGE", 100_000)
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The demo's, with its tokenizer beside it and files that belong to the training alone."""
    shutil.copytree(DEMO / "sft", tmp_path / "sft")
    shutil.copytree(DEMO / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "sft" / "state" / "checkpoint-2").mkdir(parents=True)
    for name in (".hidden", "steps.parquet", "journal.json", "settings.json"):
        (tmp_path / "sft" / name).write_text("of the training")
    (tmp_path / "sft" / "README.md").write_text("draw with ORG/NAME")
    return tmp_path / "sft"


def client(hub: type[UploadHub], token: str = "hf_of_the_test") -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=token)


def test_what_is_pushed_is_a_checkpoint_by_itself(
    checkpoint: Path, hub: type[UploadHub], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    address = push_checkpoint(
        checkpoint, "org/set", api=client(hub), progress=lambda *done: told.append(done)
    )
    assert address == f"{hub.endpoint}/org/set"
    own = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert set(hub.files) == own | VISUAL | {"README.md", "sar_eval.json"}
    assert hub.files["README.md"] == b"draw with org/set"
    assert told[0] == (0, len(hub.files))
    assert told[-1] == (len(hub.files), len(hub.files))
    assert "sar_eval.json" in hub.commits[-1]
    copy = tmp_path / "downloaded"
    for name, data in hub.files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    assert find_checkpoint(str(copy)).digest == find_checkpoint(str(checkpoint)).digest


def test_a_push_that_broke_off_sends_only_what_is_not_there(checkpoint: Path, hub: type[UploadHub]) -> None:
    hub.fail_commits = 1
    with pytest.raises(Incomplete, match=r"broke off .*run the same command again"):
        push_checkpoint(checkpoint, "org/set", api=client(hub))
    first, hub.fail_commits = list(hub.files), 1000
    assert "sar_eval.json" not in first
    push_checkpoint(checkpoint, "org/set", api=client(hub))
    assert not {name for commit in hub.commits[1:] for name in commit} & set(first)
    sent = len(hub.commits)
    push_checkpoint(checkpoint, "org/set", api=client(hub))
    assert len(hub.commits) == sent
    (checkpoint / "README.md").write_text("another card")
    push_checkpoint(checkpoint, "org/set", api=client(hub))
    assert hub.commits[sent:] == [["README.md"]]


def test_a_push_over_another_checkpoint_leaves_nothing_of_it(
    checkpoint: Path, hub: type[UploadHub], tmp_path: Path
) -> None:
    earlier = ("adapter_config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors")
    hub.files.update(dict.fromkeys((*earlier, "sar_eval.json", "visual_tokenizer/decoder.jit"), b"old"))
    hub.files |= {"LICENSE": b"mine", "samples/a.safetensors": b"mine"}
    hub.fail_commits = 1
    with pytest.raises(Incomplete, match="broke off"):
        push_checkpoint(checkpoint, "org/set", api=client(hub))
    assert "sar_eval.json" not in hub.files, "a repository of two checkpoints' files is not whole"
    hub.fail_commits = 1000
    push_checkpoint(checkpoint, "org/set", api=client(hub))
    own = {path.name for path in checkpoint.iterdir() if path.is_file()} - {
        *(".hidden", "steps.parquet", "journal.json", "settings.json")
    }
    assert set(hub.files) == own | VISUAL | {"LICENSE", "samples/a.safetensors"}
    assert json.loads(hub.files["sar_eval.json"])["visual_tokenizer"] == "visual_tokenizer"


def test_nothing_pushed_has_a_path_of_this_machine(checkpoint: Path, hub: type[UploadHub]) -> None:
    about = json.loads((checkpoint / "sar_eval.json").read_text())
    about["training"] = {"base": "/home/me/base", "data": ["/home/me/tokens:0.7", "s3://b/c"]}
    (checkpoint / "sar_eval.json").write_text(json.dumps(about))
    push_checkpoint(checkpoint, "org/set", api=client(hub))
    training = json.loads(hub.files["sar_eval.json"])["training"]
    assert training == {"base": "base", "data": ["tokens:0.7", "s3://b/c"]}
    (checkpoint / "sar_eval.json").write_text(json.dumps({**about, "base": "/home/me/base"}))
    with pytest.raises(BadInput, match="an adapter of /home/me/base, which others do not have"):
        push_checkpoint(checkpoint, "org/set", api=client(hub))


def test_a_tokenizer_of_the_hub_is_named_not_copied(
    checkpoint: Path, hub: type[UploadHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = checkpoint.parent / "models--nvidia--Cosmos-1.0" / "snapshots" / commit
    shutil.copytree(checkpoint.parent / "tokenizer", cached)
    about = json.loads((checkpoint / "sar_eval.json").read_text())
    (checkpoint / "sar_eval.json").write_text(
        json.dumps(about | {"visual_tokenizer": f"../{cached.relative_to(checkpoint.parent)}"})
    )
    push_checkpoint(checkpoint, "org/set", api=client(hub))
    assert not VISUAL & set(hub.files)
    named = json.loads(hub.files["sar_eval.json"])["visual_tokenizer"]
    assert named == hub_name_of(cached) == f"nvidia/Cosmos-1.0@{commit}"
    (checkpoint / "sar_eval.json").write_bytes(hub.files["sar_eval.json"])
    monkeypatch.setenv("SAR_EVAL_OFFLINE", "1")  # the cache alone
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(checkpoint.parent))
    monkeypatch.setenv("HF_HOME", str(checkpoint.parent))
    assert find_checkpoint(str(checkpoint)).visual_folder == cached


def test_what_cannot_be_pushed_is_told(checkpoint: Path, hub: type[UploadHub], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--push is 'set'.* of a model"):
        push_checkpoint(checkpoint, "set", api=client(hub))
    with pytest.raises(BadInput, match="no finished checkpoint"):
        push_checkpoint(tmp_path, "org/set", api=client(hub))
    with pytest.raises(BadInput, match="hf auth login"):
        push_checkpoint(checkpoint, "org/set", api=client(hub, token="hf_wrong"))
    with pytest.raises(BadInput, match="does not let you write to other/set"):
        push_checkpoint(checkpoint, "other/set", api=client(hub))
    (checkpoint / "sar_eval.json").write_text("{}")
    with pytest.raises(BadInput, match="names no visual_tokenizer"):
        push_checkpoint(checkpoint, "org/set", api=client(hub))
    assert hub.files == {}

"""A set as others see it: `datasets` shows its pictures, `webdataset` reads its tars, the hub takes it."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import yaml
from PIL import Image

from sar_eval.errors import BadInput, Incomplete
from sar_eval.storage.image_set import ImageSet
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_reader import open_set
from sar_eval.synthesis.begin import stored_spec
from sar_eval.synthesis.card import CardWords, write_card
from sar_eval.synthesis.push import push
from sar_eval.synthesis.repack import RepackOptions, repack
from sar_eval.synthesis.spec import SetSpec
from tests.e2e.hub_uploads import UploadHub
from tests.small_sets import commit_block, make_set

# Of httpx, about how the hub's client sends files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

OPEN = """
import json, sys
from datasets import load_dataset
found = []
for folder, cache in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    rows = load_dataset(folder, split="train", cache_dir=cache)
    found.append({"features": {n: str(f) for n, f in rows.features.items()}, "rows": []})
    for row in rows:
        found[-1]["rows"].append({
            name: value if isinstance(value, (int, str, float, list, dict, type(None)))
            else [type(value).__name__, *value.size, *value.convert("RGB").getpixel((0, 0))]
            for name, value in row.items() if name != "__url__"
        })
    if folder == sys.argv[1]:
        found[-1]["manifest"] = load_dataset(folder, "manifest", split="train", cache_dir=cache).num_rows
print(json.dumps(found))
"""


def _corner(image: bytes) -> list[int]:
    with Image.open(io.BytesIO(image)) as opened:
        return [*opened.size, *opened.convert("RGB").getpixel((0, 0))]


@pytest.mark.slow
def test_datasets_opens_sets_of_both_layouts_with_their_pictures(tmp_path: Path) -> None:
    made = make_set(tmp_path / "parquet")
    make_set(tmp_path / "tar", layout="webdataset")
    make_set(tmp_path / "tokens", keep="tokens")
    repack(open_set(tmp_path / "tar"), open_store(tmp_path / "repacked"), RepackOptions(3, "parquet"))
    names = ["parquet", "tar", "tokens", "repacked"]
    for name in names:
        write_card(open_store(tmp_path / name))
    words = [str(word) for name in names for word in (tmp_path / name, tmp_path / "cache" / name)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", OPEN, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    parquet, tar, tokens, repacked = json.loads(done.stdout)
    assert parquet["manifest"] == 19
    for row, found, packed, other in zip(made, parquet["rows"], tar["rows"], repacked["rows"], strict=True):
        assert found["image"][1:] == packed["png"][1:] == other["image"][1:] == _corner(row.image or b"")
        assert found["image"][0] == "PngImageFile"
        assert found["tokens"] == packed["tokens.npy"] == list(row.tokens or ())
        assert (found["caption"], packed["txt"]) == (row.caption, row.caption)
        assert (found["hps"], packed["json"]["scores"]["hps"]) == (row.scores.get("hps"),) * 2
        assert found == other
    assert "image" not in tokens["features"]
    assert [row["seed"] for row in tokens["rows"]] == [row.seed for row in made]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_tars(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    made = make_set(tmp_path, layout="webdataset")
    paths = sorted(str(path) for path in (tmp_path / "data").iterdir())
    found = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in found] == [f"{row.row:012d}-0000" for row in made]
    for row, sample in zip(made, found, strict=True):
        with Image.open(io.BytesIO(row.image or b"")) as image:
            assert np.array_equal(sample["png"], np.asarray(image))
        assert sample["tokens.npy"].tolist() == list(row.tokens or ())
        assert sample["txt"] == row.caption
        assert sample["json"]["seed"] == row.seed


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[UploadHub]]:
    """A hub that takes uploads, and the client's variables for it."""
    from huggingface_hub import constants

    handler = type("Hub", (UploadHub,), {"files": {}, "sent": {}, "commits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    handler.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield handler
    server.shutdown()
    server.server_close()


def client(hub: type[UploadHub], token: str = "hf_of_the_test"):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.endpoint, token=token)


def test_a_set_is_pushed(tmp_path: Path, hub: type[UploadHub]) -> None:
    make_set(tmp_path)
    store = open_store(tmp_path)
    card = write_card(store)
    store.write("data/part-000000009-0123456789abcdef.parquet", b"an orphan")
    told: list[tuple[int, int]] = []
    address = push(
        open_set(tmp_path),
        "org/set",
        api=client(hub),
        progress=lambda done, total: told.append((done, total)),
    )
    assert address == f"{hub.endpoint}/datasets/org/set"
    assert told == [(0, 5), (5, 5)]
    names = {f"{kind}/{path.name}" for kind in ("data", "manifest") for path in (tmp_path / kind).iterdir()}
    names -= {"data/part-000000009-0123456789abcdef.parquet"}
    assert set(hub.files) == names | {"README.md", "funnel.json", "spec.json"}
    assert all(hub.files[name] == store.read(name) for name in hub.files if name != "spec.json")
    assert str(tmp_path) not in hub.files["spec.json"].decode()
    pushed = SetSpec.from_json(json.loads(hub.files["spec.json"]), "the hub's")
    assert pushed.digest == stored_spec(open_set(tmp_path).image_set).digest
    assert hub.files["README.md"].decode() == card
    push(open_set(tmp_path), "org/set", api=client(hub))
    assert hub.commits[-1] == ["spec.json", "funnel.json", "README.md"]
    assert len(hub.sent) == 5


def test_a_set_that_was_mended_is_pushed_again(tmp_path: Path, hub: type[UploadHub]) -> None:
    """What the hub has is then the set alone: nothing twice, and nothing of earlier attempts."""
    made, store = make_set(tmp_path / "set"), open_store(tmp_path / "set")
    image_set = ImageSet(store)
    image_set.write_ledgers(3)
    write_card(store)
    push(open_set(tmp_path / "set"), "org/set", api=client(hub))
    commit_block(image_set, 0, made[1:4], attempt=1)
    image_set.write_ledgers(3, [0])
    card = write_card(store)
    push(open_set(tmp_path / "set"), "org/set", api=client(hub))
    records = list(image_set.records())
    named = [record.data for record in records if record.data]
    assert sorted(name for name in hub.files if name.startswith("data/")) == named
    assert yaml.safe_load(card.split("---\n")[1])["configs"][0]["data_files"][0]["path"] == named
    copy = open_store(tmp_path / "copy")
    for name, data in hub.files.items():
        copy.write(name, data)
    assert list(ImageSet(copy).records()) == records
    assert [row for _, _, row in open_set(tmp_path / "copy").rows()] == made[1:]
    card = write_card(copy)
    assert yaml.safe_load(card.split("---\n")[1])["configs"][0]["data_files"][0]["path"] == "data/*.parquet"


def test_a_push_that_broke_off_goes_on(
    tmp_path: Path, hub: type[UploadHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sar_eval.synthesis.push.COMMIT_OBJECTS", 2)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits before it tries again
    make_set(tmp_path)
    write_card(open_store(tmp_path))
    hub.fail_commits = 1
    with pytest.raises(Incomplete, match=r"broke off .*run the same command again"):
        push(open_set(tmp_path), "org/set", api=client(hub))
    assert "README.md" not in hub.files
    first, hub.fail_commits = list(hub.files), 1000
    push(open_set(tmp_path), "org/set", api=client(hub))
    assert hub.commits[0] == first
    assert not {name for commit in hub.commits[1:] for name in commit} & set(first)
    assert {"README.md", "funnel.json", "spec.json"} < set(hub.files)


def test_what_the_hub_refuses_is_named(tmp_path: Path, hub: type[UploadHub]) -> None:
    make_set(tmp_path)
    with pytest.raises(BadInput, match=r"has no funnel\.json: write the card first"):
        push(open_set(tmp_path), "org/set", api=client(hub))
    write_card(open_store(tmp_path))
    with pytest.raises(BadInput, match="hf auth login"):
        push(open_set(tmp_path), "org/set", api=client(hub, token="hf_wrong"))
    with pytest.raises(BadInput, match="does not let you write to other/set"):
        push(open_set(tmp_path), "other/set", api=client(hub))
    with pytest.raises(BadInput, match="--push is 'set'"):
        push(open_set(tmp_path), "set", api=client(hub))
    write_card(open_store(tmp_path), CardWords(licence="no such licence"))
    with pytest.raises(BadInput, match=r"the hub does not take the set: .*license"):
        push(open_set(tmp_path), "org/set", api=client(hub))
    hub.endpoint = "http://127.0.0.1:9"
    with pytest.raises(Incomplete, match="broke off"):
        push(open_set(tmp_path), "org/set", api=client(hub))

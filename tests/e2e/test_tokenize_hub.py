"""`train tokenize` on a dataset of the hub: pinned to a commit, read in ranges, resumed at that commit."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from sar_eval.errors import BadInput
from tests.e2e.hub_datasets import COMMIT, NAME, dataset_hub
from tests.small_sets import png
from tests.token_folders import small_tokenizer, tokenize


@pytest.mark.slow
def test_a_dataset_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repository" / "data").mkdir(parents=True)
    for number in range(2):
        rows = [
            {"image": {"bytes": png(n, 16), "path": f"{n}.png"}, "text": f"number {n}"} for n in range(3)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"repository/data/train-{number}.parquet")
    (tmp_path / "repository" / "README.md").write_text("a card")
    visual = small_tokenizer(tmp_path / "visual")
    with dataset_hub(tmp_path / "repository") as (server, address):
        urls = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", urls)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setenv("HF_ENDPOINT", address)
        place = f"hf://datasets/{NAME}"
        done = tokenize([place], visual, tmp_path / "out")
        assert (done.rows, done.rejected) == (6, {})
        rows = pq.read_table(tmp_path / "out" / "shard-000000.parquet").to_pylist()
        assert (rows[0]["key"], rows[0]["captions"]) == ("pictures/data/train-0.parquet:0", ["number 0"])
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["places"] == [place]
        assert manifest["pinned"] == [f"hf://datasets/{NAME}@{COMMIT}"]
        resolved = [path for path in server.requests if "/resolve/" in path]
        assert resolved
        assert all(f"/resolve/{COMMIT}/" in path for path in resolved)
        server.requests.clear()
        assert tokenize([place], visual, tmp_path / "out").rows == 6
        assert f"/api/datasets/{NAME}/revision/main" not in server.requests, "the commit is known"
        with pytest.raises(BadInput, match="hf://datasets/org/gone cannot be asked for"):
            tokenize(["hf://datasets/org/gone"], visual, tmp_path / "gone")

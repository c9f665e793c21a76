"""Embeddings of kept pictures: CLIP's image features of length 1, and their way into manifest and dedup."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("open_clip", reason="needs the extra scorers")
from sar_eval.errors import BadInput
from sar_eval.networks.clip.source import OPENAI_L14, ClipSource
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.scorers.clip import SCORER
from sar_eval.storage.set_objects import manifest_object, read_manifest
from sar_eval.storage.set_reader import open_set
from sar_eval.storage.set_rows import ManifestRow
from sar_eval.synthesis.begin import begin_set
from sar_eval.synthesis.block import BlockTask
from sar_eval.synthesis.dedup import DedupOptions, deduplicate
from sar_eval.synthesis.embeddings import Embedder, embedding_name
from sar_eval.synthesis.measures import Drawn, OpenMeasures
from sar_eval.synthesis.selection import make_selection, select
from sar_eval.types import Draw, Generation, Prompt
from tests.clip_data import ClipData
from tests.synth_sets import request, write_prompts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(parity, tmp_path_factory) -> ClipData:
    return ClipData(parity / "clipscore", tmp_path_factory.mktemp("clipscore"))


@pytest.fixture(scope="module")
def source(data) -> ClipSource:
    return ClipSource(
        OPENAI_L14, data.unpacked("openai_tiny.safetensors"), str(data.folder / "openai_tiny.json")
    )


def test_an_embedding_is_the_clip_feature_of_length_one(data, source) -> None:
    pictures = list(data.pictures().values())
    with Embedder(source) as embedder:
        found = [row for row in embedder.embed(pictures) if row is not None]
        features = embedder._network.image_rows(pictures, "openai")
    exact = [row.double().numpy() for row in features if not isinstance(row, str)]
    assert len(found) == len(exact) > 5
    for row, whole in zip(found, exact, strict=True):
        assert row.dtype == np.float16
        assert np.abs(row - whole / np.linalg.norm(whole)).max() < 5e-4


def test_what_a_scorer_has_encoded_is_not_encoded_again(data, source, monkeypatch) -> None:
    picture = next(iter(data.pictures().values()))
    with (
        Embedder(source) as embedder,
        SCORER("imagereward", weights=str(source.path), config=source.config) as scorer,
    ):
        assert scorer.network is embedder._network
        list(scorer.score([picture], ["a ring"]))
        monkeypatch.setattr(scorer.network, "encode_pixels", None)
        assert embedder.embed([picture])[0] is not None


def _drawn(row: int) -> Drawn:
    pixels = np.random.default_rng(row).integers(0, 256, (32, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    draw = Draw(Prompt(f"p{row}", "a ring"), 0, row)
    return Drawn(row, draw, Generation(draw.key, row, image=file.getvalue()))


def test_kept_draws_have_embeddings_and_the_manifest_keeps_them(source) -> None:
    drawn = [_drawn(0), _drawn(1), Drawn(2, _drawn(2).draw, Generation("p2/0", 2, error="none"))]
    with Embedder(source) as embedder, OpenMeasures([]) as measures:
        outcomes = select(drawn, make_selection(), measures, embedder)
    assert [outcome.fate for outcome in outcomes] == ["kept", "kept", "failed"]
    assert outcomes[2].embedding is None
    rows = [ManifestRow(n, 0, "p", n, o.fate, embedding=o.embedding) for n, o in enumerate(outcomes)]
    table = read_manifest(manifest_object(rows, []), ["embedding"])
    lengths = [np.linalg.norm(np.frombuffer(v, np.float16)) for v in table["embedding"].to_pylist()[:2]]
    assert lengths == pytest.approx([1, 1], abs=2e-3)


def test_other_weights_and_other_networks_are_refused(source, monkeypatch) -> None:
    monkeypatch.setattr("sar_eval.synthesis.embeddings.ClipSource", lambda *given, **named: source)
    assert embedding_name("clip") == f"clip:{source.version}"
    assert embedding_name("") == ""
    assert Embedder.of_set(f"clip:{source.version}", "cpu").name == embedding_name("clip")
    with pytest.raises(BadInput, match="begun with embeddings of clip:00000000, but this machine has"):
        Embedder.of_set("clip:00000000", "cpu")
    with pytest.raises(BadInput, match="network 'dino'"):
        embedding_name("dino")


def test_a_worker_stores_embeddings_and_dedup_reads_them(source, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("sar_eval.synthesis.embeddings.ClipSource", lambda *given, **named: source)
    prompts = write_prompts(tmp_path / "p.jsonl", ["a ring", "a box", "a ring of gold"])
    image_set, spec = begin_set(request(prompts, str(tmp_path / "set"), embed="clip"))
    assert spec.embed == f"clip:{source.version}"
    with BlockTask(str(tmp_path / "set"), spec).open(WorkerSlot(0)) as run:
        assert run(0).result().record.fates == {"kept": 6}
    result = deduplicate(image_set.store, DedupOptions("embedding", similarity=1e-6))
    assert (result.kept, result.compared, result.without) == (6, 6, 0)
    kept = {(row.row, row.index) for _, _, row in open_set(tmp_path / "set").rows()}
    assert (0, 0) in kept
    assert len(kept) == 6 - result.removed

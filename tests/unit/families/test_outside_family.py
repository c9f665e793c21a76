"""A family from outside the package, docs/examples/mosaic.py: found by entry point, drawn by native."""

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2Config, Qwen2ForCausalLM

from sar_eval import discover
from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.engines.vllm import VllmEngine
from sar_eval.errors import BadInput, UnknownName
from sar_eval.families import simplear
from sar_eval.families.recognise import find_checkpoint
from sar_eval.recipe import load_recipe
from sar_eval.stages.describe_checkpoint import describe
from sar_eval.stages.resolve import resolve
from sar_eval.types import DrawProtocol, Prompt, make_draw

ROOT = Path(__file__).parents[3]
WORDS = ["?", "a", "red", "star", "ring", "two", "blue", "[picture]"]
PALETTE = [[n * 40, 255 - n * 30, n * 10] for n in range(6)]
DECODER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": len(PALETTE) + len(WORDS),
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
}
TEXTS = ("a red star", "two blue ring", "a green ring")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where a package with the family is installed."""
    folder = tmp_path / "site"
    info = folder / "sar_eval_mosaic-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "examples" / "mosaic.py", folder / "sar_eval_mosaic.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sar_eval_mosaic\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sar_eval.families]\nmosaic = sar_eval_mosaic:FAMILY\n")
    return folder


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(3)
    model = Qwen2ForCausalLM(Qwen2Config(**DECODER)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.4)
    return model


@pytest.fixture
def mosaic(tmp_path: Path, model: Qwen2ForCausalLM) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    settings = {"words": WORDS, "palette": PALETTE, "square": 4, "resolution": 16, "decoder": DECODER}
    (folder / "mosaic.json").write_text(json.dumps(settings | {"licence": "CC0-1.0"}))
    stored = {
        name.removeprefix("model.").replace(".", "/"): tensor.numpy()
        for name, tensor in model.state_dict().items()
    }
    np.savez(folder / "mosaic.npz", **stored)
    return folder


def _draws() -> list:
    return [make_draw(Prompt(f"p{n}", text), 0, 5) for n, text in enumerate(TEXTS)]


@pytest.mark.usefixtures("installed")
def test_it_draws_what_transformers_does(mosaic: Path, model: Qwen2ForCausalLM) -> None:
    found = find_checkpoint(str(mosaic))
    protocol = DrawProtocol("greedy", 16, negative_prompt="a ring", guidance=1.5, temperature=0)
    with NativeEngine(str(mosaic), protocol, batch_size=2) as engine:
        drawn = {generation.key: generation for generation in engine.generate(_draws())}
    for draw in _draws():
        rows = found.branches(draw.prompt.text, "a ring", protocol, (4, 4))
        codes = []
        for _ in range(16):
            with torch.inference_mode():
                prompted, negative = (model(torch.tensor([row])).logits[0, -1, :6] for row in rows)
            codes.append(int((negative + 1.5 * (prompted - negative)).argmax()))
            rows = [[*row, codes[-1]] for row in rows]
        generation = drawn[draw.key]
        assert list(generation.tokens) == codes
        with Image.open(io.BytesIO(generation.image or b"")) as image:
            squares = np.asarray(image)[::4, ::4]
        assert squares.reshape(-1, 3).tolist() == [PALETTE[code] for code in codes]
    assert len({generation.tokens for generation in drawn.values()}) > 1


@pytest.mark.usefixtures("installed")
def test_sampled_tokens_do_not_depend_on_the_wave_or_speculation(mosaic: Path) -> None:
    protocol = DrawProtocol("sampled", 16, guidance=1.5)
    tokens = []
    for options in ({"batch_size": 1}, {"batch_size": 3}, {"speculate": True}):
        with NativeEngine(str(mosaic), protocol, **options) as engine:
            tokens.append({g.key: g.tokens for g in engine.generate(_draws())})
    assert tokens[0] == tokens[1] == tokens[2]


@pytest.mark.usefixtures("installed")
def test_a_benchmark_is_resolved_with_the_familys_own_protocol(mosaic: Path, suite: Path) -> None:
    geneval, shapes = (replace(load_recipe(name), suite=suite) for name in ("geneval", "shapes"))
    assert geneval.protocol["name"] == "simplear"
    pinned = resolve(geneval, str(mosaic), {"judge": "shapes"}).protocol
    assert (pinned.name, pinned.guidance, pinned.negative_prompt) == ("mosaic", 1.5, "")
    assert pinned.resolution == 16
    assert resolve(shapes, str(mosaic), {"resolution": 16}).protocol.name == "shapes+"
    with pytest.raises(UnknownName, match=r"unknown protocol 'simplear'.*mosaic"):
        resolve(shapes, str(mosaic), {"protocol": "simplear"})


@pytest.mark.usefixtures("installed")
def test_it_is_described(mosaic: Path) -> None:
    facts = describe(str(mosaic), "", "float32")
    assert (facts["family"], facts["licences"]) == ("mosaic", {"decoder": "CC0-1.0"})
    assert facts["protocols"] == ["mosaic"]
    assert (facts["visual_ids"], facts["text_ids"]) == ("0 to 5", "6 to 13")


@pytest.mark.usefixtures("installed")
def test_what_its_protocol_cannot_ask_for_is_named(mosaic: Path) -> None:
    with pytest.raises(
        BadInput, match=r"truncate is True in the protocol, .*of mosaic.*prompts are not cut"
    ):
        NativeEngine(str(mosaic), DrawProtocol("x", 16, truncate=True))


@pytest.mark.usefixtures("installed")
def test_what_does_not_draw_with_it_says_why(mosaic: Path) -> None:
    with pytest.raises(BadInput, match=r"own class of a network, and the family 'mosaic' of .* names none"):
        HfEngine(str(mosaic), DrawProtocol("x", 16))
    with pytest.raises(BadInput, match=r"of the family 'mosaic': its visual ids do not follow"):
        VllmEngine(str(mosaic), DrawProtocol("x", 16))
    with pytest.raises(
        BadInput, match="is a checkpoint of the family 'mosaic', and this needs one of 'simp"
    ):
        simplear.find_checkpoint(str(mosaic))


@pytest.mark.usefixtures("installed")
def test_a_missing_and_a_foreign_tensor_are_named(mosaic: Path) -> None:
    path = mosaic / "mosaic.npz"
    with np.load(path) as file:
        stored = dict(file)
    np.savez(path, **{name: value for name, value in stored.items() if name != "norm/weight"})
    with pytest.raises(BadInput, match=r"no tensor 'model\.norm\.weight'"):
        find_checkpoint(str(mosaic)).read_weights("cpu", torch.float32)
    np.savez(path, **stored, **{"layers/7/x": np.zeros(1)})
    with pytest.raises(BadInput, match=r"no part of the decoder .*model\.layers\.7\.x"):
        find_checkpoint(str(mosaic)).read_weights("cpu", torch.float32)


def test_without_the_package_it_is_of_no_family(mosaic: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mosaic\.npz\): if this file holds the model's tensors"):
        find_checkpoint(str(mosaic))
    (mosaic / "mosaic.npz").unlink()
    with pytest.raises(
        BadInput, match=r"of no family that is known \(.*simplear.*no config\.json, but 'mos"
    ):
        find_checkpoint(str(mosaic))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "checkpoint" / "config.json").write_text((tmp_path / "config.json").read_text())
    with pytest.raises(
        BadInput, match=r"model_type 'llama' and architectures \['LlamaForCausalLM'\] in conf"
    ):
        find_checkpoint(str(mosaic))


@pytest.mark.usefixtures("installed")
def test_files_of_two_families_are_refused(mosaic: Path, tiny_checkpoint: Path) -> None:
    shutil.copy(tiny_checkpoint / "config.json", mosaic / "config.json")
    with pytest.raises(BadInput, match=r"of checkpoints of mosaic and simplear"):
        find_checkpoint(str(mosaic))


@pytest.mark.usefixtures("installed")
def test_families_are_listed_and_helpers_are_not() -> None:
    names = discover.names("families")
    assert {"simplear", "mosaic"} <= set(names)
    assert not {"locate", "family", "recognise", "cosmos", "prompting"} & set(names)
    for name in names:
        assert discover.load("families", name).name == name


def test_the_page_shows_the_family() -> None:
    page = (ROOT / "docs" / "adding-a-family.md").read_text()
    code = (ROOT / "docs" / "examples" / "mosaic.py").read_text()
    assert f"```python\n{code}```\n" in page


@pytest.mark.slow
def test_a_run_draws_with_it(sar_eval, site: Path, mosaic: Path, suite: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    words = ("run", "shapes", "--ckpt", mosaic, "--suite", suite, "--resolution", 16, "-n", 1)
    done = sar_eval(*words, "--workers", 1, "--out", tmp_path / "run", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["checkpoint"] == str(mosaic)
    assert found["complete"]

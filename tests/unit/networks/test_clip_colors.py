"""The colour classifier over a tiny CLIP of the real architecture with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.errors import BadInput

open_clip = pytest.importorskip("open_clip", reason="needs the extra geneval")
from sar_eval.networks.clip.colors import OFFICIAL, TEMPLATES, ColorClassifier  # noqa: E402
from sar_eval.tensors.torchscript import save_torchscript  # noqa: E402

COLORS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def files(tiny_clip) -> tuple[Path, Path]:
    return tiny_clip["config"], tiny_clip["weights"]


@pytest.fixture(scope="module")
def classifier(files) -> ColorClassifier:
    config, weights = files
    return ColorClassifier(COLORS, weights, model=str(config))


def _crops(number: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (20 + i, 31, 3), np.uint8)) for i in range(number)]


def test_probabilities_are_those_of_the_official_recipe(classifier, files) -> None:
    """Recomputed crop by crop with open_clip alone."""
    config, weights = files
    model = open_clip.create_model(config.stem, pretrained=str(weights)).eval()
    transform = open_clip.image_transform(32, is_train=False)
    tokenize = open_clip.get_tokenizer("ViT-L-14")
    names = ["dog", "cup", "dog", "bus", "tv"]
    results = classifier.classify(_crops(5), names, batch_size=2)
    for crop, name, probabilities in zip(_crops(5), names, results, strict=True):
        columns = []
        for color in COLORS:
            texts = [f"a photo of a {color} {name}", f"a photo of a {color}-colored {name}"]
            with torch.no_grad():
                features = model.encode_text(tokenize([*texts, f"a photo of a {color} object"]))
            features = torch.nn.functional.normalize(features, dim=-1).mean(0)
            columns.append(features / features.norm())
        with torch.no_grad():
            image = torch.nn.functional.normalize(model.encode_image(transform(crop)[None]), dim=-1)
        expected = (100 * image @ torch.stack(columns, 1)).softmax(-1)[0]
        assert list(probabilities) == list(COLORS)
        assert list(probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)


def test_probabilities_do_not_depend_on_the_batch(classifier) -> None:
    crops, names = _crops(7), ["dog"] * 7
    single = classifier.classify(crops, names, batch_size=1)
    for alone, together in zip(single, classifier.classify(crops, names, batch_size=7), strict=True):
        assert alone == pytest.approx(together, abs=1e-4)
    assert classifier.classify([], []) == []


def test_the_activation_is_openais(classifier) -> None:
    x = torch.linspace(-4, 4, 33)
    for transformer in (classifier.model.visual.transformer, classifier.model.transformer):
        for block in transformer.resblocks:
            assert torch.allclose(block.mlp.gelu(x), x * torch.sigmoid(1.702 * x))
            assert not torch.allclose(block.mlp.gelu(x), torch.nn.functional.gelu(x), atol=1e-3)


def test_the_official_architecture_uses_quickgelu() -> None:
    assert open_clip.get_model_config(OFFICIAL)["quick_gelu"] is True
    assert "quick_gelu" not in open_clip.get_model_config("ViT-L-14")


def test_plain_gelu_is_refused(files, tmp_path: Path) -> None:
    config, weights = files
    shape = json.loads(config.read_text())
    del shape["quick_gelu"]
    (tmp_path / "tiny-plain.json").write_text(json.dumps(shape))
    with pytest.raises(BadInput, match=r"GELU in its image tower.*quick_gelu"):
        ColorClassifier(COLORS, weights, model=str(tmp_path / "tiny-plain.json"))


def test_openais_torchscript_archive_is_read(classifier, files, tmp_path: Path) -> None:
    """A TorchScript file with half-precision weights and three buffers beside them."""
    from safetensors.torch import load_file

    config, weights = files

    class Archive(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    archive = Archive()
    for name, tensor in load_file(weights).items():
        module, path = archive, name.split(".")
        for part in path[:-1]:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_buffer(path[-1], tensor.half())
    archive.register_buffer("input_resolution", torch.tensor(32))
    path = tmp_path / "ViT-tiny.pt"
    save_torchscript(archive, path)
    actual = ColorClassifier(COLORS, path, model=str(config)).classify(_crops(2), ["dog", "cup"])
    expected = classifier.classify(_crops(2), ["dog", "cup"])
    for half, full in zip(actual, expected, strict=True):
        assert half == pytest.approx(full, abs=0.02)


def test_wrong_weights_are_named(files, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config, weights = files
    state = load_file(weights)
    del state["ln_final.weight"]
    state["text_projection"] = state["text_projection"].T.contiguous()
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match=r"1 missing \(ln_final.weight.*text_projection is"):
        ColorClassifier(COLORS, tmp_path / "other.safetensors", model=str(config))
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="no readable CLIP weights"):
        ColorClassifier(COLORS, tmp_path / "broken.safetensors", model=str(config))
    with pytest.raises(BadInput, match="no CLIP weights"):
        ColorClassifier(COLORS, tmp_path / "absent.pt", model=str(config))
    with pytest.raises(BadInput, match="no model 'ViT-X'"):
        ColorClassifier(COLORS, weights, model="ViT-X")


def test_the_three_official_templates() -> None:
    assert [t.format(color="red", name="bus") for t in TEMPLATES] == [
        "a photo of a red bus",
        "a photo of a red-colored bus",
        "a photo of a red object",
    ]

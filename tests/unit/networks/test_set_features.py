"""Features of set distances: forms of weights, wrong files, CLIP and DINOv2 as their authors run them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks import dinov2
from sar_eval.networks.inception import resize
from sar_eval.networks.inception.weights import load_inception
from sar_eval.networks.set_features import ClipFeatures, DinoFeatures, InceptionFeatures
from sar_eval.tensors.torchscript import save_torchscript
from tests.inception_case import FOLDER, narrow, pictures, random_state

SHAPES = narrow(json.loads((FOLDER / "shapes.json").read_text()))
pytestmark = pytest.mark.usefixtures("one_thread")


def _state():
    return {name: torch.from_numpy(values) for name, values in random_state(SHAPES, 3).items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "narrow.pth"
    torch.save(_state(), path)
    return path


class Program(torch.nn.Module):
    """NVIDIA's file as clean-fid uses it: `layers` behind a resizing and before a classifier."""

    def __init__(self, layers: torch.nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return self.layers((img - 128) / 128)


def _features(network, images):
    with network:
        return network.embed([network.prepare(Picture(image)) for image in images])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_file_gives_the_same_as_tensors_by_name(weights, tmp_path) -> None:
    images = pictures(2, 1)
    traced = torch.jit.trace(load_inception(weights), torch.zeros(2, 3, 299, 299))
    save_torchscript(Program(traced), tmp_path / "program.pt")
    expected = _features(InceptionFeatures(weights, "cpu", form="clean"), images)
    found = _features(InceptionFeatures(tmp_path / "program.pt", "cpu", form="clean"), images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_batch_changes_rounding_alone(weights) -> None:
    images = pictures(3, 1)
    together = _features(InceptionFeatures(weights, "cpu", form="tf"), images)
    apart = [_features(InceptionFeatures(weights, "cpu", form="tf"), [image])[0] for image in images]
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-4)


def test_versions_name_transform_and_weights(weights, tmp_path) -> None:
    torch.save(_state() | {"fc.bias": torch.ones(1008)}, tmp_path / "other.pth")
    versions = {InceptionFeatures(weights, "cpu", form=form).version for form in ("clean", "torch", "tf")}
    versions.add(InceptionFeatures(tmp_path / "other.pth", "cpu", form="clean").version)
    assert len(versions) == 4


def test_torchvisions_inception_is_refused(tmp_path) -> None:
    torch.save(_state() | {"fc.weight": torch.zeros(1000, 128)}, tmp_path / "imagenet.pth")
    with pytest.raises(BadInput, match=r"1000 classes.*fetch scorers inception-fid"):
        load_inception(tmp_path / "imagenet.pth")


def test_other_tensors_are_refused(tmp_path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(BadInput, match="not FID's Inception"):
        load_inception(tmp_path / "resnet.pth")
    torch.save(_state() | {"extra": torch.zeros(3)}, tmp_path / "more.pth")
    with pytest.raises(BadInput, match=r"1 unexpected \(extra"):
        load_inception(tmp_path / "more.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(BadInput):
        load_inception(tmp_path / "text.pth")


def test_another_program_is_refused(tmp_path) -> None:
    save_torchscript(torch.nn.Linear(2, 2), tmp_path / "other.pt")
    with pytest.raises(BadInput, match="not Inception's"):
        load_inception(tmp_path / "other.pt")


@pytest.mark.parametrize("size", [(1, 1), (299, 299), (2, 900)])
def test_pictures_of_any_size_are_resized(size) -> None:
    image = Image.new("RGB", size, (255, 128, 0))
    for form in (resize.clean, resize.torch_bilinear, resize.tensorflow_bilinear):
        pixels = form(image)
        assert pixels.shape == (3, 299, 299)
        assert pixels.dtype == torch.float32
        assert pixels.mean((1, 2)).tolist() == pytest.approx([1, 0, -1], abs=0.01)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A small CLIP of transformers."""
    transformers = pytest.importorskip("transformers", reason="needs the extra scorers")
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = transformers.CLIPVisionConfig(
        **sizes, image_size=42, patch_size=14, hidden_act="quick_gelu", projection_dim=16
    )
    text = transformers.CLIPTextConfig(**sizes, vocab_size=100, hidden_act="quick_gelu", projection_dim=16)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_as_cmmds_authors_run_it(clip_folder) -> None:
    """Their steps with transformers: the middle square, Pillow's bicubic filter, unit `image_embeds`."""
    import transformers

    model = transformers.CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    processor, images, expected = transformers.CLIPImageProcessor(), pictures(4, 2), []
    for image in images:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((42, 42), Image.BICUBIC)
        options = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        with torch.no_grad():
            embeds = model(**processor(images=square, **options)).image_embeds
        expected.append((embeds / embeds.norm(dim=-1, keepdim=True))[0].numpy())
    found = _features(ClipFeatures(clip_folder, "cpu"), images)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    """A small DINOv2 that was trained at 518 pixels, as the published one was."""
    transformers = pytest.importorskip("transformers", reason="needs the extra scorers")
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=518, patch_size=14
    )
    torch.manual_seed(0)
    model = transformers.Dinov2Model(config)
    torch.nn.init.normal_(model.embeddings.position_embeddings, std=1.0)
    folder = tmp_path_factory.mktemp("dinov2")
    model.save_pretrained(folder)
    return folder


def _official_grid(positions, cells):
    """What DINOv2's own `interpolate_pos_encoding` does with `interpolate_offset = 0.1`."""
    side = int((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = float(cells + 0.1) / side
    grid = torch.nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    assert grid.shape[-2:] == (cells, cells)
    return torch.cat((positions[:, :1], grid.permute(0, 2, 3, 1).view(1, cells * cells, -1)), dim=1)


def test_dinov2_samples_its_positions_as_its_own_code_does(dino_folder) -> None:
    """transformers samples them elsewhere, which gives other features: the offset on and off."""
    import transformers

    images = pictures(2, 3)
    network = DinoFeatures(dino_folder, "cpu")
    found = _features(network, images)
    plain = transformers.Dinov2Model.from_pretrained(dino_folder).eval()
    pixels = torch.stack([dinov2.prepare(image) for image in images])
    with torch.no_grad():
        without = plain(pixel_values=pixels).last_hidden_state[:, 0].numpy()
        positions = plain.embeddings.position_embeddings
        plain.embeddings.position_embeddings = torch.nn.Parameter(_official_grid(positions, 16))
        official = plain(pixel_values=pixels).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(found, official, atol=1e-5)
    assert np.abs(found - without).max() > 3e-4


def test_dinov2_prepares_as_torchvision_does() -> None:
    """dgm-eval's transform: Resize((224, 224), BICUBIC) of a Pillow image, ToTensor, Normalize."""
    transforms = pytest.importorskip("torchvision.transforms", reason="needs the extra scorers")
    chain = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    for image in pictures(4, 4):
        torch.testing.assert_close(dinov2.prepare(image), chain(image), atol=1e-6, rtol=0)


def test_a_folder_of_something_else_is_refused(tmp_path, clip_folder, dino_folder) -> None:
    with pytest.raises(BadInput, match="no DINOv2 weights"):
        DinoFeatures(tmp_path, "cpu")
    with pytest.raises(BadInput, match="DINOv2"), DinoFeatures(clip_folder, "cpu"):
        pass
    with pytest.raises(BadInput, match="CLIP"), ClipFeatures(dino_folder, "cpu"):
        pass
    with pytest.raises(BadInput, match="no Inception weights"):
        InceptionFeatures(tmp_path, "cpu", form="clean")

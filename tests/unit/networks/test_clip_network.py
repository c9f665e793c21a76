"""Loading CLIP from every form, and the network that scorers share."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("open_clip", reason="needs the extra geneval")
import open_clip

from sar_eval.errors import BadInput
from sar_eval.images.picture import Picture
from sar_eval.networks import shared
from sar_eval.networks.clip import network
from sar_eval.networks.clip.architecture import read_architecture
from sar_eval.networks.clip.colors import ColorClassifier
from sar_eval.networks.clip.held import HeldClip
from sar_eval.networks.clip.network import ClipNetwork
from sar_eval.networks.clip.source import HPS_V21, LAION_H14, OPENAI_L14, PICKSCORE, ClipSource
from sar_eval.networks.clip.tokenizers import openai_tokens
from sar_eval.networks.clip.weights import read_state, rename_hf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def source(tiny_clip) -> ClipSource:
    return ClipSource(OPENAI_L14, tiny_clip["weights"], str(tiny_clip["config"]))


@pytest.fixture
def clip(source) -> ClipNetwork:
    return ClipNetwork(source)


def _pictures(number: int) -> list[Picture]:
    rng = np.random.default_rng(0)
    return [Picture.from_pixels(rng.integers(0, 255, (40 + i, 50, 3), np.uint8)) for i in range(number)]


def test_features_are_open_clips(clip, tiny_clip) -> None:
    model = open_clip.create_model(tiny_clip["config"].stem, pretrained=str(tiny_clip["weights"])).eval()
    transform = open_clip.image_transform(32, is_train=False)
    pictures, texts = _pictures(3), ["a cat", "two dogs and three birds on a red bus", ""]
    tokens = open_clip.get_tokenizer("ViT-B-32")(texts)
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(picture.image) for picture in pictures]))
        features = model.encode_text(tokens)
    assert torch.allclose(torch.stack(clip.image_rows(pictures, "openai")), images, atol=1e-5)
    assert torch.allclose(clip.text_features([openai_tokens(text) for text in texts]), features, atol=1e-5)


def test_a_picture_is_encoded_once_for_a_transform(clip, monkeypatch) -> None:
    encoded = []
    encode = clip.encode_pixels
    monkeypatch.setattr(clip, "encode_pixels", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    pictures = _pictures(3)
    first = clip.image_rows(pictures, "openai")
    again = clip.image_rows([*pictures[::-1], pictures[0]], "openai")
    assert encoded == [3]
    assert all(torch.equal(a, b) for a, b in zip(first, again[2::-1], strict=True))
    clip.image_rows(pictures[:1], "hf")
    assert encoded == [3, 1]


def test_features_do_not_depend_on_the_batch(clip, monkeypatch) -> None:
    together = torch.stack(clip.image_rows(_pictures(7), "openai"))
    monkeypatch.setattr(network, "MAX_BATCH", 2)
    assert torch.allclose(torch.stack(clip.image_rows(_pictures(7), "openai")), together, atol=1e-5)
    texts = [openai_tokens("a cat" + " and a dog" * n) for n in range(7)]
    whole = clip.text_features(texts)
    for text, row in zip(texts, whole, strict=True):
        alone = ClipNetwork.encode_tokens(clip, [text.ids])[0]
        assert torch.allclose(alone, row, atol=1e-5)


def test_float32_is_not_shortened_on_a_gpu(clip, monkeypatch) -> None:
    """cuDNN's setting, which the CPU ignores, is off while a picture is encoded, and then as before."""
    before, seen = torch.backends.cudnn.allow_tf32, []
    encode = clip.model.encode_image
    monkeypatch.setattr(
        clip.model, "encode_image", lambda x: seen.append(torch.backends.cudnn.allow_tf32) or encode(x)
    )
    clip.image_rows(_pictures(1), "openai")
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_latest_texts_are_kept(clip, monkeypatch) -> None:
    monkeypatch.setattr(network, "MAX_TEXTS", 3)
    texts = [openai_tokens(word) for word in ("cat", "dog", "bus", "cup", "tv")]
    whole = clip.text_features(texts)  # more at once than are kept
    assert list(clip._texts) == [text.ids for text in texts[2:]]
    clip.text_features(texts[2:3])
    assert next(reversed(clip._texts)) == texts[2].ids
    assert torch.allclose(clip.text_features(texts[::-1]), whole.flip(0), atol=1e-5)


def test_a_picture_that_cannot_be_resized_is_its_own_error(clip) -> None:
    narrow = Picture.from_pixels(np.zeros((1, 600_000, 3), np.uint8))
    rows = clip.image_rows([*_pictures(1), narrow, *_pictures(1)], "openai")
    assert [isinstance(row, str) for row in rows] == [False, True, False]
    assert "too narrow" in rows[1]


def test_one_network_serves_all_who_hold_it(source, tiny_clip, monkeypatch) -> None:
    monkeypatch.setattr(shared, "_held", {})  # judges of other tests may still hold this very network
    first, second = HeldClip(source), HeldClip(ClipSource(OPENAI_L14, source.path, source.config))
    colors = ColorClassifier(("red", "blue"), tiny_clip["weights"], model=str(tiny_clip["config"]))
    with first as one, second as two:
        assert one is two is colors.network
    colors.close()
    assert source.key not in shared._held
    with first as fresh:
        assert fresh is not one
    other = ClipSource(OPENAI_L14, source.path, source.config, dtype="bfloat16")
    assert other.key != source.key
    assert other.version == f"{source.version}+bfloat16"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(source, dtype) -> None:
    half = ClipNetwork(ClipSource(OPENAI_L14, source.path, source.config, dtype=dtype))
    pictures = _pictures(2)
    whole = torch.stack(ClipNetwork(source).image_rows(pictures, "openai"))
    rows = torch.stack(half.image_rows(pictures, "openai"))
    assert rows.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(rows, whole).min() > 0.999
    texts = [openai_tokens("a cat")]
    near = torch.nn.functional.cosine_similarity(
        half.text_features(texts), ClipNetwork(source).text_features(texts)
    )
    assert near.min() > 0.999


# Weights.


def _hf_form():
    """A CLIPModel of transformers' own class, of the tiny CLIP's sizes, and its configuration."""
    transformers = pytest.importorskip("transformers", reason="needs the extra geneval")
    common = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_act": "quick_gelu"}
    vision = {"hidden_size": 64, "intermediate_size": 256, "image_size": 32, "patch_size": 8, **common}
    text = {"hidden_size": 32, "intermediate_size": 128, "vocab_size": 49408, **common}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    torch.manual_seed(0)
    return transformers.CLIPModel(config).eval(), config


def test_hugging_faces_form_is_the_same_network(tmp_path) -> None:
    model, _ = _hf_form()
    model.save_pretrained(tmp_path)
    clip = ClipNetwork(ClipSource(OPENAI_L14, tmp_path, str(tmp_path / "config.json")))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = openai_tokens("a cat on a mat")
    with torch.no_grad():
        images = model.get_image_features(pixel_values=pixels).pooler_output
        texts = model.get_text_features(input_ids=torch.tensor([tokens.ids])).pooler_output
    assert torch.allclose(clip.encode_pixels(pixels), images, atol=1e-5)
    assert torch.allclose(clip.text_features([tokens]), texts, atol=1e-5)
    assert clip.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_a_missing_tensor_of_hugging_faces_form_is_named(tmp_path) -> None:
    model, _ = _hf_form()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    assert "visual.transformer.resblocks.1.attn.in_proj_weight" not in rename_hf(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"1 missing \(visual.transformer.resblocks.1.attn.in_proj_weight"):
        ClipNetwork(ClipSource(OPENAI_L14, tmp_path, str(tmp_path / "config.json")))


def test_a_pickle_of_more_than_tensors_is_refused(tmp_path) -> None:
    class Program:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"state_dict": {"x": torch.zeros(1)}, "optimizer": Program()}, tmp_path / "HPS_v2.pt")
    with pytest.raises(BadInput, match=r"holds no readable CLIP weights: .*may be programs"):
        read_state(tmp_path / "HPS_v2.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Program()))
    with pytest.raises(BadInput, match="holds no readable CLIP weights"):
        read_state(tmp_path / "bare.pt")


def test_another_size_of_network_is_named(tiny_clip) -> None:
    with pytest.raises(BadInput, match=r"does not fit the CLIP model: .*missing"):
        ClipNetwork(ClipSource(OPENAI_L14, tiny_clip["weights"], "ViT-B-32-quickgelu"))


def test_a_folder_without_weights_is_named(tmp_path) -> None:
    with pytest.raises(BadInput, match=r"the folder has none of model.safetensors"):
        ClipSource(PICKSCORE, tmp_path)
    with pytest.raises(BadInput, match=r"no CLIP weights .*absent\.pt"):
        ClipSource(PICKSCORE, tmp_path / "absent.pt")


def test_another_variants_file_is_told_by_its_checksum(tiny_clip, tmp_path, monkeypatch) -> None:
    """v2.0 and v2.1 have the same tensors. The checksum of v2.0 was noted when it was fetched."""
    from sar_eval.tensors.published_weights import WEIGHTS, checksum_path

    monkeypatch.setenv("SAR_EVAL_CACHE", str(tmp_path))
    weights = tmp_path / "renamed.safetensors"
    weights.write_bytes(tiny_clip["weights"].read_bytes())
    source = ClipSource(HPS_V21, weights)  # nothing is known of these bytes
    (old,) = WEIGHTS["hps-v2.0"]
    checksum_path(tmp_path / old.name).write_text(f"{source.digest}  {old.name}\n")
    with pytest.raises(BadInput, match=r"holds the weights 'hps-v2.0', but 'hps-v2.1' are needed: .*fetch"):
        ClipSource(HPS_V21, weights)
    with pytest.raises(BadInput, match="'clip-h14' are needed"):
        ClipSource(LAION_H14, weights)


# Architectures.


def test_both_forms_of_configuration_say_the_same(tmp_path, tiny_clip) -> None:
    _, config = _hf_form()
    config.save_pretrained(tmp_path)
    hf, own = read_architecture(str(tmp_path / "config.json")), read_architecture(str(tiny_clip["config"]))
    assert hf["vision_cfg"].pop("mlp_ratio") == hf["text_cfg"].pop("mlp_ratio") == 4
    assert hf == own


def test_hugging_faces_defaults_are_filled_in(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": {}}))
    hf, own = read_architecture(str(tmp_path / "config.json")), read_architecture("ViT-B-32-quickgelu")
    assert hf["vision_cfg"] | own["vision_cfg"] == hf["vision_cfg"]
    assert hf["text_cfg"] | own["text_cfg"] == hf["text_cfg"]
    assert (hf["embed_dim"], hf["quick_gelu"]) == (own["embed_dim"], own["quick_gelu"])


def test_a_width_that_is_no_multiple_is_kept(tmp_path) -> None:
    """1152 * (4304 / 1152) is 4303.99... in floating point."""
    for width in range(4303, 4320):
        vision = {"hidden_size": 1152, "intermediate_size": width, "num_attention_heads": 16}
        (tmp_path / "c.json").write_text(json.dumps({"vision_config": vision, "text_config": {}}))
        found = read_architecture(str(tmp_path / "c.json"))["vision_cfg"]
        assert int(found["width"] * found["mlp_ratio"]) == width


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a table is needed"),
        ({}, "no tables vision_cfg and text_cfg"),
        ({"vision_config": 3, "text_config": {}}, "no table vision_config"),
        ({"vision_config": {"hidden_act": "gelu"}, "text_config": {}}, "both must be quick_gelu, or gelu"),
        ({"vision_config": {"layer_norm_eps": 1e-6}, "text_config": {}}, "layer_norm_eps must be 1e-5"),
        ({"vision_config": {"hidden_size": "wide"}, "text_config": {}}, "must be whole numbers"),
        ({"vision_config": {"hidden_size": 0}, "text_config": {}}, "must be whole numbers"),
        ({"vision_config": {"hidden_act": []}, "text_config": {}}, "must be whole numbers"),
        ({"vision_cfg": {"timm_model_name": "x"}, "text_cfg": {}}, r"no plain CLIP.*\(timm_model_name\)"),
        ({"vision_cfg": {"layers": [3, 4]}, "text_cfg": {}}, "no plain CLIP of two transformers$"),
    ],
)
def test_other_configurations_are_refused(tmp_path, content, message) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=message):
        read_architecture(str(tmp_path / "c.json"))


def test_sizes_that_do_not_fit_are_refused(tmp_path, tiny_clip) -> None:
    config = json.loads(tiny_clip["config"].read_text())
    config["vision_cfg"]["width"] = "wide"
    (tmp_path / "c.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="cannot be built"):
        ClipNetwork(ClipSource(OPENAI_L14, tiny_clip["weights"], str(tmp_path / "c.json")))

"""Folders of diffusers' pipelines: what is found, what is refused by name; without diffusers."""

import json
from pathlib import Path

import pytest

from sar_eval.errors import BadInput
from sar_eval.families.diffusers_folder import find_pipeline, is_pipeline
from sar_eval.stages.describe_checkpoint import describe

ENTRIES = {
    "_class_name": "StableDiffusion3Pipeline",
    "_diffusers_version": "0.42.1",
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder_3": [None, None],
    "vae": ["diffusers", "AutoencoderKL"],
    "force_zeros": True,
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A folder with files of the right names, each of whose components holds one tensor of 2x3."""
    folder = tmp_path / "pipe"
    folder.mkdir()
    write_index(folder, {})
    for name, config in (("transformer", {"sample_size": 64}), ("vae", {"block_out_channels": [1] * 4})):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        weights(folder / name / "diffusion_pytorch_model.safetensors")
    for name, file in (("scheduler", "scheduler_config.json"), ("tokenizer", "vocab.json")):
        (folder / name).mkdir()
        (folder / name / file).write_text("{}")
    (folder / "README.md").write_text(
        "---\ntags:\n- x\nlicense: other\nlicense_name: sai-nc # x\n---\n# Pipe\n"
    )
    return folder


def write_index(folder: Path, changes: dict[str, object]) -> None:
    (folder / "model_index.json").write_text(json.dumps(ENTRIES | changes))


def weights(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))


def test_a_folder_says_what_it_is(pipeline: Path) -> None:
    found = find_pipeline(str(pipeline))
    assert is_pipeline(str(pipeline))
    assert found.class_name == "StableDiffusion3Pipeline"
    assert list(found.components) == ["transformer", "scheduler", "tokenizer", "vae"]
    assert found.absent == ("text_encoder_3",)
    assert (found.native_resolution, found.downsample) == (512, 8)
    assert found.licence == "sai-nc"
    assert found.parameters == {"transformer": 6, "vae": 6}
    assert found.notes == (f"{pipeline} is used without text_encoder_3",)


def test_ckpt_info_describes_it(pipeline: Path) -> None:
    facts = describe(str(pipeline), "", "bfloat16")
    assert facts["kind"].startswith("a pipeline of diffusers, StableDiffusion3Pipeline")
    assert facts["components"]["vae"] == "diffusers.AutoencoderKL"
    assert facts["licence"] == "sai-nc"
    assert (facts["parameters"], facts["weights_bytes"]) == (12, 24)
    assert facts["resolution"] == {"pixels": 512, "pixels_a_latent": 8}


@pytest.mark.parametrize(
    "file", ["vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "model_index.json"]
)
def test_the_digest_is_of_every_file_that_decides_pixels(pipeline: Path, file: str) -> None:
    before = find_pipeline(str(pipeline)).digest
    (pipeline / "README.md").write_text("another card")
    assert find_pipeline(str(pipeline)).digest == before
    data = (pipeline / file).read_bytes()
    (pipeline / file).write_bytes(data[:-1] + (b"\x01" if data[-1:] == b"\x00" else b" }"))
    assert find_pipeline(str(pipeline)).digest != before


def test_a_component_left_out_is_not_in_the_digest(pipeline: Path) -> None:
    write_index(pipeline, {"text_encoder_3": ["transformers", "T5EncoderModel"]})
    with pytest.raises(BadInput, match=r"to draw without it, --engine-option without=text_encoder_3"):
        find_pipeline(str(pipeline))
    found = find_pipeline(str(pipeline), without=("text_encoder_3",))
    assert found.absent == ("text_encoder_3",)
    with pytest.raises(BadInput, match=r"has no component 'unet'; it has transformer, scheduler"):
        find_pipeline(str(pipeline), without=("unet",))


def test_a_variant_is_used_where_a_component_has_it(pipeline: Path) -> None:
    weights(pipeline / "vae" / "diffusion_pytorch_model.fp16-00001-of-00001.safetensors")
    plain, half = find_pipeline(str(pipeline)), find_pipeline(str(pipeline), variant="fp16")
    assert [path.name for path in plain.weights["vae"]] == ["diffusion_pytorch_model.safetensors"]
    assert [path.name for path in half.weights["vae"]] == [
        "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"
    ]
    assert half.weights["transformer"] == plain.weights["transformer"]
    assert half.digest != plain.digest
    (pipeline / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"only other variants of its weights \(fp16\)"):
        find_pipeline(str(pipeline))


@pytest.mark.parametrize("config", [{}, {"sample_size": True}, {"sample_size": "64"}])
def test_a_resolution_that_no_file_states_is_said(pipeline: Path, config: dict[str, object]) -> None:
    (pipeline / "transformer" / "config.json").write_text(json.dumps(config))
    found = find_pipeline(str(pipeline))
    assert found.native_resolution == 1024
    assert "does not say its resolution: 1024 is assumed" in found.notes[0]
    (pipeline / "sar_eval.json").write_text('{"resolution": 768}')
    assert find_pipeline(str(pipeline)).native_resolution == 768


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": ["my_pipeline", "Mine"]}, "the pipeline's class is .* none of diffusers' own"),
        ({"vae": ["my.module", "Vae"]}, "component 'vae' is .*, not a library and a class"),
        ({"vae": ["diffusers", "AutoencoderKL", {}]}, "component 'vae' is"),
        ({"../../etc": ["diffusers", "AutoencoderKL"]}, "is never run"),
    ],
)
def test_code_of_a_checkpoint_is_refused(pipeline: Path, changes: dict[str, object], message: str) -> None:
    write_index(pipeline, changes)
    with pytest.raises(BadInput, match=message):
        find_pipeline(str(pipeline))


def test_an_auto_class_with_code_of_its_own_is_refused(pipeline: Path) -> None:
    write_index(pipeline, {"tokenizer": ["transformers", "AutoTokenizer"]})
    find_pipeline(str(pipeline))
    (pipeline / "tokenizer" / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.Y"}}')
    with pytest.raises(BadInput, match=r"tokenizer_config.json names code of the checkpoint \(auto_map\)"):
        find_pipeline(str(pipeline))


def test_pickles_and_pointers_are_refused(pipeline: Path) -> None:
    path = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(BadInput, match="git-lfs pointer"):
        find_pipeline(str(pipeline))
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(BadInput, match=r"component vae .* has only .*\.bin, which is no"):
        find_pipeline(str(pipeline))


def test_other_folders_are_none(tmp_path: Path) -> None:
    assert not is_pipeline(str(tmp_path))
    assert not is_pipeline("demo:sft")
    assert not is_pipeline("no/such/folder/here/at all")
    with pytest.raises(BadInput, match="is no pipeline of diffusers"):
        find_pipeline(str(tmp_path))

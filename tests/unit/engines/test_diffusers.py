"""Pipelines of diffusers with random weights: batches, seeds, refusals."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sar_eval.errors import BadInput
from sar_eval.types import Draw, DrawProtocol, Generation, Prompt, make_draw

pytest.importorskip("diffusers", reason="needs the extra diffusers")

from sar_eval.engines.diffusers import ENGINE, DiffusersEngine, to_bytes
from tests.tiny_pipelines import save_checked_sd, save_sana, save_sd3

pytestmark = pytest.mark.slow  # importing diffusers, transformers and torch takes seconds

TEXTS = ("a red square", "a blue circle left of a green triangle", "cat")
OPTIONS = {
    "sd3": {"steps": 4},
    # Sana's own bins begin at 512 pixels, and it puts a long instruction before each prompt.
    "sana": {"steps": 2, "call": {"use_resolution_binning": False, "complex_human_instruction": []}},
}
TOLERANCE = 2e-6  # as docs/engines.md states it


@pytest.fixture(scope="session")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd3(tmp_path_factory.mktemp("pipelines") / "sd3")


@pytest.fixture(scope="session")
def sana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sana(tmp_path_factory.mktemp("pipelines") / "sana")


@pytest.fixture(scope="module", params=["sd3", "sana"])
def engine(request: pytest.FixtureRequest) -> Iterator[DiffusersEngine]:
    folder, options = request.getfixturevalue(request.param), OPTIONS[request.param]
    with make(folder, **options) as made:
        yield made


def make(folder: Path, protocol: DrawProtocol | None = None, **options: object) -> DiffusersEngine:
    return ENGINE(str(folder), protocol or DrawProtocol("test", 32, guidance=5.0), **options)


def draws(*texts: str) -> list[Draw]:
    return [make_draw(Prompt(f"p{n}", text), 0, 0) for n, text in enumerate(texts)]


def picture(generation: Generation) -> np.ndarray:
    assert generation.error is None
    assert generation.image is not None
    return np.asarray(Image.open(io.BytesIO(generation.image)))


def test_a_picture_is_the_same_alone_in_a_batch_and_in_any_order(engine: DiffusersEngine) -> None:
    wave = draws(*TEXTS)
    together = engine.draw_wave(wave).pixels
    alone = np.concatenate([engine.draw_wave([draw]).pixels for draw in wave])
    turned = engine.draw_wave(wave[::-1]).pixels[::-1]
    assert together.shape == (3, 32, 32, 3)
    assert together.std() > 0.05
    assert np.abs(together[0] - together[1]).max() > 0.1
    for other in (alone, turned):
        assert np.abs(together - other).max() <= TOLERANCE
        unequal = to_bytes(together) != to_bytes(other)
        to_half = np.abs(together * 255 % 1 - 0.5)
        assert (to_half[unequal] <= 255 * TOLERANCE).all()


def test_each_draw_has_the_noise_of_its_own_seed(engine: DiffusersEngine) -> None:
    first, second = draws("cat", "cat")
    pixels = engine.draw_wave([first, second, first]).pixels
    assert np.abs(pixels[0] - pixels[2]).max() <= TOLERANCE
    assert np.abs(pixels[0] - pixels[1]).max() > 0.1


def test_generations_are_complete_and_say_what_made_them(engine: DiffusersEngine) -> None:
    wave = draws(*TEXTS)
    found = list(engine.generate(wave))
    assert [g.key for g in found] == [d.key for d in wave]
    expected = to_bytes(engine.draw_wave(wave).pixels)
    for generation, pixels in zip(found, expected, strict=True):
        assert (picture(generation) == pixels).all()
        assert generation.steps == engine.steps
        assert generation.provenance["num_inference_steps"] == engine.steps
        assert generation.provenance["guidance_scale"] == 5.0
        assert generation.provenance["scheduler"] == "FlowMatchEulerDiscreteScheduler"
        assert "truncated_by" not in generation.provenance


def test_guidance_and_negative_prompt_reach_the_pipeline(sd3: Path) -> None:
    wave = draws("cat")
    drawn = []
    protocols = (
        DrawProtocol("test", 32, guidance=5.0),
        DrawProtocol("test", 32, guidance=2.0),
        DrawProtocol("test", 32, guidance=5.0, negative_prompt="a dog"),
        DrawProtocol("test", 32, guidance=5.0, prefix="a photo of "),
    )
    for protocol in protocols:
        with make(sd3, protocol, steps=2) as engine:
            drawn.append(engine.draw_wave(wave).pixels)
    for other in drawn[1:]:
        assert np.abs(drawn[0] - other).max() > 1e-3


def test_a_rectangle_is_drawn_as_asked(sd3: Path) -> None:
    with make(sd3, DrawProtocol("test", 48, guidance=5.0, width=32, height=48), steps=2) as engine:
        found = [picture(generation) for generation in engine.generate(draws(*TEXTS))]
    assert {pixels.shape for pixels in found} == {(48, 32, 3)}
    assert all(pixels.std() > 5 for pixels in found)


def test_waves_halve_when_memory_runs_out(sd3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = DiffusersEngine.draw_wave

    def draw_wave(self: DiffusersEngine, wave: list[Draw]) -> object:
        sizes.append(len(wave))
        if len(wave) > 1:
            raise RuntimeError("CUDA out of memory")
        return real(self, wave)

    monkeypatch.setattr(DiffusersEngine, "draw_wave", draw_wave)
    with make(sd3, steps=1) as engine:
        found = [*engine.generate(draws(*TEXTS)), *engine.generate(draws("cat"))]
    assert [g.error for g in found] == [None] * 4
    assert sizes == [3, 1, 1, 1, 1]


def test_a_long_prompt_says_which_tokenizers_cut_it(sd3: Path) -> None:
    with make(sd3, steps=1) as engine:
        [found] = engine.generate(draws("a" * 90))
    assert found.provenance["truncated_by"] == ["tokenizer", "tokenizer_2"]


def test_a_card_that_is_not_there_is_refused_before_anything_is_loaded(sd3: Path) -> None:
    with pytest.raises(BadInput, match="device cuda:99: torch finds"), make(sd3, device="cuda:99"):
        pytest.fail("it was made for a card that is not there")


def test_pixels_that_are_no_numbers_are_an_error(sd3: Path) -> None:
    import torch

    with make(sd3, steps=1) as engine:
        with torch.no_grad():
            engine.pipeline.vae.decoder.conv_out.bias.fill_(float("nan"))
        [found] = engine.generate(draws("cat"))
    assert (found.image, found.error) == (None, "the pipeline gave NaN or infinite pixels")


# Of transformers' image processor and numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_blackened_picture_is_an_error_that_names_the_safety_checker(tmp_path: Path) -> None:
    folder = save_checked_sd(tmp_path / "sd")
    with make(folder, steps=1) as engine:
        [found] = engine.generate(draws("cat"))
    assert found.image is None
    assert "the safety checker of StableDiffusionPipeline blackened the picture" in str(found.error)
    with make(folder, steps=1, without="safety_checker", scheduler="EulerDiscreteScheduler") as engine:
        [found] = engine.generate(draws("cat"))
    assert picture(found).std() > 5
    assert found.provenance["scheduler"] == "EulerDiscreteScheduler"


def test_what_a_run_needs_to_know(sd3: Path) -> None:
    found = ENGINE.find(str(sd3), {})
    assert (found.name, found.native_resolution, found.downsample) == (str(sd3), 32, 2)
    assert found.protocol == {"name": "diffusers", "guidance": 7.0}  # the call's own default
    assert make(sd3).steps == 28
    assert make(sd3).version.startswith("1 (diffusers 0.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"call": {"num_frames": 3}},
            r"takes no 'num_frames'; known are .*clip_skip",
        ),
        ({"call": {"guidance_scale": 3}}, "call: guidance_scale 3 is the protocol's: say --guidance"),
        ({"call": {"height": 3}}, "call: height 3 is not set there: say --resolution"),
        ({"call": 3}, "a table, as call.max_sequence_length=256"),
        ({"steps": -1}, "steps -1 of engine 'diffusers': a whole number >= 0"),
        ({"scheduler": "UNet2DModel"}, "scheduler 'UNet2DModel' is none of diffusers 0"),
        ({"without": "unet"}, "without: StableDiffusion3Pipeline has no component 'unet'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_options_that_cannot_work_are_refused(sd3: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make(sd3, **options)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (
            DrawProtocol("t", 32, temperature=0.5),
            "temperature 0.5: .* samples no tokens",
        ),
        (DrawProtocol("t", 33), "resolution 33 is no multiple of 2, the pixels of a latent"),
        (DrawProtocol("t", 33, width=32, height=33), "height 33 is no multiple of 2, .*nearest: 32 and 34"),
    ],
)
def test_protocols_of_tokens_are_refused(sd3: Path, protocol: DrawProtocol, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make(sd3, protocol)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("StableDiffusionImg2ImgPipeline", r"it wants a picture \(strength\)"),
        ("StableDiffusion3ControlNetPipeline", r"it wants a picture \(control_image\)"),
        ("CogVideoXPipeline", r"it draws videos \(num_frames\)"),
        ("DiTPipeline", "it wants class_labels"),
        ("WuerstchenPriorPipeline", "it is one of those called Prior"),
        ("OmniGenPipeline", r"it wants (a picture \()?\w+"),
        ("StableAudioPipeline", "its call takes no height"),
        ("DiffusionPipeline", "text-to-image"),
        ("MyOwnPipeline", "is no pipeline of diffusers 0"),
        ("DDIMScheduler", "is no pipeline of diffusers 0"),
    ],
)
def test_other_pipelines_are_refused_by_name(sd3: Path, tmp_path: Path, name: str, reason: str) -> None:
    folder = changed_index(sd3, tmp_path, _class_name=name)
    with pytest.raises(BadInput, match=rf"{name}.*{reason}"):
        make(folder)


@pytest.mark.parametrize(
    "name",
    ["FluxPipeline", "Flux2Pipeline", "QwenImagePipeline", "StableDiffusionXLPipeline", "ZImagePipeline"],
)
def test_known_text_to_image_classes_are_taken(sd3: Path, tmp_path: Path, name: str) -> None:
    found = ENGINE.find(str(changed_index(sd3, tmp_path, _class_name=name)), {})
    assert found.protocol["guidance"] > 1


def test_components_of_other_libraries_are_refused(sd3: Path, tmp_path: Path) -> None:
    folder = changed_index(sd3, tmp_path, vae=["vae_code", "AutoencoderKL"])
    (folder / "vae" / "vae_code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(BadInput, match=r"component vae is vae_code.AutoencoderKL, neither"):
        make(folder)


def test_tensors_that_do_not_fit_are_named(sd3: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed_index(sd3, tmp_path)
    for component, file in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = folder / component / f"{file}.safetensors"
        tensors = load_file(path)
        name = min(tensors)
        for changes, message in (
            ({name: None}, f"{component} .* has no tensor"),
            ({"strange.weight": tensors[name]}, f"{component} .* has the tensor 'strange.weight'"),
        ):
            changed = {key: value for key, value in (tensors | changes).items() if value is not None}
            save_file({key: value.clone() for key, value in changed.items()}, path, {"format": "pt"})
            with pytest.raises(BadInput, match=message), make(folder, steps=1):
                pass
        save_file(tensors, path, {"format": "pt"})


def changed_index(folder: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy of a pipeline with other entries in its index."""
    copy = Path(shutil.copytree(folder, tmp_path / "changed"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | changes))
    return copy

"""Checkpoints of Janus: recognised, checked, and drawn by the engine native."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sar_eval.decoding.load import load_decoder
from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput, UnknownName
from sar_eval.families.janus import FAMILY, JanusCheckpoint
from sar_eval.families.recognise import find_checkpoint
from sar_eval.recipe import free_recipe, load_recipe
from sar_eval.stages.describe_checkpoint import describe
from sar_eval.stages.resolve import resolve
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw
from tests.teacher_forcing import ForcedRows, greedy_codes
from tests.tiny_janus import CODES, LLAMA, ROWS, SIDE, write_janus

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLED = DrawProtocol("sampled", SIDE, guidance=5.0)
TEXTS = ("a red ring", "", "two blue stars above", "a")  # of several lengths


def _draws() -> list[Draw]:
    return [make_draw(Prompt(f"p{n}", text), 0, 5) for n, text in enumerate(TEXTS)]


def _tokens(
    folder: Path, protocol: DrawProtocol = SAMPLED, **options: object
) -> dict[str, tuple[int, ...]]:
    with NativeEngine(str(folder), protocol, **options) as engine:
        drawn = {g.key: g for g in engine.generate(_draws())}
    assert {g.error for g in drawn.values()} == {None}
    return {key: g.tokens for key, g in drawn.items()}


@pytest.fixture(scope="module")
def janus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_janus(tmp_path_factory.mktemp("janus") / "original")


@pytest.fixture(scope="module")
def sampled(janus: Path) -> dict[str, tuple[int, ...]]:
    return _tokens(janus, batch_size=1)


@pytest.mark.parametrize("naming", ["original", "transformers"])
def test_it_is_recognised_and_draws_the_likeliest_codes(tmp_path: Path, naming: str) -> None:
    folder = write_janus(tmp_path / "c", naming)
    found = find_checkpoint(str(folder))
    assert isinstance(found, JanusCheckpoint)
    greedy = replace(SAMPLED, temperature=0)
    decoder = load_decoder(found, "cpu", "float32")
    expected = {}
    for draw in _draws():
        rows = found.branches(draw.prompt.text, "", greedy, (4, 4))
        assert [len(row) for row in rows] == [len(rows[0])] * 2
        forced = ForcedRows(decoder, [torch.tensor(row) for row in rows], 16, ROWS)
        expected[draw.key] = tuple(greedy_codes(forced, 5.0, 16))
    assert _tokens(folder, greedy) == expected
    assert len(set(expected.values())) == len(TEXTS)


def test_sampled_codes_do_not_depend_on_the_wave_or_speculation(
    janus: Path, sampled: dict[str, tuple[int, ...]]
) -> None:
    assert _tokens(janus, batch_size=3) == sampled
    assert _tokens(janus, speculate=True) == sampled
    assert len(set(sampled.values())) == len(TEXTS)


@pytest.mark.parametrize(("naming", "layout"), [("transformers", "safetensors"), ("original", "bin")])
def test_the_files_form_does_not_matter(
    tmp_path: Path, janus: Path, sampled: dict[str, tuple[int, ...]], naming: str, layout: str
) -> None:
    folder = write_janus(tmp_path / "c", naming, layout)
    assert _tokens(folder) == sampled
    found, other = find_checkpoint(str(folder)), find_checkpoint(str(janus))
    assert found.encoder_digest == other.encoder_digest
    assert found.digest != other.digest


def test_without_guidance_there_is_one_row(janus: Path, sampled: dict[str, tuple[int, ...]]) -> None:
    plain = replace(SAMPLED, guidance=1.0)
    found = find_checkpoint(str(janus))
    assert len(found.branches("a", "", plain, (4, 4))) == found.plan(plain, (4, 4)).branches == 1
    assert _tokens(janus, plain) == _tokens(janus, plain, speculate=True) != sampled


def test_pixels_are_the_picture_decoders(janus: Path) -> None:
    with NativeEngine(str(janus), SAMPLED) as engine:
        [generation] = engine.generate(_draws()[:1])
        codes = torch.tensor(generation.tokens).view(1, 4, 4)
        pixels = engine.image_decoder.decode(codes).pixels[0].numpy()
    with Image.open(io.BytesIO(generation.image or b"")) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.std() > 1


def test_it_is_described(janus: Path) -> None:
    facts = describe(str(janus), "", "float32")
    assert (facts["family"], facts["licences"]) == ("janus", {"decoder and visual tokenizer": "mit"})
    assert facts["protocols"][:3] == ["janus", "janus-pro", "janus-1.3b"]
    assert facts["text_ids"] == f"0 to {ROWS - 1}"
    assert facts["visual_ids"] == f"{ROWS} to {ROWS + CODES - 1}"
    assert facts["resolution"] == {"pixels": SIDE, "visual_tokens": 16, "pixels_a_token": 16}
    assert "<|User|>" in facts["notes"][0]


def test_a_benchmark_takes_the_first_preset_and_a_note_says_what_differs(janus: Path, suite: Path) -> None:
    geneval = replace(load_recipe("geneval"), suite=suite)
    notes: list[str] = []
    pinned = resolve(geneval, str(janus), {"judge": "shapes"}, notes).protocol
    free = resolve(free_recipe(suite), str(janus), {}).protocol
    assert (free.name, free.guidance) == ("janus", 5.0), "pictures without guidance are nobody's"
    assert resolve(free_recipe(suite), "demo:sft", {}).protocol.name == "custom"
    assert (pinned.name, pinned.template, pinned.guidance) == ("janus", "", 5.0)
    assert (pinned.temperature, pinned.top_k, pinned.top_p, pinned.resolution) == (1.0, 0, 1.0, SIDE)
    assert not any("img_top_k" in note for note in notes)
    asked = {"judge": "shapes", "protocol": "janus-pro-r1"}
    spec = resolve(geneval, str(janus), asked, notes)
    assert (spec.protocol.name, spec.protocol.template) == ("janus-pro-r1", "janus-pro-r1")
    assert any("janus-pro-r1: its script takes the likeliest code" in note for note in notes)
    with pytest.raises(UnknownName, match=r"unknown protocol 'simplear'.*janus"):
        resolve(geneval, str(janus), asked | {"protocol": "simplear"})


def test_a_template_decides_the_prompt(janus: Path) -> None:
    found = find_checkpoint(str(janus))
    rows = {
        name: found.branches("a ring", "", replace(SAMPLED, template=name), (4, 4))[0]
        for name in ("", "janus-pro", "janus-1.3b", "reasongen-r1-geneval")
    }
    assert rows[""] == rows["janus-pro"]
    assert len({tuple(row) for row in rows.values()}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truncate": True}, r"truncate is True .*of janus are drawn without: a prompt that is cut"),
        ({"negative_prompt": "ugly"}, "negative_prompt is 'ugly' .*pads in place of its text"),
        ({"prefixes": "simplear"}, "prefixes is 'simplear'"),
        ({"full_vocab": True}, "full_vocab is True .*predicts no text"),
        ({"template": "janus-por"}, "unknown template 'janus-por'.*did you mean 'janus-pro'"),
    ],
)
def test_what_its_protocol_cannot_ask_for_is_named(janus: Path, change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        NativeEngine(str(janus), replace(SAMPLED, **change))


def test_a_prompt_that_is_too_long_fails_alone(janus: Path) -> None:
    draws = [make_draw(Prompt("long", "a" * 80), 0, 7), *_draws()[:1]]
    with NativeEngine(str(janus), SAMPLED) as engine:
        errors = {g.key: g.error for g in engine.generate(draws)}
    assert errors == {
        "long/0": "the prompt takes 89 tokens, and 80 fit beside 16 visual tokens: shorten it",
        "p0/0": None,
    }


@pytest.mark.parametrize(("naming", "layout"), [("transformers", "safetensors"), ("original", "bin")])
def test_transformers_own_network_draws_the_same_tokens(
    tmp_path: Path, sampled: dict[str, tuple[int, ...]], naming: str, layout: str
) -> None:
    folder = write_janus(tmp_path / "c", naming, layout)
    with HfEngine(str(folder), SAMPLED, batch_size=3) as engine:
        drawn = {g.key: g for g in engine.generate(_draws())}
    assert {key: g.tokens for key, g in drawn.items()} == sampled
    assert {g.steps for g in drawn.values()} == {15}


def test_another_picture_decoder_is_refused(janus: Path) -> None:
    with pytest.raises(BadInput, match="has its own picture decoder: leave out --visual-tokenizer"):
        find_checkpoint(str(janus), "somewhere")


def _changed(folder: Path, tmp_path: Path, **changes: torch.Tensor | None) -> Path:
    tensors = load_file(folder / "model.safetensors") | changes
    out = write_janus(tmp_path / "changed")
    save_file({n: t for n, t in tensors.items() if t is not None}, out / "model.safetensors")
    return out


def test_a_missing_and_a_foreign_tensor_of_the_network_are_named(janus: Path, tmp_path: Path) -> None:
    lost = _changed(janus, tmp_path, **{"gen_aligner.layers.2.bias": None})
    with pytest.raises(BadInput, match=r"no tensor 'gen_aligner\.layers\.2\.bias'"):
        find_checkpoint(str(lost))
    stored = load_file(janus / "model.safetensors")
    save_file(stored | {"gen_x.weight": torch.zeros(2)}, lost / "model.safetensors")
    with pytest.raises(BadInput, match=r"gen_x\.weight"):
        find_checkpoint(str(lost))


def test_a_missing_tensor_of_the_picture_decoder_is_named_before_drawing(
    janus: Path, tmp_path: Path
) -> None:
    name = "gen_vision_model.post_quant_conv.bias"
    lost = find_checkpoint(str(_changed(janus, tmp_path, **{name: None})))
    with pytest.raises(BadInput, match=f"no tensor '{name}'"):
        lost.load_image_decoder("cpu")


def test_torch_files_are_checked_before_they_are_loaded(tmp_path: Path) -> None:
    folder = write_janus(tmp_path / "c", layout="bin")
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del tensors["gen_embed.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"no tensor 'gen_embed\.weight'"):
        find_checkpoint(str(folder))


def _with_config(tmp_path: Path, **changes: object) -> str:
    folder = write_janus(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text()) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_tokenizer_with_more_ids_than_the_network_is_refused(tmp_path: Path) -> None:
    llama = LLAMA | {"vocab_size": 200}
    with pytest.raises(BadInput, match=r"has the id 260, and the text ids of config\.json end at 199"):
        find_checkpoint(_with_config(tmp_path, language_config=llama))


def test_a_config_that_draws_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no gen_head_config: it does not draw code by code"):
        find_checkpoint(_with_config(tmp_path, gen_head_config=None))


def test_the_resolution_is_384_where_no_config_states_it(tmp_path: Path) -> None:
    assert find_checkpoint(_with_config(tmp_path, vision_config=None)).native_resolution == 384


def test_what_decides_the_roles_is_in_the_digest(tmp_path: Path) -> None:
    folder = write_janus(tmp_path / "c")
    before = FAMILY.find(str(folder)).digest
    (folder / "chat_template.jinja").write_text("<|User|>")
    assert FAMILY.find(str(folder)).digest != before


@pytest.mark.slow
def test_the_command_draws_with_it(sar_eval, janus: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run"
    lines = [json.dumps({"id": f"p{n}", "text": text}) for n, text in enumerate(TEXTS) if text]
    prompts.write_text("\n".join(lines))
    words = ("generate", prompts, "--ckpt", janus, "--protocol", "janus-pro-r1", "-n", 1, "--workers", 1)
    done = sar_eval(*words, "--devices", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "its script takes the likeliest code" in done.stdout + done.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["spec"]["protocol"]["template"] == "janus-pro-r1"
    assert sar_eval("verify", out).returncode == 0

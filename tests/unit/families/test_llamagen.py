"""Checkpoints of LlamaGen: recognised, checked, and drawn by the engine native."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.decoding.load import load_decoder
from sar_eval.engines.hf import HfEngine
from sar_eval.engines.native import NativeEngine
from sar_eval.engines.vllm import VllmEngine
from sar_eval.errors import BadInput, MissingExtra
from sar_eval.families import llamagen, llamagen_captions
from sar_eval.families.llamagen import LlamaGenCheckpoint
from sar_eval.families.recognise import find_checkpoint
from sar_eval.recipe import load_recipe
from sar_eval.stages.describe_checkpoint import describe
from sar_eval.stages.resolve import resolve
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw
from tests.teacher_forcing import ForcedRows, greedy_codes
from tests.tiny_llamagen import CODES, NETWORK, SIDE, write_llamagen

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLED = DrawProtocol("sampled", SIDE, guidance=4.0, top_k=20, truncate=True)
TEXTS = ("a red ring", "", "two blue stars above", "a")  # of several lengths
Tokens = dict[str, tuple[int, ...]]


def _draws() -> list[Draw]:
    return [make_draw(Prompt(f"p{n}", text), 0, 5) for n, text in enumerate(TEXTS)]


def _tokens(name: Path, protocol: DrawProtocol = SAMPLED, **options: object) -> Tokens:
    with NativeEngine(str(name), protocol, **options) as engine:
        drawn = {g.key: g for g in engine.generate(_draws())}
    assert {g.error for g in drawn.values()} == {None}
    return {key: g.tokens for key, g in drawn.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llamagen(tmp_path_factory.mktemp("llamagen") / "c")


@pytest.fixture(scope="module")
def sampled(folder: Path) -> Tokens:
    return _tokens(folder, batch_size=1)


def test_it_is_recognised_and_draws_the_likeliest_codes(folder: Path) -> None:
    found = find_checkpoint(str(folder))
    assert isinstance(found, LlamaGenCheckpoint)
    greedy = replace(SAMPLED, temperature=0)
    decoder = load_decoder(found, "cpu", "float32")
    expected = {}
    for draw in _draws():
        rows = found.branches(draw.prompt.text, "", greedy, (4, 4))
        assert [len(row) for row in rows] == [len(draw.prompt.text) + 1] * 2
        expected[draw.key] = tuple(greedy_codes(ForcedRows(decoder, rows, 16, 0), 4.0, 16))
    assert _tokens(folder, greedy) == expected
    assert len(set(expected.values())) == len(TEXTS)


def test_sampled_codes_do_not_depend_on_the_wave_or_speculation(folder: Path, sampled: Tokens) -> None:
    assert _tokens(folder, batch_size=3) == sampled
    assert _tokens(folder, speculate=True) == sampled
    assert len(set(sampled.values())) == len(TEXTS)


@pytest.mark.parametrize(("suffix", "wrapper"), [(".pt", "module"), (".pth", ""), (".safetensors", "")])
def test_the_files_form_does_not_matter(
    tmp_path: Path, folder: Path, sampled: Tokens, suffix: str, wrapper: str
) -> None:
    other = write_llamagen(tmp_path / "c", suffix, wrapper) if suffix != ".pth" else None
    if other is None:
        other = write_llamagen(tmp_path / "c", ".pt", wrapper)
        (other / f"{NETWORK}.pt").rename(other / f"{NETWORK}.pth")
    assert _tokens(other / f"{NETWORK}{suffix}") == sampled
    found, original = find_checkpoint(str(other)), find_checkpoint(str(folder))
    assert found.encoder_digest == original.encoder_digest
    assert found.digest != original.digest


def test_without_guidance_there_is_one_row(folder: Path, sampled: Tokens) -> None:
    plain = replace(SAMPLED, guidance=1.0)
    found = find_checkpoint(str(folder))
    assert len(found.branches("a", "", plain, (4, 4))) == found.plan(plain, (4, 4)).branches == 1
    assert _tokens(folder, plain) == _tokens(folder, plain, speculate=True) != sampled


def test_captions_of_one_length_share_the_unprompted_row(folder: Path) -> None:
    found = find_checkpoint(str(folder))
    rows = [found.branches(text, "", SAMPLED, (4, 4)) for text in ("red", "tie", "four")]
    assert rows[0][1] is rows[1][1]
    assert [len(row) for row in rows[2]] == [5, 5]
    assert not torch.equal(rows[0][0], rows[1][0])


def test_it_draws_in_bfloat16_with_the_same_prompts(folder: Path, sampled: Tokens) -> None:
    """The prefix is computed in float32 and cast; codes differ, as the network's products do."""
    drawn = _tokens(folder, dtype="bfloat16")
    assert drawn.keys() == sampled.keys()
    assert {len(tokens) for tokens in drawn.values()} == {16}


def test_pixels_are_the_picture_decoders(folder: Path) -> None:
    with NativeEngine(str(folder), SAMPLED) as engine:
        [generation] = engine.generate(_draws()[:1])
        codes = torch.tensor(generation.tokens).view(1, 4, 4)
        pixels = engine.image_decoder.decode(codes).pixels[0].numpy()
    with Image.open(io.BytesIO(generation.image or b"")) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.std() > 1


def test_the_text_encoder_is_loaded_once_for_all_prompts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, devices = llamagen_captions.read_caption_branches, []

    def counted(*arguments: object) -> object:
        devices.append(arguments[-1])
        return read(*arguments)

    monkeypatch.setattr(llamagen_captions, "read_caption_branches", counted)
    with NativeEngine(str(folder), SAMPLED, batch_size=1) as engine:
        assert devices == ["cpu"]
        assert len(list(engine.generate(_draws()))) == len(TEXTS)
        assert devices == ["cpu"]
        assert engine.checkpoint._captions
    assert not engine.checkpoint._captions


def test_it_is_described(folder: Path) -> None:
    facts = describe(str(folder), "", "float32")
    licences = {"decoder": "mit", "visual tokenizer": "mit", "text encoder": "not stated"}
    assert (facts["family"], facts["licences"], facts["protocols"]) == ("llamagen", licences, ["llamagen"])
    assert (facts["text_ids"], facts["visual_ids"]) == ("none", f"0 to {CODES - 1}")
    assert facts["resolution"] == {"pixels": SIDE, "visual_tokens": 16, "pixels_a_token": 16}
    assert "T5 makes the captions' embeddings in float32" in facts["notes"][0]
    assert (facts["decoder"]["heads"], facts["decoder"]["positions"]) == (4, 136)


def test_a_benchmark_takes_its_preset(folder: Path, suite: Path) -> None:
    spec = resolve(replace(load_recipe("geneval"), suite=suite), str(folder), {"judge": "shapes"}, [])
    pinned = spec.protocol
    assert (pinned.name, pinned.guidance, pinned.top_k, pinned.truncate) == ("llamagen", 7.5, 1000, True)
    assert (pinned.temperature, pinned.top_p, pinned.resolution) == (1.0, 1.0, SIDE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negative_prompt": "ugly"}, "negative_prompt is 'ugly' .*a learned embedding"),
        ({"prefixes": "simplear"}, "prefixes is 'simplear'"),
        ({"full_vocab": True}, "full_vocab is True .*predicts no text"),
        ({"template": "janus-pro"}, "template is 'janus-pro' .*the caption stands alone"),
        ({"guidance": 0.5}, "guidance is 0.5 .*do not guide at 1 or less"),
        ({"resolution": 128}, "pictures of 128 x 128 pixels are asked for, .*64 x 64: leave out"),
    ],
)
def test_what_its_protocol_cannot_ask_for_is_named(folder: Path, change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        NativeEngine(str(folder), replace(SAMPLED, **change))


def test_a_caption_that_is_too_long_fails_alone_or_is_cut(folder: Path) -> None:
    draws = [make_draw(Prompt("long", "ab cd " * 60), 0, 7), *_draws()[:1]]
    with NativeEngine(str(folder), replace(SAMPLED, truncate=False)) as engine:
        errors = {g.key: g.error for g in engine.generate(draws)}
    assert errors == {
        "long/0": "the prompt takes 360 tokens, and 120 fit beside 16 visual tokens: shorten it, or cut it "
        "with --truncate",
        "p0/0": None,
    }
    with NativeEngine(str(folder), SAMPLED) as engine:
        assert [len(row) for row in engine.branch_rows(draws)[::2]] == [120, 120]
        assert {g.error for g in engine.generate(draws)} == {None}


def test_a_caption_that_nobody_can_read_fails_alone(folder: Path) -> None:
    draws = [make_draw(Prompt("odd", "a <![odd thing]> b"), 0, 7), *_draws()[:1]]
    with NativeEngine(str(folder), SAMPLED) as engine:
        errors = {g.key: g.error or "" for g in engine.generate(draws)}
    assert "neither LlamaGen's own cleaning nor this one can read" in errors["odd/0"]
    assert not errors["p0/0"]


def test_other_engines_and_training_refuse_it_by_name(folder: Path) -> None:
    for kind, why in (
        (HfEngine, "'llamagen' of .* names none"),
        (VllmEngine, "'llamagen': its rotary angles"),
    ):
        with pytest.raises(BadInput, match=f"{why}.* use --engine native"):
            kind(str(folder), SAMPLED)
    with NativeEngine(str(folder), SAMPLED) as engine:
        with pytest.raises(BadInput, match="prompts of llamagen are embeddings, which have no token ids"):
            engine.roll(_draws())
        with pytest.raises(BadInput, match="weights of a llamagen checkpoint cannot be replaced"):
            engine.load_weights([])


@pytest.mark.parametrize("package", ["transformers", "ftfy"])
def test_a_missing_package_is_told_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"LlamaGen's .* needs: pip install 'sar-eval\[llamagen\]'"):
        llamagen.FAMILY.find(str(folder)).check_protocol(SAMPLED)


def test_finding_and_checking_load_no_torch(folder: Path) -> None:
    code = (
        "import sys; from sar_eval.families.recognise import find_checkpoint\n"
        "from sar_eval.types import DrawProtocol\n"
        f"found = find_checkpoint({str(folder)!r})\n"
        f"p = DrawProtocol('x', {SIDE}, guidance=4.0)\n"
        "found.check_protocol(p); found.plan(p, (4, 4)); found.digest; found.parameters\n"
        "assert found.family == 'llamagen' and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_command_draws_with_a_file(sar_eval, folder: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run"
    lines = [json.dumps({"id": f"p{n}", "text": text}) for n, text in enumerate(TEXTS) if text]
    prompts.write_text("\n".join(lines))
    words = ("generate", prompts, "--ckpt", folder / f"{NETWORK}.pt", "--protocol", "llamagen", "-n", 1)
    done = sar_eval(*words, "--workers", 1, "--devices", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "T5 makes the captions' embeddings" in done.stdout + done.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["spec"]["checkpoint"] == str(folder / f"{NETWORK}.pt")
    assert sar_eval("verify", out).returncode == 0

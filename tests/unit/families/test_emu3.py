"""Checkpoints of Emu3: recognised, checked, and drawn by the engine native."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sar_eval.decoding.load import load_decoder
from sar_eval.engines.native import NativeEngine
from sar_eval.errors import BadInput, UnknownName
from sar_eval.families.emu3 import FAMILY, PROTOCOLS, Emu3Checkpoint
from sar_eval.families.family import CheckpointFiles
from sar_eval.families.recognise import find_checkpoint
from sar_eval.recipe import load_recipe
from sar_eval.stages.describe_checkpoint import describe
from sar_eval.stages.resolve import resolve
from sar_eval.types import Draw, DrawProtocol, Prompt, make_draw
from tests.teacher_forcing import ForcedRows, mixed
from tests.tiny_emu3 import CODES, FIRST_CODE, SIDE, write_emu3

pytestmark = pytest.mark.usefixtures("one_thread")
OFFICIAL = DrawProtocol("emu3", SIDE, **PROTOCOLS["emu3"])
SAMPLED = replace(OFFICIAL, negative_prompt="ugly", top_k=12)
TEXTS = ("a red ring", "", "two blue stars above", "a")  # of several lengths
NAMINGS = ("original", "transformers")


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
def emu3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_emu3(tmp_path_factory.mktemp("emu3") / "original")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_emu3(tmp_path_factory.mktemp("emu3") / "transformers", "transformers")


@pytest.fixture(scope="module")
def sampled(emu3: Path) -> dict[str, tuple[int, ...]]:
    return _tokens(emu3, batch_size=1)


def _greedy(found: Emu3Checkpoint, rows: ForcedRows) -> tuple[int, ...]:
    codes: list[int] = []
    for number in range(16):
        guided = mixed(rows.scores()[:, :CODES], 3.0)
        codes.append(int(guided.argmax()))
        end = [found.prompts.special.eol] if number % 4 == 3 else []
        rows.feed(FIRST_CODE + codes[-1], *end)
    return tuple(codes)


@pytest.mark.parametrize("naming", NAMINGS)
def test_it_is_recognised_and_draws_the_likeliest_codes(tmp_path: Path, naming: str) -> None:
    folder = write_emu3(tmp_path / "c", naming, shards=3)
    found = find_checkpoint(str(folder))
    assert isinstance(found, Emu3Checkpoint)
    greedy = replace(SAMPLED, temperature=0)
    decoder = load_decoder(found, "cpu", "float32")
    expected = {}
    for draw in _draws():
        rows = found.branches(draw.prompt.text, "ugly", greedy, (4, 4))
        forced = ForcedRows(decoder, [torch.tensor(row) for row in rows], 20, FIRST_CODE)
        expected[draw.key] = _greedy(found, forced)
    assert _tokens(folder, greedy) == expected
    assert len(set(expected.values())) == len(TEXTS)


def test_sampled_codes_do_not_depend_on_the_wave_or_speculation(
    emu3: Path, sampled: dict[str, tuple[int, ...]]
) -> None:
    assert _tokens(emu3, batch_size=3) == sampled
    assert _tokens(emu3, speculate=True) == sampled
    assert len(set(sampled.values())) == len(TEXTS)


def test_the_form_of_the_files_does_not_matter(
    emu3: Path, converted: Path, sampled: dict[str, tuple[int, ...]]
) -> None:
    assert _tokens(converted) == sampled
    found, other = find_checkpoint(str(converted)), find_checkpoint(str(emu3))
    assert found.encoder_digest == other.encoder_digest
    assert found.digest != other.digest


def test_without_guidance_there_is_one_row(emu3: Path, sampled: dict[str, tuple[int, ...]]) -> None:
    plain = replace(SAMPLED, guidance=1.0)
    found = find_checkpoint(str(emu3))
    assert len(found.branches("a", "", plain, (4, 4))) == found.plan(plain, (4, 4)).branches == 1
    assert _tokens(emu3, plain) == _tokens(emu3, plain, speculate=True) != sampled


def test_both_rows_state_the_size_of_a_picture_that_is_not_square(emu3: Path) -> None:
    found = find_checkpoint(str(emu3))
    special = found.prompts.special
    size = [special.boi, *b"4*5", special.img]
    prompted, negative = found.branches("ring", "ugly", OFFICIAL, (4, 5))
    assert prompted == [special.bos, *b"ring masterpiece, film grained, best quality.", *size]
    assert negative == [special.bos, *b"ugly", *size]
    plan = found.plan(OFFICIAL, (4, 5))
    assert (plan.height, plan.width, plan.weights) == (4, 5, ((3.0,),))
    lines = {5: special.eol, 11: special.eol, 17: special.eol, 23: special.eol}
    assert plan.forced == {**lines, 24: special.eof, 25: special.eoi, 26: special.eos}
    assert plan.slots == 23  # what ends the picture is not fed


def test_pixels_are_the_picture_decoders(emu3: Path) -> None:
    with NativeEngine(str(emu3), SAMPLED) as engine:
        [generation] = engine.generate(_draws()[:1])
        codes = torch.tensor(generation.tokens).view(1, 4, 4)
        pixels = engine.image_decoder.decode(codes).pixels[0].numpy()
    with Image.open(io.BytesIO(generation.image or b"")) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.std() > 1


def test_it_is_described(emu3: Path, converted: Path) -> None:
    facts = describe(str(emu3), "", "float32")
    assert facts["family"] == "emu3"
    assert facts["licences"] == {"decoder": "apache-2.0", "visual tokenizer": "not stated"}
    assert facts["protocols"] == ["emu3", "emu3-plain"]
    assert facts["text_ids"] == f"0 to {FIRST_CODE - 1}"
    assert facts["visual_ids"] == f"{FIRST_CODE} to {FIRST_CODE + CODES - 1}"
    assert facts["resolution"] == {"pixels": SIDE, "visual_tokens": 16, "pixels_a_token": 8}
    assert (Path(facts["visual_tokenizer"]).name, facts["notes"]) == ("vision", [])
    other = describe(str(converted), "", "float32")
    assert other["licences"] == {"decoder and visual tokenizer": "apache-2.0"}
    assert other["visual_tokenizer"] == str(converted)
    assert other["notes"] == [
        f"{converted / 'tokenizer.json'}: words are split as by BAAI's tokenizer, not by the rule in it"
    ]


def test_a_benchmark_takes_the_first_preset(emu3: Path, suite: Path) -> None:
    geneval = replace(load_recipe("geneval"), suite=suite)
    pinned = resolve(geneval, str(emu3), {"judge": "shapes"}).protocol
    assert pinned == OFFICIAL
    assert (pinned.guidance, pinned.temperature, pinned.top_k, pinned.template) == (3.0, 1.0, 2048, "emu3")
    asked = {"judge": "shapes", "protocol": "emu3-plain"}
    assert resolve(geneval, str(emu3), asked).protocol == replace(OFFICIAL, name="emu3-plain", template="")
    with pytest.raises(UnknownName, match=r"unknown protocol 'simplear'.*emu3"):
        resolve(geneval, str(emu3), asked | {"protocol": "simplear"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truncate": True}, r"truncate is True .*of emu3 are drawn without: a prompt that is cut"),
        ({"full_vocab": True}, "full_vocab is True .*let codes alone be drawn"),
        ({"template": "emu"}, "unknown template 'emu'.*did you mean 'emu3'"),
        ({"resolution": 36}, "resolution 36 is no multiple of 8"),
        ({"resolution": 160}, "resolution 160 takes 419 visual tokens; the checkpoint has 320 positions"),
    ],
)
def test_what_its_protocol_cannot_ask_for_is_named(emu3: Path, change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        NativeEngine(str(emu3), replace(SAMPLED, **change))


def test_a_prompt_that_is_too_long_fails_alone(emu3: Path) -> None:
    draws = [make_draw(Prompt("long", "a" * 300), 0, 7), *_draws()[:1]]
    with NativeEngine(str(emu3), SAMPLED) as engine:
        errors = {g.key: g.error for g in engine.generate(draws)}
    assert errors == {
        "long/0": "the prompt takes 347 tokens, and 301 fit beside 19 visual tokens: shorten it",
        "p0/0": None,
    }


@pytest.mark.parametrize(
    ("config", "is_one"),
    [
        ({"model_type": "Emu3"}, True),
        ({"model_type": "emu3"}, True),
        ({"model_type": "Emu3VisionVQ"}, False),
        ({"model_type": "llama"}, False),
        ({}, False),
    ],
)
def test_its_config_says_the_family(tmp_path: Path, config: dict, is_one: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert FAMILY.recognises(CheckpointFiles(tmp_path)) is is_one


@pytest.mark.slow
def test_the_command_draws_with_it(sar_eval, emu3: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run"
    lines = [json.dumps({"id": f"p{n}", "text": text}) for n, text in enumerate(TEXTS) if text]
    prompts.write_text("\n".join(lines))
    where = ("--visual-tokenizer", emu3.parent / "vision", "--workers", 1, "--devices", "cpu")
    words = ("generate", prompts, "--ckpt", emu3, "--protocol", "emu3", "-n", 1, "--out", out)
    done = sar_eval(*words, *where)
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["spec"]["protocol"]["name"] == run["spec"]["protocol"]["template"] == "emu3"
    assert sar_eval("verify", out).returncode == 0

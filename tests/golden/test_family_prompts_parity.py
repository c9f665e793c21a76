"""Prompts of Janus, Emu3 and LlamaGen equal what their authors' code makes of the same texts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sar_eval.families.caption_cleaning import clean_caption, clean_once
from sar_eval.families.emu3_prompts import (
    code_steps,
    forced_tokens,
    grid_size,
    read_emu3_prompts,
    step_count,
)
from sar_eval.families.emu3_tokenizer import FIRST_TOKENS, byte_letters
from sar_eval.families.janus_prompts import (
    BEGIN,
    BEGIN_OF_IMAGE,
    PAD,
    PRESETS,
    PRO_ROLES,
    read_janus_prompts,
)
from sar_eval.families.llamagen_prompts import CaptionRows, pack, read_caption_encoder
from tests.parity_data import needs

EMBEDDINGS = 3e-6  # to which transformers 5.19 and 4.44 agreed on these weights


def _cases(folder: Path) -> dict[str, Any]:
    return json.loads(needs(folder / "cases.json").read_text())


def test_janus_ids_and_negative_rows_are_the_originals(parity: Path) -> None:
    cases, prompts = _cases(parity / "janus"), read_janus_prompts(parity / "janus")
    assert prompts.roles == PRO_ROLES
    assert (prompts.begin, prompts.pad, prompts.begin_of_image) == tuple(
        cases["special"][token] for token in (BEGIN, PAD, BEGIN_OF_IMAGE)
    )
    assert len(cases["prompts"]) == 6
    for case in cases["prompts"]:
        assert prompts.template(case["text"]) == case["template"]
        ids = prompts.prompt_ids(case["text"])
        assert ids == case["ids"]
        assert prompts.negative_ids(ids) == case["negative_ids"]


def test_ids_of_janus_1_3b_are_the_originals(parity: Path) -> None:
    cases, prompts = _cases(parity / "janus"), read_janus_prompts(parity / "janus")
    for case in cases["prompts"]:
        assert prompts.template(case["text"], PRESETS["janus-1.3b"]) == case["template_1_3b"]
        assert prompts.prompt_ids(case["text"], PRESETS["janus-1.3b"]) == case["ids_1_3b"]


def test_emu3_ids_are_the_originals(parity: Path) -> None:
    cases, prompts = _cases(parity / "emu3"), read_emu3_prompts(parity / "emu3")
    height, width = cases["grid"]
    assert len(prompts.visual_ids) == cases["codebook"]
    assert prompts.visual_ids[0] == cases["first_visual_id"]
    assert {name: getattr(prompts.special, name) for name in cases["special"]} == cases["special"]
    for case in cases["prompts"]:
        assert prompts.prompt_ids(case["text"], height, width) == case["ids"]
    assert prompts.negative_ids(height, width) == cases["negative_ids"]


def test_emu3_in_transformers_form_has_the_same_ids(parity: Path, tmp_path: Path) -> None:
    """As its converter writes it: special tokens in the vocabulary, too, and GPT-2's rule for words."""
    cases, original = _cases(parity / "emu3"), read_emu3_prompts(parity / "emu3")
    tokens = [*FIRST_TOKENS, *(parity / "emu3" / "emu3_vision_tokens.txt").read_text().split("\n")[:-1]]
    special = {token: 256 + number for number, token in enumerate(tokens)}
    words = {letter: number for number, letter in enumerate(byte_letters())}
    data = {
        "added_tokens": [{"id": n, "content": token, "special": True} for token, n in special.items()],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {"type": "BPE", "vocab": words | special, "merges": []},
    }
    data["added_tokens"][3]["content"] = "<image>"  # as transformers' processor wants one
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    converted = read_emu3_prompts(tmp_path)
    assert converted.special == original.special
    assert converted.visual_ids == original.visual_ids
    for case in cases["prompts"]:
        assert converted.prompt_ids(case["text"], *cases["grid"]) == case["ids"]


def test_forced_tokens_of_emu3_stand_where_the_original_has_them(parity: Path) -> None:
    cases, special = _cases(parity / "emu3"), read_emu3_prompts(parity / "emu3").special
    config = json.loads((parity / "emu3" / "config.json").read_text())
    height, width = grid_size("5:4", config["image_area"])
    assert [height, width] == cases["grid"]
    forced, answer = forced_tokens(height, width, special), cases["full_sequence_of_prompt_0_at_3"]
    assert step_count(height, width) == len(answer)
    assert code_steps(height, width) == cases["steps_with_codes"]
    assert {step: answer[step] for step in forced} == forced
    assert sorted([*forced, *code_steps(height, width)]) == list(range(len(answer)))


def test_captions_are_cleaned_as_by_llamagen(parity: Path) -> None:
    captions = _cases(parity / "llamagen")["captions"]
    assert len(captions) == 10
    for case in captions:
        assert clean_once(case["text"]) == case["once"]
        assert clean_caption(case["text"]) == case["cleaned"]


def test_prefixes_of_llamagen_are_the_originals(parity: Path, one_thread: None) -> None:
    folder = parity / "llamagen"
    cases, encoder = _cases(folder), read_caption_encoder(folder / "t5")
    expected = load_file(folder / "expected.safetensors")
    for number, case in enumerate(cases["prompts"]):
        ids = encoder.caption_ids(case["text"])
        assert ids == case["t5_ids"]
        raw, packed = encoder.embed(ids), encoder.prefix(case["text"])
        for rows, values, mask in ((raw, "t5_raw", "t5_mask"), (packed, "packed", "packed_mask")):
            torch.testing.assert_close(rows.embeddings, expected[values][number], atol=EMBEDDINGS, rtol=0)
            assert torch.equal(rows.mask, expected[mask][number].bool())


def test_packing_moves_bits(parity: Path) -> None:
    """Given the original's own embeddings, the packed ones are equal to the bit."""
    _cases(parity / "llamagen")
    expected = load_file(parity / "llamagen" / "expected.safetensors")
    for number in range(len(expected["t5_raw"])):
        rows = pack(CaptionRows(expected["t5_raw"][number], expected["t5_mask"][number].bool()))
        assert torch.equal(rows.embeddings, expected["packed"][number])


@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
def test_janus_begins_alike_without_one_of_its_settings(parity: Path, tmp_path: Path, name: str) -> None:
    cases = _cases(parity / "janus")
    for path in (parity / "janus").glob("*token*.json"):
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert (
        read_janus_prompts(tmp_path).prompt_ids(cases["prompts"][0]["text"]) == cases["prompts"][0]["ids"]
    )

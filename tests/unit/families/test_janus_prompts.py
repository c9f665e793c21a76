"""Templates, roles and rows of Janus' prompts, on a tokenizer of bytes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from sar_eval.errors import BadInput
from sar_eval.families.janus_prompts import (
    BEGIN,
    BEGIN_OF_IMAGE,
    PAD,
    PRESETS,
    PRO_ROLES,
    WORD_ROLES,
    JanusPrompts,
    find_roles,
    read_janus_prompts,
)

ROLES = (PRO_ROLES.user, PRO_ROLES.assistant)
LETTERS = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _tokenizer(tokens: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=LETTERS, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return tokenizer


def _write(
    folder: Path, tokens: tuple[str, ...] = (BEGIN, PAD, BEGIN_OF_IMAGE, *ROLES), **files: Any
) -> Path:
    _tokenizer(tokens).save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def _prompts() -> JanusPrompts:
    return JanusPrompts(_tokenizer((BEGIN, PAD, BEGIN_OF_IMAGE, *ROLES)), PRO_ROLES, "", 256, 258, 257)


PROMPTS = _prompts()


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u3000"])
def test_an_empty_prompt_leaves_out_its_blank_and_line_ends(text: str) -> None:
    assert PROMPTS.template(text) == "<|User|>:<|Assistant|>:<begin_of_image>"
    assert PROMPTS.prompt_ids(text) == [256, 259, LETTERS[":"], 260, LETTERS[":"], 258]


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([BEGIN, PAD, BEGIN_OF_IMAGE, *ROLES, "a", "\0"])).map("".join)
)
def test_negative_rows_are_as_long_and_all_pads_inside(text: str) -> None:
    ids = PROMPTS.prompt_ids(text)
    negative = PROMPTS.negative_ids(ids)
    assert len(negative) == len(ids)
    assert (negative[0], negative[-1]) == (256, 258)
    assert set(negative[1:-1]) == {257}


def test_special_tokens_in_a_prompt_are_parsed() -> None:
    ids = PROMPTS.prompt_ids(f"a{BEGIN}b{BEGIN_OF_IMAGE}")
    assert ids.count(256) == ids.count(258) == 2


def test_long_prompts_are_not_cut_off_though_the_tokenizer_would() -> None:
    prompts = _prompts()
    prompts.tokenizer.enable_truncation(8)
    prompts.tokenizer.enable_padding(length=9)
    assert len(prompts.prompt_ids("a" * 50_000)) == 50_000 + 9


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(BadInput, match="lone surrogate"):
        PROMPTS.prompt_ids("a \ud800 b")


def test_reasongen_asks_for_a_photo_once_and_loses_its_last_blank() -> None:
    template = PROMPTS.template("a photo of two {clocks}", PRESETS["reasongen-r1-geneval"])
    message = "A photo of two {clocks}. Output a richly detailed prompt:"
    assert template == f"<|User|>: {message}\n\n<|Assistant|>:<begin_of_image>"
    assert "1,024 tokens of text" in PRESETS["reasongen-r1-geneval"].differs


def test_a_protocol_that_cannot_be_drawn_has_no_preset() -> None:
    assert "t2i-r1" not in PRESETS


@pytest.mark.parametrize(
    ("files", "tokens", "roles", "because"),
    [
        ({}, ROLES, PRO_ROLES, "the tokens"),
        ({}, (), WORD_ROLES, "no token"),
        ({"processor_config": {"sft_format": "deepseek"}}, ROLES, PRO_ROLES, "the tokens"),
        ({"processor_config": {"sft_format": "deepseek_old"}}, ROLES, WORD_ROLES, "sft_format"),
        ({"chat_template": {"chat_template": "<|User|>: "}}, (), PRO_ROLES, "chat_template.json"),
        ({"tokenizer_config": {"chat_template": "User: "}}, ROLES, PRO_ROLES, "the tokens"),
    ],
)
def test_roles_come_from_the_files(
    tmp_path: Path, files: dict[str, Any], tokens: tuple[str, ...], roles: Any, because: str
) -> None:
    prompts = read_janus_prompts(_write(tmp_path, (BEGIN, PAD, BEGIN_OF_IMAGE, *tokens), **files))
    assert prompts.roles == roles
    assert because in prompts.roles_because


def test_a_chat_template_in_a_file_of_its_own_counts_first(tmp_path: Path) -> None:
    _write(tmp_path, processor_config={"sft_format": "deepseek_old"})
    (tmp_path / "chat_template.jinja").write_text("{% if user %}<|User|>: {% endif %}")
    found = find_roles(tmp_path, _tokenizer(()))
    assert found == (PRO_ROLES, "the chat template in chat_template.jinja")


def test_the_first_id_may_be_named_by_the_settings(tmp_path: Path) -> None:
    settings = {"bos_token": {"content": "<s>"}}
    prompts = read_janus_prompts(_write(tmp_path, (PAD, BEGIN_OF_IMAGE, "<s>"), tokenizer_config=settings))
    assert prompts.begin == 258


def test_what_cannot_be_drawn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        read_janus_prompts(tmp_path)
    with pytest.raises(BadInput, match="no token <begin_of_image>"):
        read_janus_prompts(_write(tmp_path, (BEGIN, PAD)))
    with pytest.raises(BadInput, match="add_bos_token false"):
        read_janus_prompts(_write(tmp_path, tokenizer_config={"add_bos_token": False}))
    with pytest.raises(BadInput, match="must hold a JSON object"):
        read_janus_prompts(_write(tmp_path, tokenizer_config=[]))

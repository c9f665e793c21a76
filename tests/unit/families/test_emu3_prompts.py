"""Emu3's tokenizer against tiktoken, damaged files, sizes, and the places of forced tokens."""

import base64
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from sar_eval.errors import BadInput
from sar_eval.families.emu3_prompts import (
    Emu3Prompts,
    SpecialIds,
    code_steps,
    forced_tokens,
    grid_size,
    read_emu3_prompts,
    step_count,
)
from sar_eval.families.emu3_tokenizer import (
    FIRST_TOKENS,
    byte_letters,
    byte_pair_tokenizer,
    read_emu3_tokenizer,
)
from sar_eval.families.text_tokenizer import WORDS, text_ids

BYTES = {bytes([number]): number for number in range(256)}
IMAGE_TOKENS = ("<|image token|>", "<|image start|>", "<|image end|>")
VISUAL = [f"<|visual token {code:06d}|>" for code in range(8)]
SPECIAL = SpecialIds(bos=1, eos=2, pad=3, img=4, boi=5, eoi=6, eol=7, eof=8)
ATOMS = (
    *("a", "b", "aa", "ab ", " ", "  ", "\n", "\r\n", "'s", "'LL", "1", "23", "-", "!", "\0", "\t", "\x85"),
    *("\u00e9", "e\u0301", "\u732b", "\U0001f642", "\u3000", "\u0663", "\ufeff", "\u017f"),
    *("<|extra_1|>", "<|extra_1", "|>"),
)


def _trained(seed: int) -> dict[bytes, int]:
    """Ranks of a byte-pair training over a few random lines, as tiktoken's files come about."""
    rng, ranks = random.Random(seed), dict(BYTES)
    lines = ["".join(rng.choice(ATOMS[:18]) for _ in range(rng.randint(1, 12))) for _ in range(12)]
    words = [[bytes([byte]) for byte in line.encode()] for line in lines]
    for _ in range(40):
        pairs = Counter(p for word in words for p in pairwise(word) if b"".join(p) not in ranks)
        if not pairs:
            break
        best = pairs.most_common(1)[0][0]
        ranks[b"".join(best)] = len(ranks)
        words = [_merged(word, best) for word in words]
    return ranks


def _merged(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    out: list[bytes] = []
    for piece in word:
        out.append(piece)
        if tuple(out[-2:]) == pair:
            out[-2:] = [b"".join(pair)]
    return out


@pytest.mark.parametrize("seed", range(4))
def test_ids_are_tiktokens(seed: int) -> None:
    """Byte pairs, the rule for words, special tokens; many pairs of these vocabularies make one word."""
    ranks, special = _trained(seed), list(FIRST_TOKENS)
    ours = byte_pair_tokenizer(ranks, special, Path("ranks"))
    numbers = {token: len(ranks) + place for place, token in enumerate(special)}
    theirs = tiktoken.Encoding("emu3", pat_str=WORDS, mergeable_ranks=ranks, special_tokens=numbers)

    @settings(max_examples=60)
    @given(
        st.lists(st.sampled_from(ATOMS), max_size=25).map("".join) | st.text("ab", max_size=40) | st.text()
    )
    def check(text: str) -> None:
        assert text_ids(ours, text) == theirs.encode(text, allowed_special="all")

    check()


def _write(folder: Path, lines: list[str] | None = None, tokens: tuple[str, ...] | None = None) -> Path:
    coded = [f"{base64.b64encode(word).decode()} {rank}" for word, rank in BYTES.items()]
    (folder / "emu3.tiktoken").write_text("\n".join(coded if lines is None else lines))
    found = (*IMAGE_TOKENS, *VISUAL) if tokens is None else tokens
    (folder / "emu3_vision_tokens.txt").write_text("\n".join(found) + "\n\n")
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Emu3Prompts:
    return read_emu3_prompts(_write(tmp_path))


def test_special_ids_follow_the_words(prompts: Emu3Prompts) -> None:
    assert (prompts.special.pad, prompts.special.img) == (256, 256 + len(FIRST_TOKENS))
    assert prompts.visual_ids == range(256 + len(FIRST_TOKENS) + 3, 256 + len(FIRST_TOKENS) + 11)


@pytest.mark.parametrize("text", ["", " ", "a\0b", "x" * 20_000, "<|extra_200|>"])
def test_rows_begin_and_end_as_they_must(prompts: Emu3Prompts, text: str) -> None:
    ids, special = prompts.prompt_ids(text, 4, 5), prompts.special
    size = [ord("4"), ord("*"), ord("5")]
    assert ids[0] == special.bos
    assert ids[-5:] == [special.boi, *size, special.img]
    inside = [special.eol] if text == "<|extra_200|>" else list(text.encode())
    assert ids[1:-5] == [*inside, *b" masterpiece, film grained, best quality."]
    assert prompts.negative_ids(4, 5, text) == [special.bos, *inside, special.boi, *size, special.img]


def test_texts_are_brought_to_nfc_with_all_around_them(prompts: Emu3Prompts) -> None:
    assert prompts.negative_ids(1, 1, "e\u0301") == prompts.negative_ids(1, 1, "\u00e9")
    spoilt = prompts.negative_ids(1, 1, "\u0338")  # with the `>` before it one other sign
    assert prompts.special.bos not in spoilt


def test_a_lone_surrogate_is_refused(prompts: Emu3Prompts) -> None:
    with pytest.raises(BadInput, match="lone surrogate"):
        prompts.prompt_ids("\udfff", 4, 5)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["AA== 0", "AQ== 2"], "no word has id 1"),
        (["AA== 0"], "byte 1 is no word"),
        (["AA== 0", "AA== 1"], "line 2: an empty word, or one that has another id above"),
        (["AA== x"], "line 1: no word in base64"),
        (["A 0"], "line 1: no word in base64"),
        (["AA=="], "line 1: no word in base64"),
    ],
)
def test_damaged_ranks_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_emu3_tokenizer(_write(tmp_path, lines))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((*IMAGE_TOKENS, VISUAL[0], VISUAL[0]), "is given twice"),
        ((*IMAGE_TOKENS, VISUAL[0], VISUAL[2]), "no token <|visual token 000001|>"),
        ((*IMAGE_TOKENS, VISUAL[1], VISUAL[0]), "do not follow one another"),
        (IMAGE_TOKENS, "no token <|visual token 000000|>"),
        (tuple(VISUAL), "no token <|image token|>"),
    ],
)
def test_odd_special_tokens_are_named(tmp_path: Path, tokens: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message.replace("|", r"\|")):
        read_emu3_prompts(_write(tmp_path, tokens=tokens))


def test_another_checkpoints_config_is_refused(tmp_path: Path) -> None:
    (_write(tmp_path) / "config.json").write_text(
        json.dumps({"boi_token_id": 151_852, "eos_token_id": None})
    )
    with pytest.raises(BadInput, match="boi_token_id is 151852"):
        read_emu3_prompts(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {}}, "no vocabulary"),
        ({"added_tokens": [{"id": 300, "content": "<|endoftext|>"}]}, "do not follow the words' 256"),
        ({"added_tokens": [{"content": "<|endoftext|>"}]}, "no special token with an id"),
        ({"model": {"vocab": {"a b": 0}}}, "no word in byte-level spelling"),
        ({"model": {"vocab": {"a": 1}}, "added_tokens": []}, "no word has id 0"),
    ],
)
def test_a_damaged_tokenizer_json_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    words = {letter: number for number, letter in enumerate(byte_letters())}
    data = {"model": {"vocab": words}, "added_tokens": [{"id": 256, "content": "<|endoftext|>"}]} | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(BadInput, match=message):
        read_emu3_tokenizer(tmp_path)


def test_no_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not both of emu3\.tiktoken and emu3_vision_tokens\.txt"):
        read_emu3_tokenizer(tmp_path)


def test_sizes_come_from_ratio_and_area() -> None:
    assert grid_size() == (90, 90)
    assert grid_size("16:9") == (68, 120)
    assert grid_size("5:4", 1280) == (4, 5)


@pytest.mark.parametrize("ratio", ["", "1", "0:1", "1:-1", "1:1:1", "a:b", "1:10000", "\u0661:1"])
def test_sizes_that_are_none_are_refused(ratio: str) -> None:
    with pytest.raises(BadInput):
        grid_size(ratio, 720)


@given(st.integers(1, 9), st.integers(1, 9))
def test_forced_places_follow_the_originals_rule(height: int, width: int) -> None:
    """Its rule, a place at a time: o counts from the token after the image token."""
    forced = forced_tokens(height, width, SPECIAL)
    ends = {1: SPECIAL.eof, 2: SPECIAL.eoi, 3: SPECIAL.eos}
    for step in range(step_count(height, width)):
        place = step + 1
        line_end = SPECIAL.eol if place % (width + 1) == 0 else None
        assert forced.get(step) == (line_end or ends.get(place - (width + 1) * height))
    assert len(code_steps(height, width)) == height * width
    assert set(code_steps(height, width)).isdisjoint(forced)


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, -1), (4, 10**6)])
def test_a_picture_without_places_is_refused(prompts: Emu3Prompts, height: int, width: int) -> None:
    with pytest.raises(BadInput, match="are possible"):
        prompts.prompt_ids("a", height, width)

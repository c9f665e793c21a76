"""LlamaGen's captions: single rules of the cleaning, hostile texts, and the reading of T5."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from sar_eval.errors import BadInput, MissingExtra
from sar_eval.families.caption_cleaning import clean_caption, clean_once, text_of_markup
from sar_eval.families.llamagen_prompts import (
    PLACES,
    UNCONDITIONAL,
    CaptionEncoder,
    CaptionRows,
    pack,
    read_caption_encoder,
)
from tests.tiny_llamagen import write_t5


# Answers of the original's own rules, run on these texts (ftfy 6.3.1, beautifulsoup4 4.15.0).
@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("", ""),
        (" \n\u3000", ""),
        ("a\0b", "ab"),
        ("a_b_c-d_e", "a b c d e"),
        ("a_b_c-d", "a_b_c-d"),
        ("see WWW.shop.com/x/ now", "see now"),
        ("me@x.com and @painter", "me and"),
        ("&#65;&#x42; &foo; &#128;", "AB foo \u20ac"),
        ("'single", "single"),
        (".jpg of a cat", ". of a cat"),
        ("3x4 and 3\u00d74 and 3\u04454", "and and"),
        ("page 12, click for more", ""),
        ("50% free shipping - #12 #1234 #12345", "50% - 1234"),
        ("a.b , c/d", "a. b , c d"),
        ("it ends in:", "it ends in"),
        ("1\u2015\u30102", "1-\u30102"),
        ("visit 192.168.0.1 at 12:30 ", "visit at 12:30"),
        ("mp4 images of pdfs", "of s"),
    ],
)
def test_single_rules(text: str, once: str) -> None:
    assert clean_once(text) == once


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a<b>c</b>d<br>e</br>f", "acdef"),
        ("a<script>b<i></script>c<style>d</style>e", "ace"),
        ("<ruby>a<rt>b</rt>c</ruby>d", "acd"),
        ("a<template>b<p>c</p>", "a"),
        ("<div><rt>a</div>b", "b"),
        ("<br><rt>a</br>b", ""),
        ("a<!-- b -->c<!doctype d>e<![CDATA[f]]>g", "acefg"),
        ("&lt;&hellip;&foo;&foo x", "<\u2026&foo&foo x"),
        ("&#0;&#xD800;&#1114112;&#150;&#129;", "\ufffd\ufffd\ufffd\u2013\x81"),
        (f"&#{'9' * 5000};", "\ufffd"),
        ("a < b > c", "a < b > c"),
    ],
)
def test_markup_leaves_the_text_that_beautiful_soup_leaves(text: str, left: str) -> None:
    assert text_of_markup(text) == left


def test_markup_that_the_original_cannot_read_is_refused() -> None:
    with pytest.raises(BadInput, match="neither LlamaGen's own cleaning nor this one can read"):
        clean_caption("a <![odd thing]> b")


@given(st.text(max_size=80))
def test_any_text_is_cleaned_or_refused(text: str) -> None:
    try:
        cleaned = clean_caption(text)
    except BadInput:
        return
    assert cleaned == cleaned.strip()


# Not in a wrong encoding and no entities: as in the original, these are read after Chinese letters are left
# out, and stay.
@given(st.text(alphabet=st.sampled_from("ab ,.\u4e00\u5b57\u9fff"), max_size=80))
def test_chinese_letters_are_left_out(text: str) -> None:
    assert not any("\u4e00" <= letter <= "\u9fff" for letter in clean_caption(text))


def test_cleaning_without_ftfy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sar-eval\[llamagen\]'"):
        clean_caption("a cat")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> CaptionEncoder:
    return read_caption_encoder(write_t5(tmp_path_factory.mktemp("t5")))


def test_long_captions_keep_their_first_places(encoder: CaptionEncoder) -> None:
    ids = encoder.caption_ids("a cat " * 5_000)
    assert len(ids) == PLACES
    assert ids[-1] == encoder.end
    assert ids[:9] == encoder.caption_ids("a cat a c")[:9]


@pytest.mark.parametrize("caption", ["", "   ", "<b></b>"])
def test_an_empty_caption_is_one_place(encoder: CaptionEncoder, caption: str) -> None:
    rows = encoder.prefix(caption)
    assert encoder.caption_ids(caption) == [encoder.end]
    assert rows.mask.tolist() == [False] * (PLACES - 1) + [True]
    assert not rows.embeddings[:-1].any()
    assert rows.embeddings[-1].any()


def test_a_lone_surrogate_is_refused(encoder: CaptionEncoder) -> None:
    with pytest.raises(BadInput, match="lone surrogate"):
        encoder.prefix("a \ud800")


@given(st.integers(0, PLACES))
def test_packing_keeps_the_order(valid: int) -> None:
    embeddings = torch.arange(1.0, PLACES + 1)[:, None].expand(-1, 3)
    rows = pack(CaptionRows(embeddings, torch.arange(PLACES) < valid))
    assert torch.equal(rows.embeddings[PLACES - valid :], embeddings[:valid])
    assert not rows.embeddings[: PLACES - valid].any()
    assert rows.mask.sum() == valid


def test_a_whole_t5_gives_what_its_encoder_gives(tmp_path: Path, encoder: CaptionEncoder) -> None:
    """The tensors of its decoder are left alone; the shared table may stand under its other name."""
    decoder = {"decoder.final_layer_norm.weight": torch.ones(3), "lm_head.weight": torch.ones(2, 2)}
    whole = read_caption_encoder(write_t5(tmp_path / "whole", **decoder))
    shared = load_file(tmp_path / "whole" / "model.safetensors")["shared.weight"]
    renamed = {"shared.weight": None, "encoder.embed_tokens.weight": shared}
    other = read_caption_encoder(write_t5(tmp_path / "renamed", **renamed))
    for read in (whole, other):
        assert torch.equal(read.prefix("a cat").embeddings, encoder.prefix("a cat").embeddings)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("encoder.final_layer_norm.weight", None, r"1 missing \(encoder\.final_layer_norm\.weight"),
        ("encoder.odd.weight", torch.ones(2), r"1 unexpected \(encoder\.odd\.weight"),
        (
            "encoder.final_layer_norm.weight",
            torch.ones(3),
            r"1 of another shape \(encoder\.final_layer_norm",
        ),
        ("shared.weight", None, r"2 missing \(encoder\.embed_tokens\.weight"),
    ],
)
def test_unfit_tensors_are_named(
    tmp_path: Path, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        read_caption_encoder(write_t5(tmp_path, **{name: tensor}))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        read_caption_encoder(tmp_path)
    (write_t5(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="T5's weights"):
        read_caption_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(BadInput, match="no configuration of T5"):
        read_caption_encoder(tmp_path)


def test_the_unprompted_row_stands_under_the_prompts_mask() -> None:
    assert UNCONDITIONAL.tensor == "cls_embedding.uncond_embedding"
    assert not UNCONDITIONAL.own_mask
    assert UNCONDITIONAL.above == 1.0

"""Configuration of the demo checkpoints: a small Qwen2 decoder and a word-level text tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SPECIAL_TOKENS = (
    "<|t2i|>",
    "<|i2t|>",
    "<|soi|>",
    "<|vtokens|>",
    "<|t2v|>",
    "<|v2t|>",
    "<|sov|>",
)


def build_text_tokenizer(words: Sequence[str]) -> Any:
    """A `PreTrainedTokenizerFast` that splits at spaces, with exactly these words as its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<|pad|>", "<|unk|>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", unk_token="<|unk|>")
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    return fast


def build_config(text_vocab_size: int, codebook_size: int) -> Any:
    """The demo decoder's `Qwen2Config`: 2.3 M parameters, text ids first, visual ids after them."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=text_vocab_size + codebook_size,
        hidden_size=192,
        intermediate_size=352,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        architectures=["SimpARForCausalLM"],
    )

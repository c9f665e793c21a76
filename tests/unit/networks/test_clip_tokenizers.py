"""Token ids of hostile texts; those of ordinary ones are held against the official code in tests/golden."""

import time

import pytest

pytest.importorskip("open_clip", reason="needs the extra geneval")
import open_clip

from sar_eval.networks.clip import tokenizers

ALL = {
    "open_clip": tokenizers.open_clip_tokens,
    "openai": tokenizers.openai_tokens,
    "hf": tokenizers.hf_tokens,
    "torchmetrics": tokenizers.hf_tokens_without_end,
}
HOSTILE = {
    "empty": "",
    "blank": " \n\t ",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85 cat",
    "zero bytes": "cat\0\0dog",
    "half a surrogate": "a \ud83d cat",
    "a split pair": "a \ud83d\udc36 dog",
    "every plane": "\ufeff\ufffe\U0010ffff\U0001d56e",
    "entities": "&amp;amp;amp; &#0; &#28; &#xD800; &nbsp;",
    "combining": "e" + "\u0301" * 500,
    "markup": "<|endoftext|>" * 100,
    "10,000 letters": "abcdefghijklmnopqrstuvwxyz" * 385,
    "10,000 words": "a cat on the mat and so on " * 2500,
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_them(name, text) -> None:
    tokens = ALL[name](HOSTILE[text])
    assert 2 <= len(tokens.ids) <= 77
    assert tokens.ids[0] == tokenizers.START
    assert all(0 <= i <= tokenizers.END for i in tokens.ids)
    assert tokens.truncated == (text in ("10,000 letters", "10,000 words", "markup", "combining"))
    assert (tokens.ids[-1] == tokenizers.END) or (name == "torchmetrics" and tokens.truncated)


def test_long_words_take_no_quadratic_time() -> None:
    """open_clip's own loop takes seconds for 10,000 letters of one word, hours for a million."""
    begin = time.monotonic()
    for tokenize in ALL.values():
        tokenize("zyxwvutsrqponmlkjihgfedcba" * 4_000)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("text", [t for n, t in HOSTILE.items() if "surrogate" not in n])
def test_ids_are_open_clips(text) -> None:
    tokenize = open_clip.get_tokenizer("ViT-H-14")
    ids = list(tokenizers.open_clip_tokens(text).ids)
    assert tokenize([text])[0].tolist() == [*ids, *[0] * (77 - len(ids))]


def test_ids_are_those_of_transformers_tokenizer() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra geneval")
    theirs = transformers.CLIPTokenizer(vocab=tokenizers.vocabulary(), merges=tokenizers.merges())
    for name, text in HOSTILE.items():
        if "surrogate" not in name and "pair" not in name:
            ids = theirs(text, truncation=True, max_length=77).input_ids
            assert list(tokenizers.hf_tokens(text).ids) == ids, name


def test_a_literal_special_token_is_one_only_after_a_break() -> None:
    """OpenAI's pattern takes punctuation together: behind it, the token's letters are letters."""
    assert tokenizers.openai_tokens("x <|endoftext|>").ids[-2:] == (tokenizers.END, tokenizers.END)
    assert tokenizers.END not in tokenizers.openai_tokens("x !!<|endoftext|>").ids[:-1]
    assert tokenizers.END not in tokenizers.open_clip_tokens("x <|endoftext|>").ids[:-1]
    assert (
        tokenizers.END in tokenizers.open_clip_tokens("x <END_OF_TEXT>").ids[:-1]
    )  # lower case comes first

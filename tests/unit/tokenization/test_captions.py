"""Captions as they come."""

from typing import Any

import pytest

from sar_eval.tokenization.captions import usable_captions
from sar_eval.tokenization.reasons import Refused

ANY = (1, 10**9)


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (["  a ring \n"], ("a ring",)),
        (["a", ["b", "a"], None, 3], ("a", "b")),
        ([["a\x00b", "half \ud800"], "whole"], ("whole",)),
    ],
)
def test_texts_are_kept_once(cells: list[Any], kept: tuple[str, ...]) -> None:
    assert usable_captions(cells, ANY) == kept


@pytest.mark.parametrize("cells", [[], [None], ["", "  "], [float("nan")], [[[["deep"]]]], [{"a": "b"}]])
def test_nothing_to_train_on(cells: list[Any]) -> None:
    with pytest.raises(Refused, match="no_caption"):
        usable_captions(cells, ANY)


def test_lengths_are_of_each_caption() -> None:
    assert usable_captions(["a", "four", "too long a text"], (2, 10)) == ("four",)
    with pytest.raises(Refused, match=r"caption_length.*1 characters"):
        usable_captions(["a"], (2, 10))

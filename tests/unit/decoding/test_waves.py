"""Waves: equal sizes, halved when memory runs out."""

from collections import deque

import pytest

from sar_eval.decoding.waves import none_if_out_of_memory, waves
from sar_eval.types import Draw, Prompt, make_draw


def _draws(number: int) -> list[Draw]:
    return [make_draw(Prompt(f"p{n}", "x"), 0, 0) for n in range(number)]


def test_waves_are_halved_until_they_fit_and_keep_the_order() -> None:
    tried: list[int] = []

    def draw(wave: list[Draw]) -> list[str] | None:
        tried.append(len(wave))
        return [d.key for d in wave] if len(wave) < 3 else None

    draws = _draws(5)
    found = [result for _, result, _ in waves(deque(draws), 8, draw, "cpu")]
    assert [key for keys in found for key in keys] == [d.key for d in draws]
    assert tried == [5, 2, 2, 1]


def test_a_draw_that_does_not_fit_alone_has_an_error() -> None:
    [(wave, error, seconds)] = waves(deque(_draws(1)), 4, lambda _: None, "cuda:0")
    assert (len(wave), error, seconds) == (1, "out of memory for a single image on cuda:0", 0.0)


def test_only_running_out_of_memory_is_caught() -> None:
    released: list[bool] = []

    def run_out() -> int:
        raise RuntimeError("CUDA out of memory")

    def fail() -> int:
        raise RuntimeError("shapes do not fit")

    assert none_if_out_of_memory(run_out, "cpu", lambda: released.append(True)) is None
    assert released == [True]
    with pytest.raises(RuntimeError, match="shapes"):
        none_if_out_of_memory(fail, "cpu", lambda: released.append(True))
    assert none_if_out_of_memory(lambda: 3, "cpu", lambda: None) == 3

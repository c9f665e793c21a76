"""Where a recipe's prompt suite lies: beside the recipe, shipped, or in the cache, if it is others'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.suites.prompts import Suite, load_suite
from sar_eval.tensors.published_weights import cache_folder

OTHERS = ("dpg.jsonl",)  # not shipped: `prompts fetch` and `prompts import` put them into the cache


def find_suite(name: str, folders: Sequence[Path]) -> Path:
    """The first of the folders' files of this name, or else where it should be."""
    last = cache_folder() if name in OTHERS else folders[-1]
    return next((folder / name for folder in folders if (folder / name).is_file()), last / name)


def missing_suite(path: Path) -> str:
    """How to get a suite of others that the cache lacks; "" for any other path."""
    if path.is_file() or path.name not in OTHERS or path.parent != cache_folder():
        return ""
    return (
        f"no {path}: `sar-eval prompts fetch {path.stem}` downloads and imports it, or "
        f"`sar-eval prompts import {path.stem} --from DIR` takes the official files"
    )


def read_suite(path: Path) -> Suite:
    """A recipe's prompts.

    Raises:
        BadInput: the suite is not there or unusable.
    """
    if told := missing_suite(path):
        raise BadInput(told)
    return load_suite(path)

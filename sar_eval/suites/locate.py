"""Find a recipe's prompt suite: beside the recipe, in the package, or (external suites) in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.options import check_name
from sar_eval.suites.prompts import Suite, load_suite
from sar_eval.suites.source import names
from sar_eval.tensors.published_weights import cache_folder


def _is_external(name: str) -> bool:
    """Whether `prompts fetch` and `prompts import` write the file into the cache: it is not shipped."""
    return name.endswith(".jsonl") and name.removesuffix(".jsonl") in names()


def find_suite(name: str, folders: Sequence[Path]) -> Path:
    """The first existing `folder / name`, or the path where the file is expected.

    Raises:
        BadInput: a name that no file can have.
    """
    check_name(name, "suite")
    fallback = cache_folder() if _is_external(name) else folders[-1]
    return next((folder / name for folder in folders if name and (folder / name).exists()), fallback / name)


def missing_suite_hint(path: Path) -> str:
    """How to get an external suite that the cache lacks; "" for any other path."""
    if path.is_file() or not _is_external(path.name) or path.parent != cache_folder():
        return ""
    return (
        f"no {path}: `sar-eval prompts fetch {path.stem}` downloads and imports it, or "
        f"`sar-eval prompts import {path.stem} --from DIR` imports the official files"
    )


def read_suite(path: Path | None) -> Suite:
    """Load a recipe's prompts.

    Raises:
        BadInput: the suite is missing or unusable, or the recipe has none.
    """
    if path is None:
        raise BadInput("the benchmark has no prompts of its own: name a prompt file with --suite")
    if hint := missing_suite_hint(path):
        raise BadInput(hint)
    return load_suite(path)

"""Read `summary.json`, which anyone may have edited."""

from __future__ import annotations

from pathlib import Path

from sar_eval import documents
from sar_eval.errors import BadInput
from sar_eval.types import Summary

AGAIN = "run `sar-eval summarize` again"


def read_summary(path: Path) -> Summary:
    """The summary in a file, every key of the declared type.

    Raises:
        BadInput: no file, broken JSON, a key that is missing or of another type, or a negative count.
    """
    if not path.is_file():
        raise BadInput(f"{path.parent} has no {path.name}: run `sar-eval summarize` on it first")
    try:
        stored = documents.read_json(path)
    except BadInput as error:
        raise BadInput(f"{error}: {AGAIN}") from error
    summary = documents.convert(stored, Summary, str(path), AGAIN)
    for name in ("expected", "generated", "judged", "failed"):
        if getattr(summary, name) < 0:
            raise BadInput(f"{path}: {name}: a negative number ({getattr(summary, name)}): {AGAIN}")
    return summary

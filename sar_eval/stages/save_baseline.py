"""Stage: save what comparing with a run needs as one small file."""

from __future__ import annotations

from pathlib import Path

from sar_eval.errors import BadInput
from sar_eval.stages.measure import ScoredRun
from sar_eval.storage.baselines import is_baseline, write_baseline
from sar_eval.storage.files import check_output


def save_baseline(scored: ScoredRun, path: Path) -> int:
    """Write the file, and return its bytes. An earlier baseline is replaced, nothing else.

    Raises:
        BadInput: the name does not end in .parquet, or another file is there.
        StorageFailed: it cannot be written.
    """
    if path.suffix != ".parquet":
        raise BadInput(f"{path}: a baseline is a Parquet file: give a name that ends in .parquet")
    if path.exists() and not is_baseline(path):
        raise BadInput(f"{path} is there and no baseline: remove it, or give another name")
    return write_baseline(
        check_output("the baseline", path, replaces_data=True), scored.facts, scored.measures
    )

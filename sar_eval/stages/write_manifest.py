"""Stage: from a folder of images to the manifest that `score` would assume of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sar_eval.images.folder import MatchedFiles
from sar_eval.images.manifest import manifest_rows
from sar_eval.storage.files import write_bytes
from sar_eval.types import Prompt


def write_manifest(found: MatchedFiles, prompts: Sequence[Prompt], out: Path | None) -> str:
    """The manifest as JSON Lines, written to a file if one is named.

    Raises:
        StorageFailed: the file cannot be written.
    """
    rows = manifest_rows(found.files, found.folder, prompts, found.is_grid)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if out is not None:
        write_bytes(out, text.encode())
    return text

"""Write `compare.html`: what a comparison says, its forest plot, and the images that changed, side by side.

Like the report it is one page that opens from disk without network requests; that of large runs takes its
rows and pictures from a folder beside it. Baselines have no pictures: of them there are the figures alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from sar_eval.comparisons import Comparison, Pair, claim, preference_words, sentence
from sar_eval.errors import BadInput
from sar_eval.report.compare_facts import fact_groups, published_lines
from sar_eval.report.compare_runs import GalleryRun, add_runs, open_run, remove_old_files
from sar_eval.report.compare_table import difference_table, overview
from sar_eval.report.document import render
from sar_eval.report.page import EMBEDDED_ROWS, INLINE_LIMIT, SHARED_SCRIPTS
from sar_eval.report.page_data import PageData
from sar_eval.spec import RunSpec
from sar_eval.storage.files import storage_errors, write_bytes
from sar_eval.storage.run_folder import RunFolder

STYLES = ("report.css", "compare.css")
SCRIPTS = (*SHARED_SCRIPTS, "compare_pairs.js", "compare.js", "compare_view.js")
LONGEST_NAME = 120  # characters of a folder; file systems allow 255 bytes
StoredRun = tuple[RunSpec, RunFolder]


def write_comparison(
    found: Comparison,
    stored: Sequence[StoredRun | None],
    path: Path,
    *,
    images: int | None = None,
    inline_limit: int = INLINE_LIMIT,
) -> Path:
    """Write the page of a comparison, and return its path.

    Args:
        found: the comparison.
        stored: spec and folder of each side; None for a baseline.
        path: of the page; the folder beside it, if it needs one, is `NAME_assets` of a page `NAME.html`.
        images: pairs of pictures beside the page at most, if not all fit.
        inline_limit: bytes of pictures and verdicts up to which they are embedded in the page.

    Raises:
        BadInput: a stored part cannot be read, or files would be written through a link.
        StorageFailed: the page cannot be written.
    """
    assets = path.parent / f"{path.stem}_assets"
    if assets.is_symlink():
        raise BadInput(f"{assets} is a link: remove it, or pictures are written elsewhere")
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    runs, absent = _gallery_runs(found, stored)
    rows = sum(len(run.rows) for run in runs)
    data = PageData(assets, inline_limit if rows <= EMBEDDED_ROWS else -1)
    shown, names = add_runs(data, runs, images) if runs else (0, set())
    data.add("comparison", ("comparison", 0, _record(found, runs)))
    values = _values(found, runs, absent, shown)
    write_bytes(path, render("compare.html.j2", STYLES, SCRIPTS, values, data).encode())
    # Not before: the old page uses the old files until it is replaced.
    remove_old_files(assets, names | data.names, runs, ascii_uppercase)
    return path


def default_page(found: Comparison, root: Path) -> Path:
    """Where the page of these runs lies, always the same: `compare/NAMES/compare.html` below `root`.

    Names that are too long for a folder are cut and get a digest.
    """
    names = "--".join(re.sub(r"[^A-Za-z0-9._-]", "_", side.facts.name) for side in found.sides)
    if len(names) > LONGEST_NAME:
        digest = hashlib.blake2b(names.encode(), digest_size=4).hexdigest()
        names = f"{names[: LONGEST_NAME - 10]}--{digest}"
    return root / "compare" / names / "compare.html"


def _gallery_runs(
    found: Comparison, stored: Sequence[StoredRun | None]
) -> tuple[list[GalleryRun], dict[str, str]]:
    """The runs whose images are shown, if there are two, and by letter why the others' are not."""
    runs, absent = [], {}
    for side, run in zip(found.sides, stored, strict=True):
        if run is None:
            absent[side.letter] = "a baseline: it keeps the scores and no pictures"
        elif run[1].prompt_source:
            absent[side.letter] = "a run of too many prompts for a page"
        else:
            runs.append((side.letter, *run))
    return ([open_run(*run) for run in runs] if len(runs) > 1 else []), absent


def _record(found: Comparison, runs: Sequence[GalleryRun]) -> dict[str, object]:
    """What the page's script must know of the comparison."""
    return {
        "letters": [run.letter for run in runs],
        "labels": [[side.letter, side.label] for side in found.sides],
        "pairs": [[pair.first, pair.second, pair.shares_noise] for pair in found.pairs],
    }


def _values(
    found: Comparison, runs: Sequence[GalleryRun], absent: dict[str, str], pictures: int
) -> dict[str, object]:
    """What the template shows."""
    tasks, published = published_lines(found)
    rows = [run.rows for run in runs]
    return {
        "found": found,
        "is_two": len(found.pairs) == 1,
        "pairs": [_pair_values(found, pair, absent) for pair in found.pairs],
        "overview": overview(found.pairs),
        "headline": found.pairs[0].overall,
        "facts": fact_groups(found.sides),
        "published_tasks": tasks,
        "published": published,
        "absent": absent,
        "has_gallery": bool(runs),
        "tasks": rows[0].tasks if rows else [],
        "splits": rows[0].splits if rows else [],
        "sampled": pictures < sum(int(run.stored.sum()) for run in rows),
        "pictures": pictures,
    }


def _pair_values(found: Comparison, pair: Pair, absent: dict[str, str]) -> dict[str, object]:
    return {
        "id": f"{pair.first}-{pair.second}",
        "first": found.side(pair.first),
        "second": found.side(pair.second),
        "claim": claim(found, pair),
        "sentence": sentence(found, pair),
        "table": difference_table(pair),
        "overall": pair.overall,
        "preferences": [preference_words(pair, found) for found in pair.preferences],
        "shares_noise": pair.shares_noise,
        "absent": [letter for letter in (pair.first, pair.second) if letter in absent],
    }

"""The compared runs' images side by side: their rows, and which pairs of pictures a page of many shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from sar_eval.errors import BadInput
from sar_eval.report.data import FAIL, PASS, SCORED, RunRows, read_images, read_rows, read_verdicts
from sar_eval.report.page_data import PageData, RowCalls, add_index
from sar_eval.report.page_pictures import embed_all
from sar_eval.report.pictures import ALL_UP_TO, SAMPLE, Picture, PictureFiles, remove_stale
from sar_eval.spec import RunSpec
from sar_eval.storage.files import storage_errors
from sar_eval.storage.run_folder import RunFolder

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class GalleryRun:
    """A compared run whose images the page shows; `letter` names it, and its files beside the page."""

    letter: str
    spec: RunSpec
    folder: RunFolder
    rows: RunRows

    @property
    def prefix(self) -> str:
        """Of the names of its files of data."""
        return f"{self.letter}-"


def open_run(letter: str, spec: RunSpec, folder: RunFolder) -> GalleryRun:
    """A run with its prompts and generations.

    Raises:
        BadInput: a stored part cannot be read.
    """
    return GalleryRun(letter, spec, folder, read_rows(spec, folder))


def add_runs(data: PageData, runs: Sequence[GalleryRun], images: int | None) -> tuple[int, set[str]]:
    """Add the rows and pictures of all runs to the page's data.

    Args:
        data: of the page.
        runs: at least two, of the same prompts.
        images: pairs of pictures at most, where not all fit into the page; None for the default.

    Returns:
        How many images have their picture, and the names of the files that have them, below `data.folder`.

    Raises:
        BadInput: a part cannot be read, or the runs' prompts are not the same.
        StorageFailed: a file cannot be written.
    """
    if any(run.rows.ids != runs[0].rows.ids for run in runs):
        raise BadInput("the runs' prompts are not the same, or not in the same order: no page of them")
    for run in runs:
        calls = RowCalls(data, run.rows, run.spec.seed, run.prefix)
        for verdicts in read_verdicts(run.spec, run.folder, run.rows, set()):
            calls.add(verdicts)
        calls.finish()
    names: set[str] = set()
    pictures = embed_all([(run.folder, run.rows) for run in runs], data)
    if pictures is None:
        pictures, names = _write_pictures(data.folder, runs, images)
    for run, own in zip(runs, pictures, strict=True):
        add_index(data, run.rows, own, is_judged=True, prefix=run.prefix, with_scores=True)
    return sum(map(len, pictures)), names


def _write_pictures(
    folder: Path, runs: Sequence[GalleryRun], images: int | None
) -> tuple[list[dict[int, Picture]], set[str]]:
    chosen, per_prompt = choose_pairs([run.rows for run in runs], images), _most_images(runs)
    pictures, names = [], set()
    for run in runs:
        files = PictureFiles(_picture_folder(folder, run.letter), f"{quote(folder.name)}/")
        with storage_errors(files.folder):
            files.folder.mkdir(parents=True, exist_ok=True)
        prompts, indices = np.divmod(chosen, per_prompt)
        numbers = (prompts * run.rows.k + indices)[indices < run.rows.k]
        stored = numbers[run.rows.stored[numbers]]
        pictures.append(
            {n: files.add(run.rows.key(n), image) for n, image in read_images(run.folder, run.rows, stored)}
        )
        names |= {f"{run.letter}/{name}" for name in files.names}
    return pictures, names


def _picture_folder(folder: Path, letter: str) -> Path:
    path = folder / letter
    if path.is_symlink():
        raise BadInput(f"{path} is a link: remove it, or pictures are written elsewhere")
    return path


def _most_images(runs: Sequence[GalleryRun]) -> int:
    return max(run.rows.k for run in runs)


def scores_of(rows: RunRows, per_prompt: int) -> Scores:
    """The score of every image [prompts * per_prompt]: of pass and fail 1 and 0; NaN without one."""
    own = np.full(len(rows), np.nan, np.float32)
    own[rows.states == PASS], own[rows.states == FAIL] = 1, 0
    own[rows.states == SCORED] = rows.scores[rows.states == SCORED]
    scores = np.full((len(rows.ids), per_prompt), np.nan, np.float32)
    scores[:, : rows.k] = own.reshape(len(rows.ids), rows.k)
    return scores.ravel()


def choose_pairs(runs: Sequence[RunRows], limit: int | None) -> NDArray[np.int64]:
    """Of which images a page shows the pictures, ascending: all, or those that changed most.

    Images are numbered by prompt and index, as if every run had as many a prompt as the one with most. Of
    many, each task and each run that scores best in turn gives its image with the largest difference.
    """
    per_prompt = max(rows.k for rows in runs)
    scores = np.stack([scores_of(rows, per_prompt) for rows in runs])
    total = sum(int(rows.stored.sum()) for rows in runs)
    if limit is None:
        limit = scores.shape[1] if total <= ALL_UP_TO else SAMPLE
    if scores.shape[1] <= limit:
        return np.arange(scores.shape[1])
    known = np.where(np.isnan(scores), -np.inf, scores)
    lowest = np.where(np.isnan(scores), np.inf, scores).min(axis=0)
    with np.errstate(invalid="ignore"):
        change = np.where(np.isfinite(lowest), known.max(axis=0) - lowest, 0)
    tasks = np.repeat(runs[0].task_codes.astype(np.int64), per_prompt)
    group = tasks * len(runs) + np.where(change > 0, known.argmax(axis=0), 0)
    order = np.lexsort((-change, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    return np.sort(np.lexsort((turn, change == 0))[:limit])


def remove_old_files(folder: Path, written: set[str], runs: Sequence[GalleryRun], letters: str) -> None:
    """Remove files of an earlier page from the folder beside this one: no others.

    Args:
        folder: beside the page.
        written: names of this page's files, as `index.js` or `A/p_0.png`.
        runs: those shown; without any nothing is removed, as it is not known what is ours.
        letters: of folders of pictures that an earlier page may have.

    Raises:
        StorageFailed: a file cannot be removed.
    """
    rows = max((run.rows for run in runs), key=lambda rows: rows.k, default=None)
    if rows is None:
        return
    for letter in letters:
        of_letter = {name[2:] for name in written if name.startswith(f"{letter}/")}
        if not (folder / letter).is_symlink():
            remove_stale(folder / letter, of_letter, rows)
    remove_stale(folder, written, rows)

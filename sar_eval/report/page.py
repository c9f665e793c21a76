"""Stage: write a run's `report.html`, one page that opens from disk without network requests.

A small run's page has everything inside. The page of a larger one takes its rows, by page, from files in
`report_assets/` beside it, where there are also pictures: all, or of a run of many a sample. The report of
an incomplete run shows what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from sar_eval.documents import convert
from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.measures import Measure
from sar_eval.report.data import NONE, SCORED, RunRows, read_images, read_rows, read_verdicts
from sar_eval.report.document import render
from sar_eval.report.metric_pairs import QUIRKS_NOTE, QUIRKS_TITLE, has_reference
from sar_eval.report.page_data import PageData, RowCalls, add_index
from sar_eval.report.page_pictures import embed_all
from sar_eval.report.pictures import Picture, PictureFiles, choose_pictures, remove_stale
from sar_eval.report.scorers import ScorerColumn, correlations, scorer_columns, scorer_panels
from sar_eval.report.scores import quirk_rows, score_groups
from sar_eval.spec import RunSpec
from sar_eval.storage.files import write_bytes
from sar_eval.storage.run_folder import RunFolder
from sar_eval.suites.published import PublishedScore, rank_among_published
from sar_eval.types import Json, Metric, Summary

INLINE_LIMIT = 24_000_000  # bytes of encoded images and verdicts up to which they are embedded in the page
EMBEDDED_ROWS = 10_000  # images: of more, a browser takes long to open a page that has all inside
METRICS_LISTED = 1000  # lines of the score table
ASSETS = "report_assets"
SHARED_SCRIPTS = (
    "report_elements.js",
    "report_rows.js",
    "report_gallery.js",
    "report_evidence.js",
    "report_questions.js",
    "report_boxes.js",
)
SCRIPTS = (*SHARED_SCRIPTS, "report_scorers.js", "report_range.js", "report.js", "report_view.js")
STYLES = ("report.css", "report_scorers.css")


def write_report(
    spec: RunSpec,
    folder: RunFolder,
    *,
    inline_limit: int = INLINE_LIMIT,
    images: int | None = None,
    keys: Collection[str] = (),
    scorers: Sequence[Measure] = (),
) -> Path:
    """Write `report.html` from a run folder, and return its path.

    Args:
        spec: of the run.
        folder: with `summary.json`; generations and verdicts may be missing in part.
        inline_limit: bytes of encoded images and of verdicts up to which they are embedded in the page;
            beyond it, or beyond `EMBEDDED_ROWS` images, they are written to `report_assets/` beside it.
        images: pictures beside the page at most, if not all fit; None for the default (see `pictures`).
        keys: of draws whose pictures are among them in any case.
        scorers: the figures of scorers (see `stages.beside.scorer_measures`); others are not shown.

    Raises:
        BadInput: no `summary.json` or a broken one, a stored part that cannot be read, or an unknown key.
        SpecMismatch: the summary is of another spec.
        StorageFailed: the report cannot be written.
    """
    if (folder.path / ASSETS).is_symlink():
        raise BadInput(f"{folder.path / ASSETS} is a link: remove it, or pictures are written elsewhere")
    summary = _read_summary(spec, folder)
    rows = read_rows(spec, folder)
    asked = _asked_rows(rows, keys)
    data = PageData(folder.path / ASSETS, inline_limit if len(rows) <= EMBEDDED_ROWS else -1)
    judge_versions: set[str] = set()
    calls = RowCalls(data, rows, spec.seed)
    for verdicts in read_verdicts(spec, folder, rows, judge_versions):
        calls.add(verdicts)
    calls.finish()
    columns = scorer_columns(scorers, rows)
    asked += [number for column in columns for number in (*column.best, *column.worst)]
    pictures, names = _pictures(folder, rows, data, images, asked)
    add_index(data, rows, pictures, bool(spec.judge), scorers=[column.to_json() for column in columns])
    path = folder.path / "report.html"
    details = _run_details(spec, folder, summary, sorted(judge_versions), rows)
    write_bytes(path, _page(spec, summary, details, rows, data, len(pictures), columns).encode())
    # Not before: the old page uses the old files until it is replaced.
    remove_stale(data.folder, names | data.names, rows)
    return path


def _read_summary(spec: RunSpec, folder: RunFolder) -> Summary:
    path = str(folder.path / "summary.json")
    summary = convert(folder.read_summary(), Summary, path, "run `sar-eval summarize` again")
    if summary.spec_digest != spec.digest:
        raise SpecMismatch(
            f"{path} belongs to spec {summary.spec_digest}, not {spec.digest}: summarize again"
        )
    return summary


def _asked_rows(rows: RunRows, keys: Collection[str]) -> list[int]:
    found = {key: rows.number(key) for key in keys}
    if unknown := [key for key, number in found.items() if number is None]:
        raise BadInput(
            f"the run has no image {unknown[0]!r}: keys are PROMPT_ID/INDEX, as the report shows"
        )
    return [number for number in found.values() if number is not None]


def _pictures(
    folder: RunFolder, rows: RunRows, data: PageData, images: int | None, asked: list[int]
) -> tuple[dict[int, Picture], set[str]]:
    """The pictures by row, embedded or written beside the page, and the names of the files."""
    if embedded := embed_all([(folder, rows)], data):
        return embedded[0], set()
    files = PictureFiles(data.folder)
    chosen = choose_pictures(rows, images, asked)
    pictures = {n: files.add(rows.key(n), image) for n, image in read_images(folder, rows, chosen)}
    return pictures, files.names


def _run_details(
    spec: RunSpec,
    folder: RunFolder,
    summary: Summary,
    judge_versions: Sequence[str],
    rows: RunRows,
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of (name, value): everything that the run's scores depend on."""
    settings = spec.to_json()
    protocol, options = settings.pop("protocol"), settings.pop("judge_options")
    if spec.engine == "none":  # imported images: how they were generated is unknown
        protocol = {"name": protocol["name"]}
    judge = {"judge": settings.pop("judge"), "version": ", ".join(judge_versions), **options}
    manifest = folder.read_manifest() if (folder.path / "run.json").is_file() else None
    sides = manifest.beside if manifest else ()
    beside: dict[str, Json] = {k: v for side in sides for k, v in dict(side).get("versions", {}).items()}
    details = {
        "Protocol": protocol,
        "Judge": judge,
        **({"Scorers": beside} if beside else {}),
        "Images": _counts(summary, rows),
        "Spec": settings | {"digest": spec.digest, "git_commit": (manifest and manifest.git_commit) or ""},
        "Versions": dict(summary.versions),
    }
    return [
        (title, [(name, _as_text(v)) for name, v in values.items()]) for title, values in details.items()
    ]


def _counts(summary: Summary, rows: RunRows) -> dict[str, Json]:
    seconds = rows.seconds[rows.stored & (rows.seconds > 0)]
    return {name: getattr(summary, name) for name in ("expected", "generated", "judged", "failed")} | {
        "seconds_per_image": f"{seconds.mean(dtype=float):.3g}" if len(seconds) else "",
        "tokens_out_of_range": int(rows.tokens_out_of_range.sum()),
    }


def _as_text(value: Json) -> str:
    """A setting as text, in quotes if it has leading or trailing whitespace."""
    is_plain = isinstance(value, str) and value == value.strip()
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _page(
    spec: RunSpec,
    summary: Summary,
    details: Json,
    rows: RunRows,
    data: PageData,
    pictures: int,
    columns: Sequence[ScorerColumn],
) -> str:
    axis, groups = score_groups(summary.metrics[:METRICS_LISTED])
    values = {
        "spec": spec,
        "summary": summary,
        "details": details,
        "groups": groups,
        "metrics_left_out": len(summary.metrics[METRICS_LISTED:]),
        "with_reference": has_reference(summary.metrics),
        "quirks": quirk_rows(summary.metrics),
        "quirks_title": QUIRKS_TITLE,
        "quirks_note": QUIRKS_NOTE,
        "published": _published(spec, summary.metrics),
        "ticks": [f"{axis * share:g}" for share in (0, 0.25, 0.5, 0.75, 1)],
        "tasks": rows.tasks,
        "splits": rows.splits,
        "prompts": len(rows.ids),
        "pictures": pictures,
        "sampled": pictures < int(rows.stored.sum()),
        "scorers": scorer_panels(columns, rows),
        "with_others": bool(np.isin(rows.states, (SCORED, NONE)).any()),
        "correlations": correlations(columns, rows, spec.judge),
    }
    return render("report.html.j2", STYLES, SCRIPTS, values, data)


def _published(spec: RunSpec, metrics: Sequence[Metric]) -> list[tuple[PublishedScore, str]]:
    """Published scores with "", and among them this run's with its formatted score."""
    own = next((m for m in metrics if m.name == "overall"), None)
    if own is None or own.value is None or spec.benchmark != spec.fold:
        return []
    protocol = spec.protocol
    guidance = "" if spec.engine == "none" else f", guidance {protocol.guidance:g}"
    conditions = f"{protocol.written_size} pixels{guidance}, {spec.images_per_prompt} images per prompt"
    rows = rank_among_published(spec.benchmark, Path(spec.checkpoint).name, own.value, conditions)
    return [(row, own.written(own.value) if is_own else "") for row, is_own in rows]

"""Stage: write a run's `report.html`, one page that opens from disk without network requests.

Up to a size limit the images are embedded in the page; beyond it, images and thumbnails are written to
`report_assets/` beside it. The report of an incomplete run shows what is missing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from sar_eval.errors import SpecMismatch
from sar_eval.report.evidence import finite_or_none, parents_by_question, verdict_to_json
from sar_eval.report.metric_pairs import QUIRKS_NOTE, QUIRKS_TITLE, has_reference
from sar_eval.report.published import PublishedScore, rank_among_published
from sar_eval.report.scores import quirk_rows, score_groups
from sar_eval.runtime.blocks import Blocks
from sar_eval.spec import RunSpec
from sar_eval.storage.files import storage_errors, write_bytes
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import Row, verdict_from_row
from sar_eval.types import Draw, Json, Metric, Prompt

INLINE_LIMIT = 24_000_000  # bytes of encoded images up to which they are embedded in the page
THUMBNAIL_SIDE = 192  # pixels of the longer side, as wide as a card of the gallery
ASSETS = "report_assets"
TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("report.js", "report_questions.js", "report_view.js")
# File suffix and MIME type by Pillow's format name.
FORMATS = {"PNG": ("png", "image/png"), "JPEG": ("jpg", "image/jpeg"), "WEBP": ("webp", "image/webp")}


@dataclass(slots=True)
class ImageAssets:
    """The page's images: embedded as data URLs up to `limit` bytes in all, beyond that written to files.

    Attributes:
        folder: for the files.
        limit: bytes of encoded images that are embedded.
        embedded: format and bytes by draw key.
        urls: of the files, by draw key (see `urls_of`).
        size: bytes added so far.
    """

    folder: Path
    limit: int
    embedded: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    urls: dict[str, dict[str, str]] = field(default_factory=dict)
    size: int = 0

    def add(self, key: str, image_format: str, data: bytes) -> None:
        """Add an encoded image; if the limit is exceeded, all images are written to files."""
        self.size += len(data)
        self.embedded[key] = (image_format, data)
        if self.size > self.limit:
            for name, image in self.embedded.items():
                self.urls[name] = self._write(name, *image)
            self.embedded.clear()

    def urls_of(self, key: str) -> dict[str, str]:
        """URLs of the image on the card (`src`) and in the large view (`full`, if it is another one)."""
        if key not in self.embedded:
            return self.urls.get(key, {})
        image_format, data = self.embedded[key]
        return {"src": f"data:{FORMATS[image_format][1]};base64,{base64.b64encode(data).decode()}"}

    def _write(self, key: str, image_format: str, data: bytes) -> dict[str, str]:
        stem = key.replace("/", "_")
        full, small = self.folder / f"{stem}.{FORMATS[image_format][0]}", self.folder / f"{stem}.thumb.webp"
        if not (full.is_file() and full.read_bytes() == data):
            small.unlink(missing_ok=True)
            if thumbnail := _thumbnail(data):
                write_bytes(small, thumbnail)
            write_bytes(full, data)  # last: its presence means that the thumbnail is up to date
        names = {"src": small.name, "full": full.name} if small.is_file() else {"src": full.name}
        return {use: f"{self.folder.name}/{quote(name)}" for use, name in names.items()}

    def remove_stale(self) -> None:
        """Remove files of an earlier report that this one does not show."""
        shown = {url for urls in self.urls.values() for url in urls.values()}
        with storage_errors(self.folder):
            for path in self.folder.glob("*"):
                ours = path.suffix in (".png", ".jpg", ".webp", ".tmp")
                if ours and f"{self.folder.name}/{quote(path.name)}" not in shown:
                    path.unlink()
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()


def write_report(spec: RunSpec, folder: RunFolder, *, inline_limit: int = INLINE_LIMIT) -> Path:
    """Write `report.html` from a run folder, and return its path.

    Args:
        spec: of the run.
        folder: with `summary.json`; generations and verdicts may be missing in part.
        inline_limit: bytes of encoded images up to which they are embedded in the page; beyond it they
            are written to `report_assets/` beside it.

    Raises:
        BadInput: no `summary.json`, or a stored part cannot be read.
        SpecMismatch: the summary is of another spec.
        StorageFailed: the report cannot be written.
    """
    summary = _read_summary(spec, folder)
    prompts = list(folder.prompts())
    assets = ImageAssets(folder.path / ASSETS, inline_limit)
    columns = ["key", "image", "elapsed_s", "out_of_range_tokens", "error"]
    generations = {row["key"]: _generation_data(row, assets) for row in folder.generations.rows(columns)}
    verdicts, judge_versions = _verdict_data(spec, folder)
    draws = [draw for block in Blocks.of(prompts, spec) for draw in block]
    data = {
        "prompts": [_prompt_data(prompt) for prompt in prompts],
        "images": list(_image_data(spec, prompts, draws, generations, verdicts, assets)),
    }
    details = _run_details(spec, folder, summary, judge_versions, list(generations.values()))
    path = folder.path / "report.html"
    write_bytes(path, _page(spec, summary, details, prompts, data).encode())
    # Not before: the old page uses the old files until it is replaced.
    assets.remove_stale()
    return path


def _read_summary(spec: RunSpec, folder: RunFolder) -> Row:
    summary = folder.read_summary()
    if summary["spec_digest"] != spec.digest:
        raise SpecMismatch(
            f"{folder.path / 'summary.json'} belongs to spec {summary['spec_digest']}, not {spec.digest}: "
            "summarize again"
        )
    return summary


def _prompt_data(prompt: Prompt) -> dict[str, Json]:
    return {
        "id": prompt.id,
        "text": prompt.text,
        "task": prompt.tag,
        "split": prompt.split,
        "parents": parents_by_question(prompt.checks),
    }


def _generation_data(row: Row, assets: ImageAssets) -> dict[str, Json]:
    """The page's JSON of a generation; its image is added to `assets`."""
    data = {
        "seconds": finite_or_none(row["elapsed_s"]),
        "out_of_range_tokens": row["out_of_range_tokens"],
        "problem": row["error"],
    }
    if row["image"] is None or not row["image"]["bytes"]:
        return data | {"problem": row["error"] or "no image stored"}
    header = _read_header(row["image"]["bytes"])
    if header is None:
        return data | {"problem": row["error"] or "unreadable image"}
    image_format, size = header
    assets.add(row["key"], image_format, row["image"]["bytes"])
    return data | {"size": size}


def _read_header(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Format and (width, height), or None if the format is none of `FORMATS` or the header is broken."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return (image.format, image.size) if image.format in FORMATS else None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None


def _thumbnail(data: bytes) -> bytes | None:
    """A WebP of at most `THUMBNAIL_SIDE` pixels a side; None if the image is as small, or truncated."""
    sink = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) <= THUMBNAIL_SIDE:
                return None
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except OSError:
        return None
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    small.save(sink, "WEBP", quality=82, method=4)
    return sink.getvalue()


def _verdict_data(spec: RunSpec, folder: RunFolder) -> tuple[dict[str, dict[str, Json]], list[str]]:
    """The page's JSON of each verdict by draw key, and the judge versions among them."""
    if not spec.judge:
        return {}, []
    data, versions = {}, set()
    for row in folder.verdicts(spec.judge).rows():
        verdict = verdict_from_row(row)
        data[verdict.key] = verdict_to_json(verdict)
        versions.add(verdict.judge_version)
    return data, sorted(versions - {""})


def _image_data(
    spec: RunSpec,
    prompts: Sequence[Prompt],
    draws: Iterable[Draw],
    generations: Mapping[str, dict[str, Json]],
    verdicts: Mapping[str, dict[str, Json]],
    assets: ImageAssets,
) -> Iterator[dict[str, Json]]:
    """The page's JSON of every expected draw in suite order, including missing ones."""
    numbers = {prompt.id: number for number, prompt in enumerate(prompts)}
    unjudged = {"state": "none", "problem": "not judged" if spec.judge else None}
    for draw in draws:
        generation = generations.get(draw.key, {"problem": "not generated"})
        verdict = verdicts.get(draw.key, unjudged)
        # As text: JavaScript would round the 63 bits of a seed.
        data = {"prompt": numbers[draw.prompt.id], "index": draw.index, "seed": str(draw.seed)}
        problem = {"problem": generation["problem"] or verdict["problem"]}
        yield data | generation | verdict | problem | assets.urls_of(draw.key)


def _run_details(
    spec: RunSpec,
    folder: RunFolder,
    summary: Row,
    judge_versions: Sequence[str],
    generations: Sequence[Mapping[str, Json]],
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of (name, value): everything that the run's scores depend on."""
    settings = spec.to_json()
    protocol, options = settings.pop("protocol"), settings.pop("judge_options")
    if spec.engine == "none":  # imported images: how they were generated is unknown
        protocol = {"name": protocol["name"]}
    judge = {"judge": settings.pop("judge"), "version": ", ".join(judge_versions), **options}
    details = {
        "Protocol": protocol,
        "Judge": judge,
        "Images": _counts(summary, generations),
        "Spec": settings | {"digest": spec.digest, "git_commit": _git_commit(folder)},
        "Versions": summary["versions"],
    }
    return [
        (title, [(name, _as_text(v)) for name, v in values.items()]) for title, values in details.items()
    ]


def _counts(summary: Row, generations: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    seconds = [g["seconds"] for g in generations if g["problem"] is None and g["seconds"]]
    return {name: summary[name] for name in ("expected", "generated", "judged", "failed")} | {
        "seconds_per_image": f"{np.mean(seconds):.3g}" if seconds else "",
        "tokens_out_of_range": sum(g["out_of_range_tokens"] or 0 for g in generations),
    }


def _git_commit(folder: RunFolder) -> str:
    if not (folder.path / "run.json").is_file():
        return ""
    return str(folder.read_manifest().git_commit or "")


def _as_text(value: Json) -> str:
    """A setting as text, in quotes if it has leading or trailing whitespace."""
    is_plain = isinstance(value, str) and value == value.strip()
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _page(spec: RunSpec, summary: Row, details: Json, prompts: Sequence[Prompt], data: Json) -> str:
    metrics = [Metric(**m) for m in summary["metrics"]]
    axis, groups = score_groups(metrics)
    style = (TEMPLATES / "report.css").read_text("utf-8")
    script = "".join((TEMPLATES / name).read_text("utf-8") for name in SCRIPTS)
    template = _environment().get_template("report.html.j2")
    return template.render(
        spec=spec,
        summary=summary,
        details=details,
        groups=groups,
        with_reference=has_reference(metrics),
        quirks=quirk_rows(metrics),
        quirks_title=QUIRKS_TITLE,
        quirks_note=QUIRKS_NOTE,
        published=_published(spec, metrics),
        ticks=[f"{axis * share:g}" for share in (0, 0.25, 0.5, 0.75, 1)],
        tasks=list(dict.fromkeys(p.tag for p in prompts if p.tag)),
        splits=list(dict.fromkeys(p.split for p in prompts if p.split)),
        data=data,
        style=Markup(style),  # noqa: S704 - our own files, not a user's text
        script=Markup(script),  # noqa: S704
        policy=f"script-src '{_csp_hash(script)}'; style-src '{_csp_hash(style)}'",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _published(spec: RunSpec, metrics: Sequence[Metric]) -> list[tuple[PublishedScore, str]]:
    """Published scores with "", and among them this run's with its formatted score."""
    own = next((m for m in metrics if m.name == "overall"), None)
    if own is None or own.value is None or spec.benchmark != spec.fold:
        return []
    protocol = spec.protocol
    guidance = "" if spec.engine == "none" else f", guidance {protocol.guidance:g}"
    conditions = f"{protocol.resolution} pixels{guidance}, {spec.images_per_prompt} images per prompt"
    rows = rank_among_published(spec.benchmark, Path(spec.checkpoint).name, own.value, conditions)
    return [(row, own.written(own.value) if is_own else "") for row, is_own in rows]


def _environment() -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # `tojson` escapes <, >, & and ' as \u003c and so on, so no prompt can end the script element.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _csp_hash(text: str) -> str:
    """The Content-Security-Policy source that allows exactly this inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

"""Stage: from a run folder to `report.html`, one page that opens from disk and asks nobody anything.

While the images are small they lie inside the page. Else thumbnails and images lie beside it in
`report_assets/`. A run that is not complete gets a report too, and the page says what is missing.
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

from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.report.evidence import finite, told_parents, told_verdict
from sar_eval.report.foldings import QUIRKS_NOTE, QUIRKS_TITLE, has_reference
from sar_eval.report.published import PublishedScore, beside
from sar_eval.report.scores import quirk_rows, score_groups
from sar_eval.runtime.blocks import make_blocks
from sar_eval.spec import RunSpec
from sar_eval.storage.files import storage_errors, write_bytes
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import Row, row_verdict
from sar_eval.types import Draw, Json, Metric, Prompt

INLINE_LIMIT = 24_000_000  # bytes of encoded images up to which the page holds them itself
THUMBNAIL = 192  # pixels of the longer side; the gallery's cards are as wide
ASSETS = "report_assets"
TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("report.js", "report_questions.js", "report_view.js")
KINDS = {"PNG": ("png", "image/png"), "JPEG": ("jpg", "image/jpeg"), "WEBP": ("webp", "image/webp")}


@dataclass(slots=True)
class Images:
    """Where the page finds its images: in itself up to `limit` bytes, beyond that in files.

    Attributes:
        folder: for the files.
        limit: bytes of encoded images that may lie inside the page.
    """

    folder: Path
    limit: int
    inline: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    size: int = 0

    def add(self, key: str, kind: str, data: bytes) -> None:
        """Take an encoded image of a kind of `KINDS`; the one that crosses the limit moves all out."""
        self.size += len(data)
        self.inline[key] = (kind, data)
        if self.size > self.limit:
            for name, (its_kind, its_data) in self.inline.items():
                self.sources[name] = self._write(name, its_kind, its_data)
            self.inline.clear()

    def source(self, key: str) -> dict[str, str]:
        """Addresses of the card's (`src`) and the large view's image (`full`, if another one)."""
        if key not in self.inline:
            return self.sources.get(key, {})
        kind, data = self.inline[key]
        return {"src": f"data:{KINDS[kind][1]};base64,{base64.b64encode(data).decode()}"}

    def _write(self, key: str, kind: str, data: bytes) -> dict[str, str]:
        stem = key.replace("/", "_")
        full, small = self.folder / f"{stem}.{KINDS[kind][0]}", self.folder / f"{stem}.thumb.webp"
        if not (full.is_file() and full.read_bytes() == data):
            small.unlink(missing_ok=True)
            if thumbnail := _thumbnail(data):
                write_bytes(small, thumbnail)
            write_bytes(full, data)  # last, so that the next report trusts the thumbnail beside it
        names = {"src": small.name, "full": full.name} if small.is_file() else {"src": full.name}
        return {use: f"{self.folder.name}/{quote(name)}" for use, name in names.items()}

    def remove_stale(self) -> None:
        """Remove files of an earlier report that this one does not show."""
        shown = {quoted for names in self.sources.values() for quoted in names.values()}
        with storage_errors(self.folder):
            for path in self.folder.glob("*"):
                ours = path.suffix in (".png", ".jpg", ".webp", ".tmp")
                if ours and f"{self.folder.name}/{quote(path.name)}" not in shown:
                    path.unlink()
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()


def write_report(spec: RunSpec, folder: RunFolder, *, inline_limit: int = INLINE_LIMIT) -> Path:
    """Write `report.html` from what the run folder holds, and return its path.

    Args:
        spec: of the run.
        folder: with `summary.json`; generations and verdicts may be missing in part.
        inline_limit: bytes of encoded images that the page holds itself; beyond that they are
            written to `report_assets/` beside it.

    Raises:
        BadInput: no `summary.json`, or a stored part cannot be read.
        SpecMismatch: the summary is of another spec.
        StorageFailed: the report cannot be written.
    """
    summary = _read_summary(spec, folder)
    prompts = folder.read_prompts()
    images = Images(folder.path / ASSETS, inline_limit)
    columns = ["key", "image", "elapsed_s", "out_of_range_tokens", "error"]
    drawn = {row["key"]: _drawn(row, images) for row in folder.generations.rows(columns)}
    judged, judge_versions = _judged(spec, folder)
    draws = [draw for block in make_blocks(prompts, spec) for draw in block]
    data = {
        "prompts": [_prompt(prompt) for prompt in prompts],
        "images": list(_images(spec, prompts, draws, drawn, judged, images)),
    }
    facts = _facts(spec, folder, summary, judge_versions, list(drawn.values()))
    path = folder.path / "report.html"
    write_bytes(path, _page(spec, summary, facts, prompts, data).encode())
    # Only now: until the page is replaced, the old one shows the old files.
    images.remove_stale()
    return path


def _read_summary(spec: RunSpec, folder: RunFolder) -> Row:
    path = folder.path / "summary.json"
    if not path.is_file():
        raise BadInput(f"{folder.path} has no summary.json: run `sar-eval summarize` on it first")
    try:
        summary: Row = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInput(f"{path} is broken ({error}): run `sar-eval summarize` again") from error
    if summary["spec_digest"] != spec.digest:
        raise SpecMismatch(
            f"{path} belongs to spec {summary['spec_digest']}, not {spec.digest}: summarize again"
        )
    return summary


def _prompt(prompt: Prompt) -> dict[str, Json]:
    told = {"id": prompt.id, "text": prompt.text, "task": prompt.tag, "split": prompt.split}
    return told | {"parents": told_parents(prompt.checks)}


def _drawn(row: Row, images: Images) -> dict[str, Json]:
    """What the page says of a generation; its image goes to `images`."""
    seconds, outside = finite(row["elapsed_s"]), row["out_of_range_tokens"]
    told = {"seconds": seconds, "outside": outside, "problem": row["error"]}
    if row["image"] is None or not row["image"]["bytes"]:
        return told | {"problem": row["error"] or "no image stored"}
    measured = _measure(row["image"]["bytes"])
    if measured is None:
        return told | {"problem": row["error"] or "unreadable image"}
    kind, size = measured
    images.add(row["key"], kind, row["image"]["bytes"])
    return told | {"size": size}


def _measure(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Kind and (width, height) from the image's head, or None if no browser would show it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return (image.format, image.size) if image.format in KINDS else None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None


def _thumbnail(data: bytes) -> bytes | None:
    """WebP of at most `THUMBNAIL` pixels a side; None for an image that is as small or torn."""
    sink = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) <= THUMBNAIL:
                return None
            small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except OSError:
        return None
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=3)
    small.save(sink, "WEBP", quality=82, method=4)
    return sink.getvalue()


def _judged(spec: RunSpec, folder: RunFolder) -> tuple[dict[str, dict[str, Json]], list[str]]:
    """What the page says of each verdict, by key, and the versions of the judge that gave them."""
    if not spec.judge:
        return {}, []
    told, versions = {}, set()
    for row in folder.verdicts(spec.judge).rows():
        verdict = row_verdict(row)
        told[verdict.key] = told_verdict(verdict)
        versions.add(verdict.judge_version)
    return told, sorted(versions - {""})


def _images(
    spec: RunSpec,
    prompts: Sequence[Prompt],
    draws: Iterable[Draw],
    drawn: Mapping[str, dict[str, Json]],
    judged: Mapping[str, dict[str, Json]],
    images: Images,
) -> Iterator[dict[str, Json]]:
    """Every expected draw in suite order, the missing ones too."""
    numbers = {prompt.id: number for number, prompt in enumerate(prompts)}
    unjudged = {"state": "none", "problem": "not judged" if spec.judge else None}
    for draw in draws:
        made = drawn.get(draw.key, {"problem": "not generated"})
        verdict = judged.get(draw.key, unjudged)
        # A script would round the 63 bits of a seed, so it travels as text.
        told = {"prompt": numbers[draw.prompt.id], "index": draw.index, "seed": str(draw.seed)}
        problem = {"problem": made["problem"] or verdict["problem"]}
        yield told | made | verdict | problem | images.source(draw.key)


def _facts(
    spec: RunSpec,
    folder: RunFolder,
    summary: Row,
    judge_versions: Sequence[str],
    drawn: Sequence[Mapping[str, Json]],
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of names and values: everything that the run's figures depend on."""
    told = spec.to_json()
    protocol, options = told.pop("protocol"), told.pop("judge_options")
    if spec.engine == "none":  # images of others: how they were drawn is not known
        protocol = {"name": protocol["name"]}
    judge = {"judge": told.pop("judge"), "version": ", ".join(judge_versions), **options}
    lists = {
        "Protocol": protocol,
        "Judge": judge,
        "Images": _counts(summary, drawn),
        "Spec": told | {"digest": spec.digest, "git_commit": _git_commit(folder)},
        "Versions": summary["versions"],
    }
    return [(title, [(name, _plain(v)) for name, v in found.items()]) for title, found in lists.items()]


def _counts(summary: Row, drawn: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    seconds = [d["seconds"] for d in drawn if d["problem"] is None and d["seconds"]]
    return {name: summary[name] for name in ("expected", "generated", "judged", "failed")} | {
        "seconds_per_image": f"{np.mean(seconds):.3g}" if seconds else "",
        "tokens_out_of_range": sum(d["outside"] or 0 for d in drawn),
    }


def _git_commit(folder: RunFolder) -> str:
    if not (folder.path / "run.json").is_file():
        return ""
    return str(folder.read_manifest().get("git_commit") or "")


def _plain(value: Json) -> str:
    """A setting as text, in quotes where blanks at its ends would be overlooked."""
    plain = isinstance(value, str) and value == value.strip()
    return value if plain else json.dumps(value, ensure_ascii=False)


def _page(spec: RunSpec, summary: Row, facts: Json, prompts: Sequence[Prompt], data: Json) -> str:
    metrics = [Metric(**m) for m in summary["metrics"]]
    axis, groups = score_groups(metrics)
    style = (TEMPLATES / "report.css").read_text("utf-8")
    script = "".join((TEMPLATES / name).read_text("utf-8") for name in SCRIPTS)
    template = _environment().get_template("report.html.j2")
    return template.render(
        spec=spec,
        summary=summary,
        facts=facts,
        groups=groups,
        beside=has_reference(metrics),
        quirks=quirk_rows(metrics),
        quirks_title=QUIRKS_TITLE,
        quirks_note=QUIRKS_NOTE,
        published=_published(spec, metrics),
        ticks=[f"{axis * part:g}" for part in (0, 0.25, 0.5, 0.75, 1)],
        tasks=list(dict.fromkeys(p.tag for p in prompts if p.tag)),
        splits=list(dict.fromkeys(p.split for p in prompts if p.split)),
        data=data,
        style=Markup(style),  # noqa: S704 - our own files, not a user's text
        script=Markup(script),  # noqa: S704
        policy=f"script-src '{_hash(script)}'; style-src '{_hash(style)}'",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _published(spec: RunSpec, metrics: Sequence[Metric]) -> list[tuple[PublishedScore, str]]:
    """What others published of this benchmark and "", with this run's score in writing among them."""
    own = next((m for m in metrics if m.name == "overall"), None)
    if own is None or own.value is None or spec.benchmark != spec.fold:
        return []
    protocol = spec.protocol
    guidance = "" if spec.engine == "none" else f", guidance {protocol.guidance:g}"
    conditions = f"{protocol.resolution} pixels{guidance}, {spec.images_per_prompt} images a prompt"
    rows = beside(spec.benchmark, Path(spec.checkpoint).name, own.value, conditions)
    return [(row, own.written(own.value) if ours else "") for row, ours in rows]


def _environment() -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # `tojson` writes <, >, & and ' as \u003c and so on: nothing in a prompt ends the script element.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _hash(text: str) -> str:
    """What the page's own script or style must be for the browser to obey it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

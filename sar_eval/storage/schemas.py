"""Arrow schemas of a run's tables, and conversion between their rows and generations or verdicts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from sar_eval.types import Generation, Prompt, Verdict

Row = dict[str, Any]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_DRAW = [("key", pa.string()), ("prompt_id", pa.string()), ("index", pa.int32())]
PROMPTS = pa.schema(
    [(name, pa.string()) for name in ("id", "text", "tag", "split")] + [("checks", pa.string())]
)
GENERATIONS = pa.schema(
    [
        *_DRAW,
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("tokens", pa.list_(pa.int32())),
        ("image", IMAGE),
        ("elapsed_s", pa.float64()),
        ("out_of_range_tokens", pa.int32()),
        ("steps", pa.int32()),
        ("error", pa.string()),
        ("spec_digest", pa.string()),
        ("provenance", pa.string()),  # JSON; null in parts written before version 0.2.0
    ]
)
VERDICTS = pa.schema(
    [
        *_DRAW,
        ("judge", pa.string()),
        ("judge_version", pa.string()),
        ("score", pa.float64()),
        ("passed", pa.bool_()),
        ("reason", pa.string()),
        ("evidence", pa.string()),
        ("error", pa.string()),
        ("judge_digest", pa.string()),
        ("image_digest", pa.string()),  # of the image that was judged; null before version 0.3.0
    ]
)


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What a part's footer says of its rows, so that they need not be read.

    Attributes:
        rows: how many.
        errors: how many of them hold an error instead of a result.
        made_for: digest of the spec (generations) or of the judge (verdicts) that they were made for.
        source: file name of the part of generations that verdicts are on.
        sums: of columns, by name.
        devices: where it was drawn, as "device, wave size".
        scores: of verdicts, row by row: what most benchmarks need.
        seconds: that generations took, row by row: what a report needs.
    """

    rows: int
    errors: int
    made_for: str
    source: str = ""
    sums: dict[str, int] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    scores: tuple[float | None, ...] = ()
    seconds: tuple[float | None, ...] = ()


def image_digest(data: bytes | None) -> str | None:
    """What ties a verdict to the image that it is on; None without an image.

    SHA-256, 16 hex digits: most processors have instructions for it, and images are the bulk of a run.
    """
    return None if data is None else hashlib.sha256(data).hexdigest()[:16]


def image_suffix(data: bytes) -> str:
    """File suffix of an encoded image, by its first bytes."""
    if data[8:12] == b"WEBP":
        return "webp"
    return "jpg" if data.startswith(b"\xff\xd8\xff") else "png"


def generation_row(prompt: Prompt, generation: Generation, spec_digest: str) -> Row:
    """A generation as a row of `GENERATIONS`."""
    image = None
    if generation.image is not None:
        name = f"{generation.key.replace('/', '_')}.{image_suffix(generation.image)}"
        image = {"bytes": generation.image, "path": name}
    return {
        "key": generation.key,
        "prompt_id": prompt.id,
        "index": int(generation.key.rpartition("/")[2]),
        "prompt": prompt.text,
        "seed": generation.seed,
        "tokens": list(generation.tokens),
        "image": image,
        "elapsed_s": generation.elapsed_s,
        "out_of_range_tokens": generation.out_of_range_tokens,
        "steps": generation.steps,
        "error": generation.error,
        "spec_digest": spec_digest,
        "provenance": json.dumps(dict(generation.provenance), sort_keys=True),
    }


def generation_from_row(row: Row) -> Generation:
    """The generation in a row of `GENERATIONS`."""
    return Generation(
        row["key"],
        row["seed"],
        tuple(row["tokens"] or ()),
        row["image"]["bytes"] if row["image"] else None,
        row["elapsed_s"],
        row["out_of_range_tokens"],
        row["error"],
        steps=row.get("steps") or 0,
        provenance=json.loads(row.get("provenance") or "{}"),
    )


def verdict_row(verdict: Verdict, judge_digest: str, judged_image: str | None) -> Row:
    """A verdict as a row of `VERDICTS`; `judged_image` is the digest of the image that it is on."""
    prompt_id, _, index = verdict.key.rpartition("/")
    row = {field.name: getattr(verdict, field.name) for field in fields(verdict)}
    row |= {"prompt_id": prompt_id, "index": int(index), "judge_digest": judge_digest}
    evidence = None if verdict.evidence is None else json.dumps(verdict.evidence)
    return row | {"evidence": evidence, "image_digest": judged_image}


def verdict_from_row(row: Row) -> Verdict:
    """The verdict in a row of `VERDICTS`."""
    return Verdict(
        row["key"],
        row["judge"],
        row["judge_version"],
        row["score"],
        row["passed"],
        row["reason"],
        json.loads(row["evidence"]) if row["evidence"] else None,
        row["error"],
    )


def generation_facts(rows: Sequence[Row], spec_digest: str) -> PartFacts:
    """The facts of a part of generations."""
    made_by = (json.loads(row["provenance"] or "{}") for row in rows if row["error"] is None)
    devices = {
        f"{made['device']}, wave size {made['wave_size']}"
        for made in made_by
        if "device" in made and "wave_size" in made
    }
    return PartFacts(
        len(rows),
        _count_errors(rows),
        spec_digest,
        sums=_sums(rows),
        devices=tuple(sorted(devices)),
        seconds=tuple(_seconds(row["elapsed_s"]) for row in rows),
    )


def verdict_facts(rows: Sequence[Row], judge_digest: str, source: str) -> PartFacts:
    """The facts of a part of verdicts on the part of generations called `source`."""
    scores = tuple(row["score"] for row in rows)
    return PartFacts(len(rows), _count_errors(rows), judge_digest, source, scores=scores)


def facts_of_rows(rows: Sequence[Row]) -> PartFacts:
    """The facts of a part that an earlier version wrote without any."""
    made_for = {str(row.get("spec_digest") or row.get("judge_digest")) for row in rows}
    first = rows[0] if rows else {}
    return PartFacts(
        len(rows),
        _count_errors(rows),
        " ".join(sorted(made_for)),
        sums=_sums(rows) if "steps" in first else {},
        scores=tuple(row["score"] for row in rows) if "score" in first else (),
    )


def _seconds(elapsed: float | None) -> float | None:
    """As a report shows them; what is no number of seconds is unknown."""
    return round(elapsed, 4) if elapsed is not None and math.isfinite(elapsed) else None


def _count_errors(rows: Sequence[Row]) -> int:
    return sum(row["error"] is not None for row in rows)


def _sums(rows: Sequence[Row]) -> dict[str, int]:
    return {
        "steps": sum(row["steps"] or 0 for row in rows),
        "rows_with_steps": sum(bool(row["steps"]) for row in rows),
        "out_of_range_tokens": sum(row["out_of_range_tokens"] or 0 for row in rows),
    }

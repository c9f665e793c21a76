"""Arrow schemas of a run's tables, and conversion between their rows and generations or verdicts."""

from __future__ import annotations

import json
from dataclasses import asdict
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
    ]
)


def generation_row(prompt: Prompt, generation: Generation, spec_digest: str) -> Row:
    """A generation as a row of `GENERATIONS`."""
    image = None
    if generation.image is not None:
        kind = "webp" if generation.image[8:12] == b"WEBP" else "png"
        image = {"bytes": generation.image, "path": f"{generation.key.replace('/', '_')}.{kind}"}
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


def verdict_row(verdict: Verdict, judge_digest: str) -> Row:
    """A verdict as a row of `VERDICTS`."""
    prompt_id, _, index = verdict.key.rpartition("/")
    row = asdict(verdict) | {"prompt_id": prompt_id, "index": int(index), "judge_digest": judge_digest}
    return row | {"evidence": None if verdict.evidence is None else json.dumps(verdict.evidence)}


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

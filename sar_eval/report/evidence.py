"""Convert verdicts to the report page's JSON; a judge's evidence may have any form."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import read_questions
from sar_eval.types import Json, Verdict

MASK_SIDE = 128  # pixels to which masks are downsampled, as a page may have thousands of them


def verdict_to_json(verdict: Verdict) -> dict[str, Json]:
    """A verdict's state, score, reason, boxes and answers, and other evidence as indented JSON text."""
    evidence = verdict.evidence if isinstance(verdict.evidence, dict) else {"evidence": verdict.evidence}
    boxes = evidence["boxes"] if isinstance(evidence.get("boxes"), list) else []
    questions = _questions(evidence.get("questions"))
    shown = {"boxes", "questions"} if questions else {"boxes"}
    rest = {name: value for name, value in evidence.items() if name not in shown and value is not None}
    return {
        "state": _state(verdict),
        "score": finite_or_none(verdict.score),
        "reason": verdict.reason or "",
        "boxes": [box for entry in boxes if (box := _box(entry))],
        "questions": questions,
        "evidence": json.dumps(rest, indent=2, ensure_ascii=False) if rest else "",
        "problem": verdict.error,
    }


def parents_by_question(checks: Json) -> dict[str, list[int]]:
    """Parents of each question by id; empty if the checks have no questions."""
    try:
        return {str(question.id): list(question.parents) for question in read_questions(checks)}
    except BadInput:
        return {}


def _questions(entries: Json) -> list[dict[str, Json]]:
    """The answered questions; empty unless all entries have the expected form."""
    questions = [_question(entry) for entry in entries] if isinstance(entries, list) else []
    return [question for question in questions if question] if all(questions) else []


def _question(row: Json) -> dict[str, Json] | None:
    """One answered question; `counted` is None if the image was not scored."""
    try:
        return {
            "id": int(row["id"]),
            "text": str(row["question"]),
            "answer": str(row["answer"]),
            "yes": row["yes"] is True,
            "soft": finite_or_none(row.get("soft")),
            "truncated": row.get("truncated") is True,
            "zeroed_by": [int(parent) for parent in row.get("zeroed_by", ())],
            "counted": bool(row["counted"]) if "counted" in row else None,
            "problem": str(row.get("error") or ""),
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _state(verdict: Verdict) -> str:
    if verdict.error is None and verdict.passed is not None:
        return "pass" if verdict.passed else "fail"
    return "none" if verdict.error is not None or finite_or_none(verdict.score) is None else "scored"


def finite_or_none(value: Any) -> float | None:
    """The number, or None if it is no number, infinite or NaN, which JSON does not have."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _box(entry: Json) -> dict[str, Json] | None:
    """One detection, or None unless the entry has the expected form."""
    try:
        corners = [round(float(edge), 1) for edge in entry["box"]]
        name, color = str(entry["name"]), entry.get("color")
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        return None
    score, mask = finite_or_none(entry.get("score")), downsample_mask(entry.get("mask"))
    box = {"name": name, "color": color and str(color), "score": score, "box": corners, "mask": mask}
    return box | ({"colors": best} if (best := _best_colors(entry.get("colors"))) else {})


def _best_colors(colors: Json) -> list[list[Json]]:
    """The two most likely colours with their probabilities."""
    if not isinstance(colors, dict):
        return []
    finite = [(share, str(name)) for name, p in colors.items() if (share := finite_or_none(p)) is not None]
    return [[name, share] for share, name in sorted(finite, reverse=True)[:2]]


def downsample_mask(mask: Json) -> Json:
    """An uncompressed COCO mask, downsampled to at most `MASK_SIDE` pixels a side; None for any other."""
    try:
        height, width = mask["size"]
        flat = np.repeat(np.arange(len(mask["counts"])) % 2 == 1, mask["counts"])
        step = -(-max(height, width) // MASK_SIDE)
        # Column-major: rows are the image's columns.
        small = flat.reshape(width, height)[::step, ::step]
        padded = np.concatenate([[False], small.ravel(), [not small[-1, -1]]])
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    run_ends = np.flatnonzero(padded[1:] != padded[:-1])
    return {"size": [small.shape[1], small.shape[0]], "counts": np.diff(run_ends, prepend=0).tolist()}

"""A verdict as the report's page knows it; judges may write anything as evidence."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.suites.dpg.questions import read_questions
from sar_eval.types import Json, Verdict

MASK_SIDE = 128  # masks are thinned to this many pixels, or thousands of them would fill the page


def told_verdict(verdict: Verdict) -> dict[str, Json]:
    """What the page knows of a verdict: state, score, reason, boxes, answers, and the rest as text."""
    evidence = verdict.evidence if isinstance(verdict.evidence, dict) else {"evidence": verdict.evidence}
    boxes = evidence["boxes"] if isinstance(evidence.get("boxes"), list) else []
    questions = _questions(evidence.get("questions"))
    shown = {"boxes", "questions"} if questions else {"boxes"}
    rest = {name: value for name, value in evidence.items() if name not in shown and value is not None}
    return {
        "state": _state(verdict),
        "score": finite(verdict.score),
        "reason": verdict.reason or "",
        "boxes": [box for found in boxes if (box := _box(found))],
        "questions": questions,
        "evidence": json.dumps(rest, indent=2, ensure_ascii=False) if rest else "",
        "problem": verdict.error,
    }


def told_parents(checks: Json) -> dict[str, list[int]]:
    """What each question of a prompt hangs on, by id; empty if its checks are of another kind."""
    try:
        return {str(question.id): list(question.parents) for question in read_questions(checks)}
    except BadInput:
        return {}


def _questions(found: Json) -> list[dict[str, Json]]:
    """The answers to a prompt's questions, or none if a judge wrote something else under that name."""
    told = [_question(row) for row in found] if isinstance(found, list) else []
    return [row for row in told if row] if all(told) else []


def _question(row: Json) -> dict[str, Json] | None:
    """`counted` is None, and nothing zeroed, where an image without all answers was not scored."""
    try:
        told = {"id": int(row["id"]), "text": str(row["question"]), "answer": str(row["answer"])}
        return told | {
            "yes": row["yes"] is True,
            "soft": finite(row.get("soft")),
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
    return "none" if verdict.error is not None or finite(verdict.score) is None else "scored"


def finite(value: Any) -> float | None:
    """The number, or None for what JSON cannot say."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _box(found: Json) -> dict[str, Json] | None:
    """One detection for the page, or None if a judge wrote something else there."""
    try:
        corners = [round(float(edge), 1) for edge in found["box"]]
        name, color = str(found["name"]), found.get("color")
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        return None
    score, mask = finite(found.get("score")), thin(found.get("mask"))
    told = {"name": name, "color": color and str(color), "score": score, "box": corners, "mask": mask}
    return told | ({"colors": best} if (best := _best_colors(found.get("colors"))) else {})


def _best_colors(colors: Json) -> list[list[Json]]:
    """The likeliest colour and its runner-up with their probabilities."""
    if not isinstance(colors, dict):
        return []
    known = [(share, str(name)) for name, p in colors.items() if (share := finite(p)) is not None]
    return [[name, share] for share, name in sorted(known, reverse=True)[:2]]


def thin(mask: Json) -> Json:
    """A COCO mask's uncompressed run lengths, thinned to `MASK_SIDE`; None for any other kind of mask."""
    try:
        height, width = mask["size"]
        flat = np.repeat(np.arange(len(mask["counts"])) % 2 == 1, mask["counts"])
        step = -(-max(height, width) // MASK_SIDE)
        # Column-major: rows are the image's columns.
        small = flat.reshape(width, height)[::step, ::step]
        line = np.concatenate([[False], small.ravel(), [not small[-1, -1]]])
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    turns = np.flatnonzero(line[1:] != line[:-1])
    return {"size": [small.shape[1], small.shape[0]], "counts": np.diff(turns, prepend=0).tolist()}

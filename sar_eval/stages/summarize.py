"""Stage: from verdicts to the headline figures, and to what is missing from them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sar_eval import discover
from sar_eval.provenance import versions
from sar_eval.runtime.blocks import make_blocks
from sar_eval.spec import RunSpec
from sar_eval.storage.files import write_json
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import Row, verdict_from_row
from sar_eval.types import Metric, Summary, Verdict

PROBLEMS_LISTED = 50


def summarize(spec: RunSpec, folder: RunFolder, *, partial: bool = False) -> Summary:
    """Fold the stored verdicts and write `summary.json`.

    An incomplete run has no metrics: a mean over fewer images is not comparable. With `partial` it has
    metrics over the images that are there, and the summary is marked.

    Raises:
        BadInput: a stored part cannot be read.
    """
    prompts = folder.read_prompts()
    expected = [draw.key for block in make_blocks(prompts, spec) for draw in block]
    rows = list(folder.generations.rows(["key", "error", "steps", "out_of_range_tokens"]))
    error_by_key = {row["key"]: row["error"] for row in rows}
    verdicts = _verdicts(spec, folder)
    # A verdict on an image that is no longer there says nothing of this run.
    verdicts = {key: v for key, v in verdicts.items() if key in error_by_key and error_by_key[key] is None}
    problems = {key: _problem(key, error_by_key, verdicts, spec) for key in expected}
    failed = sum(p is not None for p in problems.values())
    metrics: tuple[Metric, ...] = ()
    if spec.fold and spec.judge and (partial or not failed):
        fold = discover.load("benchmarks", spec.fold)
        with discover.guarded(f"the fold of benchmark {spec.fold!r} failed"):
            metrics = tuple(fold().fold(prompts, verdicts))
    summary = Summary(
        spec_digest=spec.digest,
        benchmark=spec.benchmark,
        checkpoint=spec.checkpoint,
        protocol=asdict(spec.protocol),
        expected=len(expected),
        generated=sum(error is None for error in error_by_key.values()),
        judged=sum(v.error is None for v in verdicts.values()) if spec.judge else 0,
        failed=failed,
        metrics=metrics,
        problems=_format_problems({key: why for key, why in problems.items() if why}),
        versions=versions(),
        partial=partial and failed > 0,
        steps_per_image=_mean_steps(rows),
        out_of_range_tokens=sum(row["out_of_range_tokens"] for row in rows),
    )
    write_json(folder.path / "summary.json", to_json(summary))
    return summary


def _mean_steps(rows: list[Row]) -> float | None:
    steps = [row["steps"] for row in rows if row["steps"]]
    return sum(steps) / len(steps) if steps else None


def _verdicts(spec: RunSpec, folder: RunFolder) -> dict[str, Verdict]:
    if not spec.judge:
        return {}
    return {row["key"]: verdict_from_row(row) for row in folder.verdicts(spec.judge).rows()}


def _problem(
    key: str, error_by_key: dict[str, str | None], verdicts: dict[str, Verdict], spec: RunSpec
) -> str | None:
    """Why a draw has no result, or None if it has one."""
    if key not in error_by_key:
        return "not generated"
    if error_by_key[key] is not None:
        return error_by_key[key]
    if not spec.judge:
        return None
    return verdicts[key].error if key in verdicts else "not judged"


def _format_problems(problems: dict[str, str]) -> tuple[str, ...]:
    lines = [f"{key}: {why}" for key, why in list(problems.items())[:PROBLEMS_LISTED]]
    more = len(problems) - len(lines)
    return (*lines, f"and {more} more") if more else tuple(lines)


def to_json(summary: Summary) -> dict[str, Any]:
    """As `summary.json` stores it."""
    return asdict(summary) | {"complete": summary.complete}

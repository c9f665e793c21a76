"""Stage: from verdicts to the headline figures, and to what is missing from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from sar_eval.provenance import versions
from sar_eval.spec import RunSpec
from sar_eval.stages.inventory import Inventory
from sar_eval.stages.measure import fold_run
from sar_eval.stages.resume import stopped, wanted_blocks
from sar_eval.stats.intervals import metric_of
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Metric, Summary

PROBLEMS_LISTED = 50


def summarize(spec: RunSpec, folder: RunFolder, *, partial: bool = False) -> Summary:
    """Fold the stored verdicts and write `summary.json`.

    An incomplete run has no metrics: a mean over fewer images is not comparable. With `partial` it has
    metrics over the images that are there, and the summary is marked. So has a sequential run that stopped
    on purpose.

    Blocks that are whole are counted from the footers of their parts (see `stages.inventory`).

    Raises:
        BadInput: a stored part cannot be read, or a figure is no number.
        SpecMismatch: a stored part is of another run.
    """
    inventory = Inventory(spec, folder)
    stop = stopped(folder, inventory.drawn)
    counts, problems = Counter[str](), dict[str, str]()
    for block in wanted_blocks(inventory.blocks, stop):
        state = inventory.state(block)
        counts.update(generated=state.generated, judged=state.judged, failed=len(state.problems))
        if len(problems) < PROBLEMS_LISTED:
            problems |= state.problems
    failed, expected = counts["failed"], inventory.blocks.draws
    shard = folder.read_manifest().shard  # a score is that of the whole run
    metrics: tuple[Metric, ...] = ()
    if spec.fold and spec.judge and expected and not shard and (partial or not failed):
        metrics = tuple(map(metric_of, fold_run(inventory)))
    summary = Summary(
        spec_digest=spec.digest,
        benchmark=spec.benchmark,
        checkpoint=spec.checkpoint,
        protocol=spec.protocol.to_json(),
        expected=expected,
        generated=counts["generated"],
        judged=counts["judged"],
        failed=failed,
        metrics=metrics,
        problems=_format_problems(problems, failed),
        versions=versions(),
        partial=(partial and failed > 0) or (stop is not None and not failed),
        steps_per_image=_mean_steps(inventory),
        out_of_range_tokens=inventory.count("out_of_range_tokens"),
        devices=_mixed_devices(spec, inventory),
        shard=str(shard or ""),
        stopped="" if stop is None else stop.statement,
    )
    folder.write_summary(to_json(summary))
    return summary


def _mean_steps(inventory: Inventory) -> float | None:
    rows = inventory.count("rows_with_steps")
    return inventory.count("steps") / rows if rows else None


def _mixed_devices(spec: RunSpec, inventory: Inventory) -> tuple[str, ...]:
    """Devices and wave sizes, where images depend on them: several of them in a dtype that rounds."""
    devices = inventory.devices
    return tuple(devices) if len(devices) > 1 and spec.dtype not in ("float32", "none") else ()


def _format_problems(problems: dict[str, str], total: int) -> tuple[str, ...]:
    lines = [f"{key}: {why}" for key, why in list(problems.items())[:PROBLEMS_LISTED]]
    more = total - len(lines)
    return (*lines, f"and {more} more") if more else tuple(lines)


def to_json(summary: Summary) -> dict[str, Any]:
    """As `summary.json` stores it."""
    return asdict(summary) | {"complete": summary.complete}

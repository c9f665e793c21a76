"""Which runs and baselines are below a folder, with their scores; or why one is of no use to a history."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sar_eval.comparisons import RunFacts
from sar_eval.errors import BadInput, SarEvalError
from sar_eval.histories import LeftOut
from sar_eval.measures import Measure
from sar_eval.spec import RunSpec
from sar_eval.stages.measure import ScoredRun, read_scored, score_run
from sar_eval.stages.resume import check_files, check_manifest
from sar_eval.storage.baselines import is_baseline
from sar_eval.storage.run_folder import RunFolder

MAX_DEPTH = 4  # folders below the one that is searched


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finished run.

    Attributes:
        path: of its folder, or of a baseline file.
        began: when, by the time of `run.json` or of the file.
    """

    path: Path
    facts: RunFacts
    measures: Mapping[str, Measure]
    began: datetime

    @property
    def identity(self) -> tuple[str, ...]:
        """Two runs with the same have the same figures: one is a copy, or the other's baseline."""
        facts = self.facts
        fold = (facts.benchmark, facts.fold, facts.fold_version)
        return (facts.spec_digest, facts.judge_digest, facts.checkpoint_digest, *fold)

    @property
    def conditions(self) -> dict[str, str]:
        """Everything but the checkpoint that figures depend on: runs of one series have the same."""
        facts = self.facts
        judge = {f"judge's {name}": value for name, value in facts.judge_options.items()}
        found = {
            "suite": facts.suite_digest,
            "images per prompt": facts.images_per_prompt,
            "judge": facts.judge,
            "judge version": facts.judge_version,
            **judge,
            "fold": facts.fold,
            "fold version": facts.fold_version,
            "images": "of another tool" if facts.is_imported else "drawn by sar-eval",
            **({} if facts.is_imported else facts.protocol.conditions()),
        }
        return {name.replace("_", " "): str(value) for name, value in found.items()}


def find_runs(folder: Path, benchmark: str | None) -> tuple[list[Found], list[LeftOut]]:
    """The finished runs below a folder, and the others with the reason.

    Args:
        folder: searched `MAX_DEPTH` folders deep; links to folders are not followed.
        benchmark: only runs of it; None for all.

    Raises:
        BadInput: there is no such folder.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder: name one with run folders in it")
    found: dict[tuple[str, ...], Found] = {}
    left_out = []
    for path in _candidates(folder):
        outcome = _read(path, benchmark)
        if isinstance(outcome, LeftOut):
            left_out.append(outcome)
        elif outcome is not None and (same := found.setdefault(outcome.identity, outcome)) is not outcome:
            left_out.append(leave_out(outcome, f"the same run as {same.path}"))
    return list(found.values()), left_out


def leave_out(run: Found, why: str) -> LeftOut:
    """A run that is in no series after all."""
    return LeftOut(path=str(run.path), benchmark=run.facts.benchmark, why=why)


def _candidates(folder: Path) -> list[Path]:
    """Run folders, then baselines: of a run and its own baseline the run is taken."""
    runs: list[Path] = []
    files: list[Path] = []
    for name, folders, names in os.walk(folder):
        path = Path(name)
        is_run = "run.json" in names
        if is_run:
            runs.append(path)
        else:
            files += [path / n for n in names if n.endswith(".parquet") and is_baseline(path / n)]
        is_deep = len(path.relative_to(folder).parts) >= MAX_DEPTH
        folders[:] = [] if is_run or is_deep else [n for n in folders if not n.startswith(".")]
    return sorted(runs) + sorted(files)


def _read(path: Path, benchmark: str | None) -> Found | LeftOut | None:
    """A finished run, or why it is of no use; None for one of another benchmark."""
    name = ""
    try:
        if path.is_file():
            scored = read_scored(path)
            return _finished(scored, path) if benchmark in (None, scored.facts.benchmark) else None
        spec = RunSpec.from_json(RunFolder(path).read_manifest().spec, str(path / "run.json"))
        name = spec.benchmark
        return _score(RunFolder(path), spec) if benchmark in (None, name) else None
    except OSError as error:  # it is gone by now, or may not be read: the others still are
        return LeftOut(path=str(path), benchmark=name, why=f"cannot be read: {error.strerror or error}")
    except SarEvalError as error:
        return LeftOut(path=str(path), benchmark=name, why=str(error).removeprefix(f"{path} "))


def _score(folder: RunFolder, spec: RunSpec) -> Found:
    check_manifest(folder)
    # Only the fold runs here; if a stranger's run names a file of code, nobody has asked for it.
    check_files(spec, {name for field, name in spec.files.items() if field != "fold"}, folder)
    return _finished(score_run(spec, folder), folder.path / "run.json")


def _finished(run: ScoredRun, began: Path) -> Found:
    """The run, if it has no holes: a mean over fewer images is not comparable."""
    if run.facts.failed:
        raise BadInput(f"incomplete: {run.facts.failed} of {run.facts.expected} images have no result")
    time = datetime.fromtimestamp(began.stat().st_mtime)
    return Found(path=run.path, facts=run.facts, measures={m.name: m for m in run.measures}, began=time)

"""The scores of a run's pictures by one judge, or by one scorer of the judge `score`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sar_eval.documents import parse_json, shorten
from sar_eval.errors import BadInput
from sar_eval.storage.parts import PartTable
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Json

SCORER = "scorer/"  # before the name of a scorer, whose numbers stand in the evidence of the judge `score`
AGAIN = "remove the run's verdicts and judge again"


@dataclass(frozen=True, slots=True)
class StoredScore:
    """A score; `image` is the digest of the picture that it was given to (None before version 0.3.0)."""

    value: float | None
    image: str | None


@dataclass(frozen=True, slots=True)
class RunScores:
    """Scores by draw key.

    Attributes:
        by: whose they are: a judge, or `scorer/NAME`.
        version: equal scores can be expected of runs of which this is equal.
        scores: of every judged draw.
    """

    by: str
    version: str
    scores: Mapping[str, StoredScore]

    def of(self, key: str, image: str | None) -> float | None:
        """The score of a draw whose stored picture has this digest; None if it is unscored.

        A verdict on an earlier picture of the draw does not count.
        """
        found = self.scores.get(key)
        if found is None or (None not in (image, found.image) and image != found.image):
            return None
        return found.value


def read_scores(folder: RunFolder, by: str) -> RunScores:
    """Read the scores of a judge or scorer.

    Raises:
        BadInput: the run has none of that name (or `by` is ""), has them of several versions or options,
            or a score is no number.
    """
    names = sorted(path.name for path in (folder.path / "verdicts").glob("*") if path.is_dir())
    tables = {name: folder.verdicts(name) for name in names if folder.verdicts(name).paths()}
    if not tables:
        raise BadInput(
            f"{folder.path} has no verdicts: judge it first, as `sar-eval judge {folder.path} --judge NAME`"
        )
    if by.startswith(SCORER):
        return _of_scorer(folder, tables, by)
    table = tables.get(folder.verdicts(by).folder.name) if by else None
    if table is None:
        wanted = f"no verdicts of {shorten(by)}" if by else "no judge of its own"
        raise BadInput(f"{folder.path} has {wanted}: say whose score counts with --by: {', '.join(tables)}")
    return _collected(by, _judged(table), table.folder)


def _judged(table: PartTable) -> Iterator[tuple[dict[str, Any], Json, str]]:
    """Row, score and version of every verdict."""
    for row in table.rows(("key", "score", "image_digest", "judge_digest")):
        yield row, row["score"], str(row["judge_digest"])


def _of_scorer(folder: RunFolder, tables: Mapping[str, PartTable], by: str) -> RunScores:
    name, known, found = by.removeprefix(SCORER), set[str](), []
    for table in (t for label, t in tables.items() if label == "score" or label.startswith("score-")):
        numbers = list(_numbers(table))
        known |= {f"{SCORER}{label}" for _, scores, _ in numbers for label in scores}
        if any(name in scores for _, scores, _ in numbers):
            found += [(r, scores.get(name), str(versions.get(name))) for r, scores, versions in numbers]
    if not found:
        there = f"those there are: {', '.join(sorted(known))}" if known else "there are none of any scorer"
        raise BadInput(
            f"{folder.path} has no numbers of {shorten(name)}; {there} (`sar-eval judge {folder.path} "
            "--scorers NAME` adds a scorer)"
        )
    return _collected(by, (row for row in found if row[1] is not None), folder.path)


def _numbers(table: PartTable) -> Iterator[tuple[dict[str, Any], dict[str, Json], dict[str, str]]]:
    """Row, numbers by scorer and versions by scorer of every verdict."""
    for row in table.rows(("key", "evidence", "image_digest")):
        evidence = parse_json(row["evidence"] or "{}", f"evidence of {row['key']} in {table.folder}")
        scores, versions = (
            evidence.get(name) or {} if isinstance(evidence, dict) else {}
            for name in ("scores", "versions")
        )
        if not isinstance(scores, dict) or not isinstance(versions, dict):
            raise BadInput(f"{table.folder}: evidence of {row['key']} is none of the judge score: {AGAIN}")
        yield row, scores, versions


def _collected(by: str, rows: Iterable[tuple[dict[str, Any], Json, str]], where: Path) -> RunScores:
    scores: dict[str, StoredScore] = {}
    versions: set[str] = set()
    for row, value, version in rows:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not number:
            raise BadInput(f"{where}: the score of {row['key']} is {shorten(value)}: {AGAIN}")
        scores[row["key"]] = StoredScore(value, row["image_digest"])
        versions.add(version)
    if len(versions) > 1:
        raise BadInput(
            f"{where} holds scores of {by} under several versions or options: run `sar-eval judge` on "
            "the run, which judges all of it alike"
        )
    return RunScores(by, versions.pop() if versions else "", scores)

"""A run folder that version 0.1.0 wrote is read, judged, summarised, reported and resumed by this one."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sar_eval.spec import RunSpec
from sar_eval.storage.run_folder import RunFolder

DATA = Path(__file__).parent / "data" / "run-0.1.0"
EXPECTED = json.loads((DATA / "expected.json").read_text())
OPTIONS = ("-n", 2, "--batch-size", 4, "--speculate", "--image-format", "webp", "--workers", 1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(DATA / "run", tmp_path / "run")
    return tmp_path / "run"


def _verdicts(run: Path) -> dict[str, dict[str, Any]]:
    rows = RunFolder(run).verdicts("shapes").rows()
    return {row["key"]: {name: row[name] for name in EXPECTED["verdicts"][row["key"]]} for row in rows}


def test_it_is_read(run: Path) -> None:
    folder = RunFolder(run)
    manifest = folder.read_manifest()
    spec = RunSpec.from_json(manifest.spec)
    assert spec.digest == manifest.digest == EXPECTED["spec_digest"]
    tokens = {row["key"]: row["tokens"] for row in folder.generations.rows()}
    assert tokens == {key: EXPECTED["tokens"][key] for key in tokens}
    assert len(tokens) == 8


def test_it_is_summarised_and_reported(sar_eval, run: Path) -> None:
    assert sar_eval("report", run).returncode == 3  # it has holes
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["expected"], summary["generated"], summary["judged"]) == (12, 8, 4)
    assert "not generated" in (run / "report.html").read_text()


@pytest.mark.slow
def test_it_is_judged(sar_eval, run: Path) -> None:
    done = sar_eval("judge", run, "--workers", 1)
    assert done.returncode == 3
    assert "judge: 4 of 8 images are there already" in done.stderr
    found = _verdicts(run)
    assert found == {key: EXPECTED["verdicts"][key] for key in found}
    assert len(found) == 8


@pytest.mark.slow
def test_it_is_resumed(sar_eval, run: Path) -> None:
    """Its drawn and judged blocks stay; new rows say what made them, old ones do not."""
    words = ("run", "shapes", "--ckpt", "demo:sft", "--suite", DATA / "suite.jsonl", *OPTIONS)
    done = sar_eval(*words, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "generate: 8 of 12 images are there already" in done.stderr
    assert "judge: 4 of 12 images are there already" in done.stderr
    tokens = {row["key"]: row["tokens"] for row in RunFolder(run).generations.rows()}
    assert tokens == EXPECTED["tokens"]
    assert _verdicts(run) == EXPECTED["verdicts"]
    summary = json.loads((run / "summary.json").read_text())
    metrics = [{k: v for k, v in metric.items() if k != "bounds"} for metric in summary["metrics"]]
    assert (metrics, summary["spec_digest"]) == (EXPECTED["metrics"], EXPECTED["spec_digest"])
    assert all(metric["bounds"] == [0.0, 1.0] for metric in summary["metrics"])
    _check_provenance(run)


def _check_provenance(run: Path) -> None:
    parts = f"read_parquet('{run}/generations/*.parquet', union_by_name = true)"
    rows = duckdb.sql(f"select key, provenance from {parts} order by key").fetchall()
    found = [json.loads(provenance) for _, provenance in rows if provenance is not None]
    assert (len(rows), len(found)) == (12, 4)
    for provenance in found:
        assert (provenance["engine"], provenance["engine_version"]) == ("native", "2")
        assert (provenance["device"], provenance["wave_size"]) == ("cpu", 4)
        assert provenance["versions"]["sar_eval"]

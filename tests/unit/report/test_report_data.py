"""What the report reads of a run folder: which verdicts count, whatever the order of what is stored."""

from pathlib import Path

import numpy as np
import pytest

from sar_eval.decoding.encode_images import encode
from sar_eval.errors import BadInput
from sar_eval.report import data
from sar_eval.report.data import FAIL, NONE, SCORED, read_images, read_rows, read_verdicts
from sar_eval.storage.schemas import verdict_row
from sar_eval.types import Prompt, Verdict
from tests.stored_runs import begin_run, store_generations, store_verdicts

PROMPTS = [Prompt(f"p{n}", f"ring {n}", ["a", "b", ""][n % 3]) for n in range(7)]
KEYS = [f"{prompt.id}/{i}" for prompt in PROMPTS for i in range(2)]


def pictures(shade: int) -> dict[str, bytes]:
    return {key: encode(np.full((4, 4, 3), shade + n, np.uint8), "png") for n, key in enumerate(KEYS)}


@pytest.fixture
def run(tmp_path: Path):
    spec, folder = begin_run(tmp_path / "run", PROMPTS, images_per_prompt=2, batch_size=4)
    store_generations(spec, folder, pictures(0) | {"p1/1": None})
    store_verdicts(spec, folder, {key: n / 20 for n, key in enumerate(KEYS) if key != "p3/0"})
    return spec, folder


def states(spec, folder) -> dict[str, int]:
    rows = read_rows(spec, folder)
    for _ in read_verdicts(spec, folder, rows, set()):
        pass
    return {rows.key(n): int(state) for n, state in enumerate(rows.states)}


def test_every_row_is_where_its_key_belongs(run) -> None:
    spec, folder = run
    rows, versions = read_rows(spec, folder), set()
    scores = {}
    for verdicts in read_verdicts(spec, folder, rows, versions):
        scores |= dict(zip(map(rows.key, verdicts.numbers), verdicts.scores, strict=True))
    assert [rows.key(n) for n in range(len(rows))] == KEYS
    assert scores.pop("p3/0") is None
    assert scores == {key: n / 20 for n, key in enumerate(KEYS) if key not in ("p1/1", "p3/0")}
    assert rows.problems == {KEYS.index("p1/1"): "broken"}
    assert (rows.tasks, rows.task_codes.tolist()) == (["a", "b"], [1, 2, 0, 1, 2, 0, 1])
    assert versions == {"1"}
    chosen = np.array([13, 0, 5])
    assert dict(read_images(folder, rows, chosen)) == {n: pictures(0)[KEYS[n]] for n in (0, 5, 13)}


def test_a_verdict_on_an_image_that_was_drawn_again_does_not_count(run) -> None:
    """As in the summary. An image that came out the same keeps its verdict, one that failed has none."""
    spec, folder = run
    store_generations(spec, folder, pictures(0) | {"p0/1": pictures(50)["p0/1"]} | {"p1/1": None})
    found = states(spec, folder)
    assert found.pop("p0/1") == found.pop("p3/0") == found.pop("p1/1") == NONE
    assert set(found.values()) == {SCORED}


def test_a_part_that_was_drawn_again_in_another_order(run) -> None:
    spec, folder = run
    part = folder.verdicts("shapes").part(1)
    rows = folder.verdicts("shapes").read(part.path).to_pylist()
    digests = dict(zip(KEYS[4:8], [row["image_digest"] for row in rows], strict=True))
    failed = [
        verdict_row(Verdict(key, "shapes", "1", 0.0, False), "x", digests[key]) for key in KEYS[7:3:-1]
    ]
    folder.write_verdicts("shapes", 1, failed, "x", folder.generations.part(1))
    found = states(spec, folder)
    assert [found[key] for key in KEYS[4:8]] == [FAIL] * 4
    assert found[KEYS[2]] == found[KEYS[8]] == SCORED


def test_verdicts_of_draws_that_are_not_expected_are_left_out(run) -> None:
    spec, folder = run
    strange = [verdict_row(Verdict("p9/0", "shapes", "1", 1.0, True), "x", None)]
    folder.write_verdicts("shapes", 9, strange, "x", folder.generations.part(0))
    assert list(states(spec, folder)) == KEYS


@pytest.mark.parametrize("table", ["generations", "verdicts/shapes"])
def test_a_damaged_part_is_named(run, table: str) -> None:
    spec, folder = run
    path = sorted((folder.path / table).glob("part-*.parquet"))[1]
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match=f"{path.name} is damaged"):
        states(spec, folder)


def test_whole_parts_are_taken_from_their_footers(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large run; the rows are the same as those that are read."""
    read = read_rows(*run)
    monkeypatch.setattr(data, "CHECKED_PARTS", 0)
    filled = read_rows(*run)
    for name in ("part", "position", "stored", "tokens_out_of_range", "seconds"):
        np.testing.assert_array_equal(getattr(filled, name), getattr(read, name))
    assert filled.problems == read.problems == {3: "broken"}
    assert (read.stored.sum(), read.part.max()) == (13, 3)

"""`sar-eval compare` of a square and a rectangle: other pictures, whose noise is not the same."""

import json
from collections.abc import Callable
from pathlib import Path

from sar_eval.types import DrawProtocol, Prompt
from tests.stored_runs import scored_run

PROMPTS = [Prompt(f"p{n}", f"text {n}", tag=f"t{n % 2}") for n in range(8)]
SQUARE, TALL = DrawProtocol("shapes", 96), DrawProtocol("shapes", 96, width=64, height=96)


def _run(path: Path, protocol: DrawProtocol, right: int) -> Path:
    scores = {f"p{n}/{i}": float(n < right) for n in range(8) for i in range(2)}
    return scored_run(path, PROMPTS, scores, protocol=protocol)


def test_rectangle_and_square_are_paired_by_prompt_alone(
    sar_eval_here: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    square, tall, again = (
        _run(tmp_path / name, protocol, right)
        for name, protocol, right in (("square", SQUARE, 3), ("tall", TALL, 6), ("again", TALL, 6))
    )
    code, output = sar_eval_here("compare", square, tall)
    assert code == 2
    assert "resolution is 96 and '64x96': --across protocol" in " ".join(output.split())
    code, output = sar_eval_here("compare", square, tall, "--across", "protocol", "--json")
    assert code == 0, output
    found = json.loads(output[output.index("{") :])
    assert found["pairs"][0]["shares_noise"] is False
    assert any("paired by prompt only" in note for note in found["notes"])
    code, output = sar_eval_here("compare", tall, again, "--json")
    assert json.loads(output[output.index("{") :])["pairs"][0]["shares_noise"] is True


def test_a_baseline_keeps_the_size(
    sar_eval_here: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tall, square = _run(tmp_path / "tall", TALL, 6), _run(tmp_path / "square", SQUARE, 6)
    code, output = sar_eval_here("baseline", "save", tall, "tall.parquet")
    assert code == 0, output
    code, output = sar_eval_here("compare", "tall.parquet", tall, "--json")
    assert json.loads(output[output.index("{") :])["pairs"][0]["shares_noise"] is True
    code, output = sar_eval_here("compare", "tall.parquet", square)
    assert code == 2
    assert "resolution is '64x96' and 96" in " ".join(output.split())

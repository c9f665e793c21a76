"""The loss curve of a training that was killed while it wrote a line."""

from pathlib import Path

from sar_eval.train.curve import trim_curve


def test_a_curve_that_was_cut_off_is_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "loss.jsonl"
    lines = [
        '{"step": 1}',
        "",
        "[" * 9999,
        '{"step": "x"}',
        "5",
        '{"step": 9}',
        '{"step": 2}',
        '{"step": 3, "lo',
    ]
    path.write_text("\n".join(lines))
    trim_curve(path, 5)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'

"""Measures how long mass synthesis takes to open prompt files of many rows, and to read blocks of them.

    python benchmarks/speed/prompt_files.py [--rows 100000000] [--jsonl-rows 10000000] [--folder FOLDER]

Each file is written first, which is not measured, and removed at the end. Then each step runs in a process
of its own: the first start, which reads the whole file for its digest (and a JSONL file's index); a later
start, which has the index of the first; 1,000 blocks of 256 prompts as a worker of one of 100 shares
takes them; and one row near the end, as `sar-eval draw` asks for it. Imports are not counted, and files are
in the disk's cache where the memory allows it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sar_eval.synthesis.prompts import open_prompts

CHUNK = 1_000_000  # rows that are written at a time
BLOCK, SHARES, BLOCKS = 256, 100, 1000
WORDS = 12  # of a prompt
STEPS = ("first start", "later start", "blocks of a share", "one row")


def texts(start: int, stop: int) -> pa.Array:
    """Prompts of some 60 characters that end in their number; as hard to compress as texts are."""
    beginnings = words(start // CHUNK % 4).slice(0, stop - start)
    return pc.binary_join_element_wise(beginnings, pa.array(range(start, stop)).cast(pa.string()), " ")


@cache
def words(seed: int) -> pa.Array:
    """Lines of words whose frequencies fall as those of a language do (Zipf)."""
    random = np.random.default_rng(seed)
    letters = np.frombuffer(b"aaaabcdeeeefghiiiijklmnooopqrsttuuvwxyz", dtype=np.uint8)
    vocabulary = pa.array(["".join(map(chr, random.choice(letters, 3 + n % 7))) for n in range(5000)])
    columns = [vocabulary.take(pa.array(random.zipf(1.3, CHUNK) % 5000)) for _ in range(WORDS)]
    return pc.binary_join_element_wise(*columns, " ")


def chunks(rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows."""
    return ((start, min(rows, start + CHUNK)) for start in range(0, rows, CHUNK))


def write_parquet(path: Path, rows: int, group_rows: int) -> None:
    """Write a Parquet file with a column of texts."""
    schema = pa.schema([("prompt", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start, stop in chunks(rows):
            writer.write_table(pa.table({"prompt": texts(start, stop)}, schema=schema), group_rows)


def write_jsonl(path: Path, rows: int) -> None:
    """Write a file of JSON Lines."""
    with path.open("w") as file:
        for start, stop in chunks(rows):
            file.writelines(f'{{"prompt": "{text}"}}\n' for text in texts(start, stop).to_pylist())


def first_start(path: Path) -> None:
    """Open, read the whole file, and keep its index."""
    source = open_prompts(str(path))
    source.identity()
    _index(path).write_bytes(source.index())


def later_start(path: Path) -> None:
    """Open by the index and read the first block."""
    assert len(open_prompts(str(path), _index(path).read_bytes()).prompts(0, BLOCK)) == BLOCK


def blocks_of_a_share(path: Path) -> None:
    """Read every hundredth block, in order."""
    source = open_prompts(str(path), _index(path).read_bytes())
    for number in range(BLOCKS):
        start = number * SHARES * BLOCK % (len(source) - BLOCK)
        assert len(source.prompts(start, start + BLOCK)) == BLOCK


def one_row(path: Path) -> None:
    """Read the last row but one."""
    source = open_prompts(str(path), _index(path).read_bytes())
    [prompt] = source.prompts(len(source) - 2, len(source) - 1)
    assert str(len(source) - 2) in getattr(prompt, "text", "")


RUNNERS: dict[str, Callable[[Path], None]] = dict(
    zip(STEPS, (first_start, later_start, blocks_of_a_share, one_row), strict=True)
)


def _index(path: Path) -> Path:
    return path.with_suffix(".index")


def measure(step: str, path: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak MB of a step, in a process of its own."""
    words = [sys.executable, __file__, "--step", step, "--file", str(path)]
    return dict(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def _run_step(step: str, path: Path) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    RUNNERS[step](path)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    status = Path("/proc/self/status").read_text()  # `getrusage` would count what the parent had
    peak = int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}))


def _table(name: str, path: Path, rows: int) -> Iterator[str]:
    for step in STEPS:
        found = measure(step, path)
        yield (
            f"| {name} | {rows:,} | {path.stat().st_size / 1e9:.2f} | {step} | {found['seconds']:.2f} | "
            f"{found['cpu']:.2f} | {found['peak']:.0f} |"
        )
    yield f"| {name} | {rows:,} | | index | {_index(path).stat().st_size / 1e3:,.0f} kB | | |"


def main() -> None:
    """Write each file, measure, print a table, remove the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--jsonl-rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--file", type=Path)
    asked = parser.parse_args()
    if asked.step:
        _run_step(asked.step, asked.file)
        return
    print(f"{os.cpu_count()} cores\n\n| file | rows | GB | step | seconds | CPU s | peak MB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        parquet, jsonl = Path(folder) / "prompts.parquet", Path(folder) / "prompts.jsonl"
        cases: list[tuple[str, Path, int, Callable[[], None]]] = [
            (
                "Parquet, groups of 1,000,000",
                parquet,
                asked.rows,
                lambda: write_parquet(parquet, asked.rows, CHUNK),
            ),
            (
                "Parquet, groups of 10,000",
                parquet,
                asked.rows,
                lambda: write_parquet(parquet, asked.rows, 10_000),
            ),
            ("JSON Lines", jsonl, asked.jsonl_rows, lambda: write_jsonl(jsonl, asked.jsonl_rows)),
        ]
        for name, path, rows, write in cases:
            write()
            for line in _table(name, path, rows):
                print(line, flush=True)
            path.unlink()


if __name__ == "__main__":
    main()

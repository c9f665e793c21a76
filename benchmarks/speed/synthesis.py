"""What a synthesis costs beside drawing: an engine that does nothing, a million draws.

    python benchmarks/speed/synthesis.py                 a million draws on all cores
    python benchmarks/speed/synthesis.py --draws 20000   a look

Prints milliseconds of a worker per draw, the largest memory of driver and workers, how long a second start
and `synth status` take, and how many objects there are against the number computed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
BEST_OF, BLOCK = 4, 256
POLL_S = 0.2
AT_THE_END = ("spec.json", "prompts.index", "README.md", "funnel.json")  # objects that a set has once


@dataclass
class Memory:
    """The largest resident memory of a process and of its children, in MB."""

    driver: float = 0.0
    worker: float = 0.0
    samples: list[tuple[float, float]] = field(default_factory=list)

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Look at /proc until the process has ended."""
        started = time.monotonic()
        while process.poll() is None:
            resident = {pid: _resident(pid) for pid in _family(process.pid)}
            self.driver = max(self.driver, resident.pop(process.pid, 0.0))
            largest = max(resident.values(), default=0.0)
            self.worker = max(self.worker, largest)
            self.samples.append((time.monotonic() - started, largest))
            time.sleep(POLL_S)

    def worker_at(self, share: float) -> float:
        """The largest worker's memory when a share of the time had passed."""
        return self.samples[min(len(self.samples) - 1, int(share * len(self.samples)))][1]


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, new = [pid], [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found += new
    return found


def _resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS")), 0.0)


def write_prompts(path: Path, rows: int) -> None:
    """Captions of no meaning, in row groups of ten thousand."""
    with pq.ParquetWriter(path, pa.schema([("prompt", pa.string())])) as writer:
        for first in range(0, rows, 10_000):
            captions = [
                f"a picture of thing number {row}" for row in range(first, min(rows, first + 10_000))
            ]
            writer.write_table(pa.table({"prompt": captions}))


def run(command: list[str], memory: Memory | None = None) -> tuple[float, float]:
    """Seconds that a command of sar-eval takes, and CPU seconds, its workers' included."""
    started, before = time.monotonic(), _cpu()
    words = [sys.executable, "-m", "sar_eval", *command]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, text=True) as process:
        if memory is not None:
            watcher = threading.Thread(target=memory.watch, args=(process,))
            watcher.start()
            watcher.join()
        if process.wait():
            raise SystemExit(f"sar-eval {' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - started, _cpu() - before


def _cpu() -> float:
    """CPU seconds of all that has ended below this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.draws // BEST_OF, options.workers)


def measure(folder: Path, rows: int, workers: int) -> None:
    """All figures, for a file of so many prompts."""
    write_prompts(folder / "prompts.parquet", rows)
    out, draws, blocks = folder / "set", rows * BEST_OF, -(-rows // BLOCK)
    synth = [
        *("synth", str(folder / "prompts.parquet"), "--ckpt", "demo:sft", "--out", str(out), "--quiet"),
        *("--engine", f"{HERE / 'null_engine.py'}:ENGINE", "--best-of", str(BEST_OF), "--top", "1"),
        *("--keep", "tokens", "--block-prompts", str(BLOCK), "--workers", str(workers), "--devices", "cpu"),
    ]
    memory = Memory()
    seconds, cpu = run(synth, memory)
    again, status = run(synth), run(["synth", "status", str(out), "--json"])
    files = [path for path in out.rglob("*") if path.is_file()]
    objects, size = len(files), sum(path.stat().st_size for path in files)
    ledgers = -(-blocks // 1000)
    each = f"{seconds * workers * 1e3 / draws:.3f} ms a draw, {cpu * 1e3 / draws:.3f} ms of CPU"
    print(f"{draws:,} draws, {workers} workers: {seconds:.0f} s, {each}")
    print(f"largest memory: driver {memory.driver:.0f} MB, worker {memory.worker:.0f} MB")
    shares = ", ".join(f"{memory.worker_at(share):.0f}" for share in (0.25, 0.5, 0.75))
    print(f"worker at 25 %, 50 %, 75 %: {shares} MB")
    print(f"a second start of the finished set: {again[0]:.1f} s, {again[1]:.1f} s of CPU")
    print(f"`synth status`: {status[0]:.1f} s, {status[1]:.1f} s of CPU")
    computed = 3 * blocks + ledgers + len(AT_THE_END)
    print(f"objects: {objects:,}, computed: 3 x {blocks:,} + {ledgers} + 4 = {computed:,}; {size:,} bytes")


if __name__ == "__main__":
    main()

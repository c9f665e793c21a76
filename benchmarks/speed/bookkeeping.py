"""Measures what sar-eval itself costs on runs of many rows: resume, summary, report, suites, parts.

    python benchmarks/speed/bookkeeping.py [--rows 1000000] [--folder /tmp/bookkeeping] [--out TABLE.md]

A synthetic run is stored by the store's own functions: four images of each prompt, blocks of 64, images
of a few hundred bytes, verdicts with boxes as the demo's judge gives them. Each step then runs in a process
of its own, whose CPU seconds and peak memory are printed: everything, imports included. Image parts are
compared with plain files of the same bytes and the same syncs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sar_eval.runtime.blocks import Blocks
from sar_eval.spec import RunSpec
from sar_eval.storage.manifest import Manifest
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row, image_digest, verdict_row
from sar_eval.suites.prompts import load_suite
from sar_eval.types import DrawProtocol, Generation, Prompt, Verdict

BEFORE = """Printed by `benchmarks/speed/bookkeeping.py`. Version 0.1.0, on one busy core: resume 113 and
129 CPU-seconds, summary 245 and 4.8 GB, a report of 100,000 images 55 and a page of 72 MB,
suites 40 to 51 and 3 GB, parts of large images 47 MB/s, and one block's part found in 19 ms
among 15,625. The share of plain files varies with the disk's cache, from 73 to 87 % over five
runs on this machine."""
EACH, BLOCK = 4, 64
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
BOX = {"name": "red circle", "box": [3.0, 4.0, 20.0, 24.0], "score": 0.98}
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2
LARGE_IMAGE = 1_400_000  # bytes of a PNG of 1024x1024 pixels


def make_prompts(number: int) -> Iterator[Prompt]:
    """Prompts of six tasks, two splits."""
    for i in range(number):
        task = TASKS[i % len(TASKS)]
        yield Prompt(
            f"{task}-{i:07d}", f"a red circle and {i} blue squares", task, split=("seen", "unseen")[i % 2]
        )


def make_run(
    path: Path, rows: int, seed: int = 0, score: Callable[[random.Random], float] | None = None
) -> None:
    """A finished and judged run; without `score`, images are right or wrong."""
    prompts = rows // EACH
    spec = RunSpec(
        "shapes",
        "shapes",
        "none",
        "0",
        "demo:sft",
        "0",
        DrawProtocol("shapes", 64),
        judge="shapes",
        judge_version="1",
        batch_size=BLOCK,
    )
    folder = RunFolder(path)
    stored = folder.write_prompts(make_prompts(prompts))
    folder.write_manifest(Manifest(spec=spec.to_json(), digest=spec.digest, prompts=stored))
    rng = random.Random(seed)
    for number, draws in enumerate(Blocks.of(folder.prompts(), spec)):
        made_by = {"engine": "native", "device": "cpu", "wave_size": BLOCK}
        made = [
            Generation(d.key, d.seed, (1,) * 64, IMAGE, 0.1, provenance=made_by, steps=64) for d in draws
        ]
        rows_ = [generation_row(d.prompt, g, spec.digest) for d, g in zip(draws, made, strict=True)]
        part = folder.write_generations(number, rows_, spec.digest)
        verdicts = []
        for row in rows_:
            passed = rng.random() < 0.6
            evidence = {"boxes": [BOX] * 3}
            value = float(passed) if score is None else score(rng)
            verdict = Verdict(row["key"], "shapes", "1", value, passed, "", evidence)
            verdicts.append(verdict_row(verdict, spec.judge_digest, image_digest(IMAGE)))
        folder.write_verdicts("shapes", number, verdicts, spec.judge_digest, part)


def open_run(path: Path) -> tuple[RunSpec, RunFolder]:
    """A run folder and its spec."""
    folder = RunFolder(path)
    return RunSpec.from_json(folder.read_manifest().spec), folder


# Steps, each run in a process of its own.


def resume_generate(path: Path) -> None:
    """`generate` again, with nothing left to draw."""
    from sar_eval.runtime.local import LocalRuntime
    from sar_eval.stages.generate import generate

    generate(*open_run(path / "run"), LocalRuntime([]))


def resume_judge(path: Path) -> None:
    """`judge` again, with nothing left to judge."""
    from sar_eval.runtime.local import LocalRuntime
    from sar_eval.stages.judge import judge

    judge(*open_run(path / "run"), LocalRuntime([]))


def summary(path: Path) -> None:
    """The fold of all verdicts."""
    from sar_eval.stages.summarize import summarize

    print(summarize(*open_run(path / "run")).metrics[0], file=sys.stderr)


def report(path: Path) -> None:
    """The report page and its data."""
    from sar_eval.report.page import write_report

    write_report(*open_run(path / "run"))


def suite(suffix: str) -> Callable[[Path], None]:
    """A step that loads a suite."""
    return lambda path: print(len(load_suite(path / f"suite.{suffix}").prompts), file=sys.stderr)


def start_many(path: Path) -> None:
    """Begin a run over a hundred million prompts: until a worker could draw a block in the middle."""
    from sar_eval.runtime.progress import no_progress
    from sar_eval.stages.generate import undrawn_blocks
    from sar_eval.stages.resume import open_blocks, prepare

    loaded = load_suite(path / "many.parquet")
    spec = open_run(path / "run")[0]
    spec = replace(spec, suite=str(path / "many.parquet"), suite_digest=loaded.digest, images_per_prompt=1)
    shutil.rmtree(path / "many", ignore_errors=True)
    folder = RunFolder(path / "many")
    folder.path.mkdir()
    prepare(spec, folder)
    blocks = open_blocks(spec, folder)
    todo = undrawn_blocks("generate", spec, folder, blocks, no_progress, "made")
    print(len(todo), blocks[todo[len(todo) // 2]][0].prompt, file=sys.stderr)


def nothing(path: Path) -> None:
    """What importing the stages costs, which is in every other row too."""
    del path
    import sar_eval.stages.generate  # noqa: F401


STEPS: dict[str, Callable[[Path], None]] = {
    "imports alone": nothing,
    "resume generate, all done": resume_generate,
    "resume judge, all done": resume_judge,
    "summarize": summary,
    "report": report,
    "load a suite, CSV": suite("csv"),
    "load a suite, JSONL": suite("jsonl"),
    "load a suite, Parquet": suite("parquet"),
    "first block of 100,000,000 prompts": start_many,
}


def write_suites(path: Path, rows: int) -> None:
    """The same prompts in three formats."""
    import pandas as pd

    prompts = list(make_prompts(rows))
    frame = pd.DataFrame({name: [getattr(p, name) for p in prompts] for name in ("id", "text", "tag")})
    frame.to_csv(path / "suite.csv", index=False)
    frame.to_json(path / "suite.jsonl", orient="records", lines=True)
    frame.to_parquet(path / "suite.parquet")
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path / "many.parquet", pa.schema([("prompt", pa.string())])) as writer:
        for _ in range(100):
            numbers = rng.integers(0, 4000, 1_000_000).astype(str)
            writer.write_table(pa.table({"prompt": np.char.add("a red circle and ring number ", numbers)}))


def measure(step: str, path: Path, script: str = __file__) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of a step of a script."""
    command = [sys.executable, script, "--step", step, "--folder", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, kilobytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, kilobytes / 1024


def run_step(step: Callable[[Path], None], path: Path) -> None:
    """Run a step in this process and print what it cost."""
    step(path)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([used.ru_utime + used.ru_stime, peak_memory()]))


def peak_memory() -> int:
    """In kB. Of this process alone: `ru_maxrss` begins with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def measure_image_parts(path: Path, blocks: int = 15) -> str:
    """Parts of large images against plain files of the same bytes."""
    spec, rng = open_run(path / "run")[0], random.Random(1)
    images = [rng.randbytes(LARGE_IMAGE) for _ in range(BLOCK)]
    prompts = list(make_prompts(BLOCK))
    rows = [
        generation_row(p, Generation(f"{p.id}/0", 0, (1,) * 4096, image), spec.digest)
        for p, image in zip(prompts, images, strict=True)
    ]
    one = b"".join(images)
    writers: dict[str, Callable[[Path], object]] = {
        "parts": lambda folder: RunFolder(folder).write_generations(0, rows, spec.digest),
        "files": lambda folder: write_plainly(folder, images),
        "one file": lambda folder: write_plainly(folder, [one]),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in writers}
    for number in range(blocks):
        for kind in (list(writers), list(writers)[::-1])[number % 2]:  # which is first changes
            with tempfile.TemporaryDirectory(dir=path) as target:
                start = time.perf_counter()
                writers[kind](Path(target))
                seconds[kind].append(time.perf_counter() - start)
    speed = {kind: BLOCK * LARGE_IMAGE / 1e6 / median(took) for kind, took in seconds.items()}
    shares = {kind: f"{speed['parts'] / speed[kind]:.0%}" for kind in writers}
    return (
        f"| parts of 64 images of 1.4 MB | {speed['parts']:.0f} MB/s: {shares['files']} of 64 plain files, "
        f"each synced ({speed['files']:.0f}); {shares['one file']} of one file ({speed['one file']:.0f}) |"
    )


def write_plainly(folder: Path, contents: Sequence[bytes]) -> None:
    """Plain files, synced as a part is: each file, then the folder."""
    for number, data in enumerate(contents):
        with (folder / f"{number}.png").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def measure_one_block(path: Path) -> str:
    """Reading and writing one block of the large run, and of a run of ten blocks."""
    spec, folder = open_run(path / "run")
    small = RunFolder(path / "small")
    shutil.rmtree(small.path, ignore_errors=True)
    make_run(small.path, 10 * BLOCK)
    last = max(folder.generations.parts())
    cost = {}
    for name, target, block in (("small", small, 9), ("large", folder, last)):
        rows = target.generations.read_block(block)
        start = time.process_time()
        for _ in range(20):
            target.generations.read_block(block, ["key", "error"])
            target.write_generations(block, rows, spec.digest)
        cost[name] = (time.process_time() - start) / 20 * 1000
    return (
        f"| read and write one block, CPU | {cost['large']:.1f} ms among {last + 1:,} blocks, "
        f"{cost['small']:.1f} ms among 10 |"
    )


def main() -> None:
    """Measure all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bookkeeping")
    parser.add_argument("--step", choices=list(STEPS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(STEPS[arguments.step], arguments.folder)
        return
    path = arguments.folder / str(arguments.rows)
    if not (path / "suite.parquet").exists():
        path.mkdir(parents=True, exist_ok=True)
        make_run(path / "run", arguments.rows)
        write_suites(path, arguments.rows)
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}; {arguments.rows:,} rows.",
        "",
        "| step | CPU seconds | peak memory, MB |",
        "|---|---:|---:|",
    ]
    for step in STEPS:
        seconds, megabytes = measure(step, path)
        lines.append(f"| {step} | {seconds:.1f} | {megabytes:.0f} |")
        print(lines[-1], flush=True)
    page = path / "run" / "report.html"
    beside = sum(
        file.stat().st_size for file in (path / "run" / "report_assets").rglob("*") if file.is_file()
    )
    lines += ["", "| | |", "|---|---|"]
    lines.append(
        f"| page of the report | {page.stat().st_size / 1e6:.1f} MB, {beside / 1e6:.0f} MB beside it |"
    )
    lines += [measure_image_parts(path), measure_one_block(path)]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(["# Bookkeeping", "", *lines, "", BEFORE, ""]))


if __name__ == "__main__":
    main()

"""Measures how many rows training reads in a second, beside reading the Parquet alone, and its memory.

    python benchmarks/speed/loader.py [--rows 1000000] [--side 32] [--batch 64] [--limit 200000]

One shard of 50,000 rows is written, as `train tokenize` writes them, and linked under further names until
there are enough rows; so files are in the disk's cache. Each measurement runs in a process of its own:
row groups in the order of the files, read by pyarrow; the shuffled stream's rows; and micro-batches
without captions, and with captions turned into ids by byte-pair encoding. At most `--limit` rows are read.
Seconds are of processor time on one core, so that other work on the machine does not count. Memory is the
process's largest; beside it what imports took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sar_eval.train.batches import MicroBatches, TextIds
from sar_eval.train.token_stream import TokenStream, WeightedPlace

SHARD, GROUP, CODES, WORDS = 50_000, 1_000, 64_000, 40
WINDOW = 16_384


def captions(rows: int) -> list[str]:
    """Captions of some 40 words whose frequencies fall as those of a language do (Zipf)."""
    random = np.random.default_rng(1)
    letters = np.frombuffer(b"aaaabcdeeeefghiiiijklmnooopqrsttuuvwxyz", np.uint8)
    vocabulary = ["".join(map(chr, random.choice(letters, 3 + n % 7))) for n in range(5000)]
    chosen = random.zipf(1.3, (rows, WORDS)) % 5000
    return [" ".join(vocabulary[word] for word in row) for row in chosen]


def write(folder: Path, rows: int, side: int) -> None:
    """Shards of pictures of `side` x `side` tokens, and the text tokenizer."""
    length, number = side * side, min(rows, SHARD)
    texts = captions(number)
    codes = np.random.default_rng(0).integers(0, CODES, number * length, np.uint16)
    starts = np.arange(number + 1, dtype=np.int32)
    table = pa.table(
        {
            "tokens": pa.ListArray.from_arrays(starts * length, codes),
            "captions": pa.ListArray.from_arrays(starts, pa.array(texts)),
            "height": pa.array(np.full(number, side, np.uint16)),
            "width": pa.array(np.full(number, side, np.uint16)),
            "key": pa.array([f"pictures/{n:09d}.jpg" for n in range(number)]),
        },
        metadata={"codebook_size": str(CODES), "encoder": "0" * 16},
    )
    first = folder / "shard-00000.parquet"
    pq.write_table(table, first, row_group_size=GROUP)
    for shard in range(1, -(-rows // SHARD)):
        (folder / f"shard-{shard:05d}.parquet").symlink_to(first)
    write_tokenizer(texts).save(str(folder / "tokenizer.json"))


def write_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-pair encoding with 8,000 words, fitted on the captions."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|t2i|>", "<|soi|>"]
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=special, show_progress=False)
    made.train_from_iterator(texts[:5000], trainer)
    return made


def parquet(folder: Path, limit: int, batch: int) -> int:  # noqa: ARG001
    """Rows read to Arrow's arrays."""
    rows = 0
    for path in sorted(folder.glob("shard-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows += len(file.read_row_group(group, use_threads=False))
                if rows >= limit:
                    return rows
    return rows


def opened(folder: Path, dropout: float = 0.1) -> TokenStream:
    """The shards as training reads them."""
    return TokenStream([WeightedPlace(folder)], seed=0, window=WINDOW, caption_dropout=dropout)


def stream(folder: Path, limit: int, batch: int) -> int:
    """Rows of the stream."""
    found, rows = opened(folder), 0
    limit = min(limit, found.rows_an_epoch)
    for start in range(0, limit, batch):
        rows += len(found.rows(start, start + batch))
    return rows


def micro_batches(folder: Path, limit: int, batch: int, dropout: float) -> int:
    """Rows of the steps of one rank."""
    found, text = opened(folder, dropout), TextIds(Tokenizer.from_file(str(folder / "tokenizer.json")))
    steps = min(limit, found.rows_an_epoch) // batch
    how = {"rank": 0, "ranks": 1, "batch_size": batch, "micro": batch, "first_step": 0, "steps": steps}
    return sum(len(made["keys"]) for made in MicroBatches(found, text, **how))


KINDS: dict[str, Callable[[Path, int, int], int]] = {
    "Parquet alone": parquet,
    "stream": stream,
    "micro-batches, no captions": partial(micro_batches, dropout=1.0),
    "micro-batches": partial(micro_batches, dropout=0.1),
}


def megabytes() -> int:
    """Most memory that this process ever had; `getrusage` would give that of the parent, too."""
    [line] = [text for text in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in text]
    return int(line.split()[1]) // 1024


def measure(kind: str, folder: Path, limit: int, batch: int) -> dict[str, float]:
    """Rows a second, and memory in MB."""
    torch.set_num_threads(1)
    imported, began = megabytes(), time.process_time()
    rows = KINDS[kind](folder, limit, batch)
    seconds = time.process_time() - began
    return {"rows": rows, "rows_per_s": rows / seconds, "imports": imported, "most": megabytes()}


def lines(folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """The table, as it grows."""
    yield "| | rows read | rows/s | of Parquet alone | after imports, MB | at most, MB |"
    yield "|---|---|---|---|---|---|"
    alone = 0.0
    for kind in KINDS:
        words = [kind, str(folder), str(arguments.limit), str(arguments.batch)]
        called = [sys.executable, __file__, "--measure", *words]
        done = subprocess.run(called, check=True, stdout=subprocess.PIPE)
        found = json.loads(done.stdout)
        alone = alone or found["rows_per_s"]
        share = found["rows_per_s"] / alone
        speed, memory = f"{found['rows_per_s']:,.0f} | {share:.2f}", f"{found['imports']} | {found['most']}"
        yield f"| {kind} | {found['rows']:,} | {speed} | {memory} |"


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=32, help="tokens along a side of a picture")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--limit", type=int, default=200_000, help="rows that are read at most")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, folder, limit, batch = arguments.measure
        print(json.dumps(measure(kind, Path(folder), int(limit), int(batch))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.rows, arguments.side)
        for line in lines(Path(folder), arguments):
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""Measures `synth dedup`: finding near hashes among millions, comparing embeddings, reading manifests.

    python benchmarks/speed/dedup.py [--hashes 1e6 1e7] [--embeddings 20000] [--manifest-rows 400000]

Hashes are random, but a tenth are copies of others with up to three bits turned, and a twentieth lie in
crowds of some 1,000 with up to eight bits turned, as pictures of one kind do. Each size runs in a process
of its own, whose peak memory is printed. The two largest are extrapolated to 1e8 hashes. Seconds are of
processor time: all of it but the products of embeddings runs in one thread.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from sar_eval.storage.image_set import ImageSet, object_name
from sar_eval.storage.objects import open_store
from sar_eval.storage.set_dedup import read_kept
from sar_eval.storage.set_objects import manifest_object
from sar_eval.storage.set_rows import BlockRecord, ManifestRow
from sar_eval.synthesis.keep_first import repeats_of_near_hashes
from sar_eval.synthesis.near_embeddings import near_embeddings

WIDTH = 768  # of an embedding of CLIP ViT-L/14
BLOCK = 1024  # draws of a manifest object
FAR = 100_000_000  # hashes that are extrapolated to


def some_hashes(count: int) -> NDArray[np.uint64]:
    """Random ones, near copies and crowds, shuffled by being drawn at random."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    for share, centres, turns in ((10, count // 2, 3), (20, count // 20_000 + 1, 8)):
        places = random.integers(0, count, count // share)
        hashes[places] = hashes[random.integers(0, centres, len(places))]
        for _ in range(turns):
            hashes[places] ^= np.uint64(1) << random.integers(0, 64, len(places), dtype=np.uint64)
    return hashes


def find_near(count: int, distance: int) -> str:
    """Seconds and peak memory of one size."""
    hashes = some_hashes(count)
    before = peak()
    begun = time.process_time()
    repeats = repeats_of_near_hashes(hashes, distance)
    seconds = time.process_time() - begun
    gone = int((repeats != np.arange(count)).sum())
    memory = f"peak {peak()} MB ({before} before)"
    return f"{count} hashes, distance {distance}: {seconds:.1f} s, {gone} go, {memory}"


def compare_embeddings(count: int) -> str:
    """Seconds of all products of so many embeddings."""
    vectors = np.random.default_rng(0).normal(size=(count, WIDTH)).astype(np.float32)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    list(near_embeddings(unit[:2], 0.97))  # imports torch
    begun = time.process_time()
    pairs = sum(len(left) for left, _ in near_embeddings(unit, 0.97))
    seconds = time.process_time() - begun
    million = seconds / count**2 * 1e12
    return f"{count} embeddings of {WIDTH}: {seconds:.1f} s, {pairs} pairs, so {million:.0f} s for 1e6"


def read_manifests(rows: int) -> str:
    """Seconds to read the hashes of so many draws, half of them kept, from a store in memory."""
    store = open_store("memory://dedup-benchmark")
    ImageSet(store).begin({"format": 1})
    for block in range(rows // BLOCK):
        fates = ("kept", "outranked") * (BLOCK // 2)
        draws = [
            ManifestRow(block * BLOCK + n, 0, "p", n, fate, pixels=bytes(16), phash=n)
            for n, fate in enumerate(fates)
        ]
        data = manifest_object(draws, [])
        name = object_name("manifest", block, data, ".parquet")
        fates_of = {"kept": BLOCK // 2, "outranked": BLOCK // 2}
        ImageSet(store).commit(
            BlockRecord(block, 0, "", name, BLOCK, BLOCK, 0, len(data), fates_of), b"", data
        )
    begun = time.process_time()
    found = read_kept(store, "phash", lambda done, of: None)
    seconds = time.process_time() - begun
    return f"{rows} draws in {rows // BLOCK} manifests: {seconds:.1f} s, {len(found.keys)} kept"


def peak() -> int:
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def alone(*words: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    print(done.stdout, end="", flush=True)
    return done.stdout


def extrapolated(times: dict[int, float]) -> str:
    """Seconds at `FAR` by the growth between the two largest sizes, at least n log n."""
    (small, fast), (large, slow) = sorted(times.items())[-2:]
    power = max(math.log(slow / fast) / math.log(large / small), 1.0)
    return f"{FAR} hashes by the power {power:.2f} of their number: {slow * (FAR / large) ** power:.0f} s"


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hashes", nargs="*", type=float, default=[1e6, 1e7])
    parser.add_argument("--distance", type=int, default=3)
    parser.add_argument("--embeddings", type=int, default=20_000)
    parser.add_argument("--manifest-rows", type=int, default=400_000)
    parser.add_argument("--one", type=int, help="measure this many hashes, in this process")
    asked = parser.parse_args()
    if asked.one:
        print(find_near(asked.one, asked.distance))
        return
    times = {}
    for count in map(int, asked.hashes):
        line = alone("--one", str(count), "--distance", str(asked.distance))
        times[count] = float(line.split(": ")[1].split(" s")[0])
    if len(times) > 1 and max(times) < FAR:
        print(extrapolated(times))
    print(read_manifests(asked.manifest_rows))
    print(compare_embeddings(asked.embeddings))


if __name__ == "__main__":
    main()

"""Cost of encoding an image: PNG by compression level and lossless WebP, in bytes and milliseconds.

    python benchmarks/speed/encode_images.py [--size 1024] [IMAGE ...]

Without images a synthetic one is measured: smooth shades with a little grain, about as hard to compress as
a photograph. All encoders are measured round by round, so that noise on the machine affects them alike.
"""

import argparse
import datetime
import io
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sar_eval.decoding.encode_images import encode

ROUNDS = 5


def synthetic_image(size: int) -> NDArray[np.uint8]:
    """Waves of different lengths in three channels, with grain."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(7 * x + 3 * y), np.cos(11 * x * y), np.sin(5 * (x - y) ** 2 + 2 * y)]
    grain = np.random.default_rng(0).normal(0, 1.5, (size, size, 3))
    return (np.stack(waves, -1) * 90 + 128 + grain).clip(0, 255).astype(np.uint8)


def png(pixels: NDArray[np.uint8], level: int) -> bytes:
    """Encode as PNG with a compression level."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def webp(pixels: NDArray[np.uint8], quality: int, method: int) -> bytes:
    """Encode as lossless WebP with an effort."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=quality, method=method, exact=True)
    return buffer.getvalue()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    images = [np.asarray(Image.open(path).convert("RGB")) for path in options.images]
    images = images or [synthetic_image(options.size)]
    encoders = {f"PNG level {level}": (lambda p, n=level: png(p, n)) for level in (0, 1, 2, 3, 4, 6, 9)}
    encoders |= {
        f"WebP quality {q} method {m}": (lambda p, q=q, m=m: webp(p, q, m))
        for q, m in ((0, 0), (20, 0), (50, 2))
    }
    encoders |= {"ours, png": lambda p: encode(p, "png"), "ours, webp": lambda p: encode(p, "webp")}
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    sizes = dict.fromkeys(encoders, 0)
    for _ in range(ROUNDS):
        for name, encoder in encoders.items():
            started = time.perf_counter()
            sizes[name] = sum(len(encoder(image)) for image in images)
            seconds[name].append((time.perf_counter() - started) / len(images))
    base = statistics.median(seconds["PNG level 6"])
    raw = sum(image.size for image in images)
    print(f"{datetime.date.today()}, {platform.processor() or 'CPU'}, one thread; {' '.join(sys.argv)}\n")
    print("| way | ms an image | ratio to level 6 | bytes of raw |\n| --- | --- | --- | --- |")
    for name in encoders:
        median = statistics.median(seconds[name])
        print(f"| {name} | {median * 1e3:.0f} | {base / median:.1f}x | {sizes[name] / raw:.1%} |")


if __name__ == "__main__":
    main()

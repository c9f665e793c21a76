"""HPSv2's benchmark prompts as a suite, and the figures that its script makes of their scores.

The official files are `anime.json`, `concept-art.json`, `paintings.json` and `photo.json`, each a list of
prompts; a picture of prompt n of a style is `STYLE/0000n.jpg`. Its id here is `STYLE-0000n`.
Reimplemented from the behaviour of `hpsv2/evaluation.py` in https://github.com/tgxs002/HPSv2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sar_eval.documents import read_json, shorten
from sar_eval.errors import BadInput
from sar_eval.suites.source import ImportedSuite, official_file
from sar_eval.types import Json, Prompt

STYLES = ("anime", "concept-art", "paintings", "photo")
OFFICIAL_PROMPTS = 3200
EACH = 800  # prompts of a style
CHUNK = 80  # pictures whose scores the script averages first


def import_suite(source: Path) -> ImportedSuite:
    """The prompts of the folder with the four official files, in the order of `STYLES`.

    Raises:
        BadInput: a file is missing, or is no list of texts.
    """
    if not source.is_dir():
        raise BadInput(f"{source} is no folder: give that with {', '.join(f'{s}.json' for s in STYLES)}")
    prompts, notes = [], []
    for style in STYLES:
        path = official_file(source, f"{style}.json")
        texts = _texts(read_json(path), path)
        prompts += [Prompt(f"{style}-{n:05d}", text, style) for n, text in enumerate(texts)]
        if len(texts) != EACH:
            notes.append(f"{path}: {len(texts)} prompts, officially {EACH}")
    return ImportedSuite(prompts, tuple(notes))


def _texts(data: Json, path: Path) -> list[str]:
    if not isinstance(data, list) or not data:
        raise BadInput(f"{path} must be a list of prompts, not {shorten(data)}")
    for number, text in enumerate(data):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{path}: prompt {number} must be text, not {shorten(text)}")
    return data


def chunk_weights(number: int) -> list[float]:
    """What each of a style's pictures, in order, weighs in the mean of the chunks' means.

    The mean of the chunks' means is the mean by these weights: 1 in a whole chunk, more in a last one that
    is shorter.
    """
    sizes = [min(CHUNK, number - start) for start in range(0, number, CHUNK)]
    return [CHUNK / size for size in sizes for _ in range(size)]


def chunk_spread(scores: Sequence[float]) -> float:
    """The population standard deviation of the chunks' means, which the script prints behind the mean.

    It is no error of the mean: chunks are consecutive prompts.
    """
    chunks = [scores[start : start + CHUNK] for start in range(0, len(scores), CHUNK)]
    means = [math.fsum(chunk) / len(chunk) for chunk in chunks]
    centre = math.fsum(means) / len(means)
    return math.sqrt(math.fsum((mean - centre) ** 2 for mean in means) / len(means))

"""GenEval's prompt sampler, reimplemented from the behaviour of the official `prompts/create_prompts.py`.

(Ghosh et al., arXiv 2310.11513; https://github.com/djghosh13/geneval, MIT.) The order of the
random calls is the official one, so seed 43 with 100 prompts per task gives the official 553.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from sar_eval.errors import BadInput
from sar_eval.suites.geneval.vocabulary import CLASSES, COLORS, NUMBERS, RELATIONS
from sar_eval.types import Json

OFFICIAL_SEED, OFFICIAL_PER_TASK = 43, 100
# Of the official `evaluation_metadata.jsonl`.
OFFICIAL_SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"


def make_metadata(seed: int = OFFICIAL_SEED, per_task: int = OFFICIAL_PER_TASK) -> list[Json]:
    """Sample the suite as GenEval's metadata: 80 single objects, then `per_task` of the other five tasks.

    Duplicates are dropped, so there can be fewer.

    Raises:
        BadInput: the official seed and size do not give the official prompts with this numpy.
    """
    rng = np.random.default_rng(seed)
    rows = [_row("single_object", [_object(i)]) for i in _sample_classes(rng, len(CLASSES))]
    for sample in (_two_object, _counting, _colors, _position, _color_attr):
        rows += [sample(rng) for _ in range(per_task)]
    unique = list({json.dumps(row): row for row in rows}.values())
    if (seed, per_task) == (OFFICIAL_SEED, OFFICIAL_PER_TASK):
        _check_official(unique)
    return unique


def to_lines(metadata: Sequence[Json]) -> bytes:
    """The contents of an `evaluation_metadata.jsonl`."""
    return "".join(json.dumps(row) + "\n" for row in metadata).encode()


def make_suite(seed: int = OFFICIAL_SEED, per_task: int = OFFICIAL_PER_TASK) -> list[Json]:
    """Sample the suite as sar-eval's prompts: ids are the official folder names, `checks` the metadata.

    Raises:
        BadInput: see `make_metadata`.
    """
    return [
        {"id": f"{i:05d}", "text": row["prompt"], "tag": row["tag"], "checks": row}
        for i, row in enumerate(make_metadata(seed, per_task))
    ]


def _check_official(metadata: Sequence[Json]) -> None:
    sha256 = hashlib.sha256(to_lines(metadata)).hexdigest()
    if sha256 != OFFICIAL_SHA256:
        raise BadInput(
            f"numpy {np.__version__} samples other prompts than GenEval's official ones "
            f"(SHA-256 {sha256[:16]}, not {OFFICIAL_SHA256[:16]}): its random stream differs. "
            "numpy 2.2 to 2.4 sample them; the official suite ships with sar-eval as prompts/geneval.jsonl"
        )


def _sample_classes(rng: np.random.Generator, size: int) -> list[int]:
    return [int(i) for i in rng.choice(len(CLASSES), size=size, replace=False)]


def _object(label: int, count: int = 1) -> Json:
    return {"class": CLASSES[label], "count": count}


def _row(tag: str, include: Sequence[Json], phrase: str = "", exclude: Sequence[Json] = ()) -> Json:
    row: Json = {"tag": tag, "include": list(include)}
    if exclude:
        row["exclude"] = list(exclude)
    row["prompt"] = f"a photo of {phrase or _with_article(include[0]['class'])}"
    return row


def _two_object(rng: np.random.Generator) -> Json:
    a, b = _sample_classes(rng, 2)
    phrase = f"{_with_article(CLASSES[a])} and {_with_article(CLASSES[b])}"
    return _row("two_object", [_object(a), _object(b)], phrase)


def _counting(rng: np.random.Generator) -> Json:
    label = int(rng.choice(len(CLASSES)))
    count = int(rng.integers(2, 4, endpoint=True))
    name = CLASSES[label]
    phrase = f"{NUMBERS[count]} {name}{'es' if name.endswith('s') else 's'}"
    return _row("counting", [_object(label, count)], phrase, [_object(label, count + 1)])


def _colors(rng: np.random.Generator) -> Json:
    label = _skip_person(int(rng.choice(len(CLASSES) - 1)))
    color = COLORS[int(rng.choice(len(COLORS)))]
    return _row("colors", [_object(label) | {"color": color}], f"{_with_article(color)} {CLASSES[label]}")


def _position(rng: np.random.Generator) -> Json:
    a, b = _sample_classes(rng, 2)
    relation = RELATIONS[int(rng.choice(len(RELATIONS)))]
    phrase = f"{_with_article(CLASSES[a])} {relation} {_with_article(CLASSES[b])}"
    return _row("position", [_object(b), _object(a) | {"position": [relation, 0]}], phrase)


def _color_attr(rng: np.random.Generator) -> Json:
    a, b = (_skip_person(int(i)) for i in rng.choice(len(CLASSES) - 1, size=2, replace=False))
    color_a, color_b = (COLORS[int(i)] for i in rng.choice(len(COLORS), size=2, replace=False))
    phrase = f"{_with_article(color_a)} {CLASSES[a]} and {_with_article(color_b)} {CLASSES[b]}"
    return _row("color_attr", [_object(a) | {"color": color_a}, _object(b) | {"color": color_b}], phrase)


def _skip_person(index: int) -> int:
    """The label of the `index`-th class other than "person", which is never prompted with a colour."""
    return (index + 1 + CLASSES.index("person")) % len(CLASSES)


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"

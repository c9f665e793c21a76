"""GenEval's prompt sampler, written from the behaviour of the official `prompts/create_prompts.py`.

(Ghosh et al., arXiv 2310.11513; https://github.com/djghosh13/geneval, MIT.) The order of the
random calls is the official one, so seed 43 with 100 prompts a task gives the official 553.
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
    """The suite as GenEval's metadata: up to 80 single objects, then `per_task` of five tasks.

    Equal prompts are dropped, so there can be fewer.

    Raises:
        BadInput: the official seed and size do not give the official prompts with this numpy.
    """
    rng = np.random.default_rng(seed)
    rows = [_row("single_object", [_item(i)]) for i in _choose(rng, len(CLASSES))]
    for sample in (_two_object, _counting, _colors, _position, _color_attr):
        rows += [sample(rng) for _ in range(per_task)]
    unique = list({json.dumps(row): row for row in rows}.values())
    if (seed, per_task) == (OFFICIAL_SEED, OFFICIAL_PER_TASK):
        _check_official(unique)
    return unique


def to_lines(metadata: Sequence[Json]) -> bytes:
    """The bytes of an `evaluation_metadata.jsonl`."""
    return "".join(json.dumps(row) + "\n" for row in metadata).encode()


def make_suite(seed: int = OFFICIAL_SEED, per_task: int = OFFICIAL_PER_TASK) -> list[Json]:
    """The suite as sar-eval's prompts: ids are the official folder names, `checks` the metadata.

    Raises:
        BadInput: as `make_metadata`.
    """
    return [
        {"id": f"{i:05d}", "text": row["prompt"], "tag": row["tag"], "checks": row}
        for i, row in enumerate(make_metadata(seed, per_task))
    ]


def _check_official(metadata: Sequence[Json]) -> None:
    found = hashlib.sha256(to_lines(metadata)).hexdigest()
    if found != OFFICIAL_SHA256:
        raise BadInput(
            f"numpy {np.__version__} draws other prompts than GenEval's official ones "
            f"(SHA-256 {found[:16]}, not {OFFICIAL_SHA256[:16]}): its random stream differs. "
            "numpy 2.2 to 2.4 give them; the official suite ships with sar-eval as prompts/geneval.jsonl"
        )


def _choose(rng: np.random.Generator, size: int) -> list[int]:
    return [int(i) for i in rng.choice(len(CLASSES), size=size, replace=False)]


def _item(place: int, count: int = 1) -> Json:
    return {"class": CLASSES[place], "count": count}


def _row(tag: str, include: Sequence[Json], words: str = "", exclude: Sequence[Json] = ()) -> Json:
    row: Json = {"tag": tag, "include": list(include)}
    if exclude:
        row["exclude"] = list(exclude)
    row["prompt"] = f"a photo of {words or _article(include[0]['class'])}"
    return row


def _two_object(rng: np.random.Generator) -> Json:
    a, b = _choose(rng, 2)
    return _row("two_object", [_item(a), _item(b)], f"{_article(CLASSES[a])} and {_article(CLASSES[b])}")


def _counting(rng: np.random.Generator) -> Json:
    place = int(rng.choice(len(CLASSES)))
    count = int(rng.integers(2, 4, endpoint=True))
    name = CLASSES[place]
    words = f"{NUMBERS[count]} {name}{'es' if name.endswith('s') else 's'}"
    return _row("counting", [_item(place, count)], words, [_item(place, count + 1)])


def _colors(rng: np.random.Generator) -> Json:
    place = _beside_person(int(rng.choice(len(CLASSES) - 1)))
    color = COLORS[int(rng.choice(len(COLORS)))]
    return _row("colors", [_item(place) | {"color": color}], f"{_article(color)} {CLASSES[place]}")


def _position(rng: np.random.Generator) -> Json:
    a, b = _choose(rng, 2)
    relation = RELATIONS[int(rng.choice(len(RELATIONS)))]
    words = f"{_article(CLASSES[a])} {relation} {_article(CLASSES[b])}"
    return _row("position", [_item(b), _item(a) | {"position": [relation, 0]}], words)


def _color_attr(rng: np.random.Generator) -> Json:
    a, b = (_beside_person(int(i)) for i in rng.choice(len(CLASSES) - 1, size=2, replace=False))
    one, other = (COLORS[int(i)] for i in rng.choice(len(COLORS), size=2, replace=False))
    words = f"{_article(one)} {CLASSES[a]} and {_article(other)} {CLASSES[b]}"
    return _row("color_attr", [_item(a) | {"color": one}, _item(b) | {"color": other}], words)


def _beside_person(place: int) -> int:
    """The `place`-th class that is no person: people are asked for in no colour."""
    return (place + 1 + CLASSES.index("person")) % len(CLASSES)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

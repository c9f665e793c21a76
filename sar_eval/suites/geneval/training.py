"""Prompts to train on in GenEval's manner: its own sampler goes on, less all that its suite asks for.

GenEval's 553 prompts are the yardstick, so none of them may be trained on, nor the same request in other
words ("a dog and a cat" for "a cat and a dog"). Single objects are missing: the suite has all 80 of them.
"""

from __future__ import annotations

from collections.abc import Hashable

from sar_eval.suites.geneval.suite import OFFICIAL_SEED, make_metadata
from sar_eval.types import Json

PER_TASK = 800  # of which duplicates and the suite's requests are dropped


def make_suite(seed: int = OFFICIAL_SEED, per_task: int = PER_TASK) -> list[Json]:
    """Sample prompts whose `checks` are GenEval's metadata; ids are `train-00000` up.

    Raises:
        BadInput: this numpy's random stream does not give the official suite, which is to be left out.
    """
    suite = {request(row) for row in make_metadata()}
    rows: dict[Hashable, Json] = {}
    for row in make_metadata(seed, per_task):
        rows.setdefault(request(row), row)
    kept = [row for asked, row in rows.items() if asked not in suite]
    return [
        {"id": f"train-{i:05d}", "text": row["prompt"], "tag": row["tag"], "checks": row}
        for i, row in enumerate(kept)
    ]


def request(row: Json) -> Hashable:
    """What a line of GenEval's metadata asks for, the same for every order of its words.

    Objects are counted with their colours; "a cat left of a dog" is "a dog right of a cat".
    """
    if row["tag"] != "position":
        objects = ((item["class"], item["count"], item.get("color", "")) for item in row["include"])
        return tuple(sorted(objects))
    ground, figure = row["include"]
    relation, a, b = figure["position"][0], figure["class"], ground["class"]
    mirrored = {"right of": "left of", "below": "above"}
    return (mirrored[relation], b, a) if relation in mirrored else (relation, a, b)

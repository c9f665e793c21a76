"""Run folders for the tests of the comparing page: verdicts as asked for, no checkpoint and no torch."""

from __future__ import annotations

import numpy as np
from report_runs import begin, encode, make_spec

from sar_eval.report.compare_page import write_comparison
from sar_eval.stages.compare import Allowed, compare
from sar_eval.stages.measure import score_run
from sar_eval.types import Generation, Prompt, Verdict, make_draw

TASKS = ["counting", "colors", "two_object"]
SHADES = [encode(np.full((8, 8, 3), 20 * shade, np.uint8)) for shade in range(10)]


def make_prompts(number, text="a ring, number {}"):
    return [Prompt(f"p{n:04d}", text.format(n), TASKS[n % 3], None, "") for n in range(number)]


def make_judged(path, prompts, verdict_of, *, image_of=None, error_of=lambda key: None, **changes):
    """A run whose verdict on each draw is `verdict_of(row, key)`: keyword arguments of a `Verdict`."""
    run = begin(path, prompts, make_spec(**{"batch_size": 500, **changes}))
    spec = run.spec
    draws = [make_draw(p, i, spec.seed) for p in prompts for i in range(spec.images_per_prompt)]
    for block, start in enumerate(range(0, len(draws), spec.batch_size)):
        items, verdicts = [], []
        for row, draw in enumerate(draws[start : start + spec.batch_size], start):
            error = error_of(draw.key)
            image = None if error else image_of(row) if image_of else SHADES[row % 10]
            items.append((draw.prompt, Generation(draw.key, draw.seed, image=image, error=error)))
            verdict = {"error": error} if error else verdict_of(row, draw.key)
            verdicts.append(Verdict(draw.key, "shapes", "1", **verdict))
        run.store(block, items, verdicts)
    return run


def judged(passed, **rest):
    """Keyword arguments of a verdict that an image is right or wrong."""
    return {"score": float(passed), "passed": passed, **rest}


def compared(*runs, missing=0.0, across=False):
    """The comparison of runs, or of what `score_run` or `read_scored` give."""
    scored = [run if hasattr(run, "measures") else score_run(run.spec, run.folder) for run in runs]
    return compare(scored, [], Allowed(protocol=across, missing=missing)), [one.stored for one in scored]


def write_page(path, *runs, missing=0.0, across=False, **options):
    """The page of a comparison of runs."""
    found, stored = compared(*runs, missing=missing, across=across)
    return write_comparison(found, stored, path, **options)

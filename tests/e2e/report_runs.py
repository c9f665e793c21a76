"""Run folders for the report's tests: real scenes, real verdicts, no checkpoint and no torch."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from sar_eval.judges.shapes import ShapesJudge
from sar_eval.report.page import write_report
from sar_eval.spec import RunSpec
from sar_eval.stages.summarize import summarize
from sar_eval.storage.files import write_json
from sar_eval.storage.run_folder import RunFolder
from sar_eval.storage.schemas import generation_row, verdict_row
from sar_eval.suites.shapes.render import render
from sar_eval.suites.shapes.scenes import arrange_scene, sample_checks
from sar_eval.suites.shapes.suite import make_suite
from sar_eval.types import DrawProtocol, Generation, Prompt, Verdict, make_draw

MALFORMED_BOXES = [
    None,
    {"name": "x"},
    {"name": "y", "box": [0, 0, 9, 9], "mask": {"size": [2, 2], "counts": "a"}},
]
HOSTILE_TEXT = (
    "<script>alert(1)</script></script><img src=x onerror=alert(2)> \"'&amp; {{ 7 * 7 }} of a star"
)


def make_spec(**changes):
    protocol = DrawProtocol("shapes", 64, prefix="a clean ", guidance=3.0)
    options = {"threshold": 0.6, "counting_threshold": 0.6}
    settings = {
        "suite_digest": "0",
        "checkpoint": "demo:sft",
        "checkpoint_digest": "0",
        "protocol": protocol,
    }
    settings |= {"judge": "shapes", "judge_options": options, "images_per_prompt": 2, "batch_size": 16}
    return RunSpec(
        **{"benchmark": "shapes", "fold": "shapes", "suite": "shapes.jsonl", **settings, **changes}
    )


def make_prompts(per_task):
    return [
        Prompt(row["id"], row["text"], row["tag"], row["checks"], row["split"])
        for row in make_suite(per_task=per_task)
    ]


def encode(pixels, size=None):
    sink = io.BytesIO()
    image = Image.fromarray(pixels)
    image = image.resize((size, size), Image.Resampling.NEAREST) if size else image
    image.save(sink, "PNG")
    return sink.getvalue()


def draw_scene(prompt, rng, size=None):
    """An image of the prompt, or (one time in three) of another prompt of its task."""
    while True:
        checks = prompt.checks if rng.random() < 0.67 else sample_checks(prompt.tag, rng)
        scene = arrange_scene(checks, rng, style="grainy" if rng.random() < 0.5 else "clean", train=False)
        if scene is not None:
            return encode(render(scene, np.random.default_rng(rng.randrange(2**32))), size)


@dataclass
class Run:
    """A run folder, and the prompts and verdicts that it was made with."""

    spec: RunSpec
    folder: RunFolder
    prompts: list[Prompt]
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    @property
    def expected(self):
        return {f"{p.id}/{i}": p for p in self.prompts for i in range(self.spec.images_per_prompt)}

    def state(self, key):
        verdict = self.verdicts.get(key)
        return "none" if verdict is None or verdict.passed is None else "pass" if verdict.passed else "fail"

    def keys(self, task=None, state=None, text="", split=None):
        return [
            key
            for key, p in self.expected.items()
            if task in (None, p.tag) and state in (None, self.state(key)) and split in (None, p.split)
            if text in p.text
        ]

    def write(self, **options):
        summarize(self.spec, self.folder, partial=True)
        return write_report(self.spec, self.folder, **options)


def make_run(path, prompts, spec, image_of, error_of=lambda key: None, leave_out=lambda key: False):
    """Store generations and the shapes judge's verdicts block by block, as the stages do."""
    run = Run(spec, RunFolder(path), prompts)
    run.folder.write_prompts(prompts)
    write_json(path / "run.json", {"spec": spec.to_json(), "digest": spec.digest, "git_commit": "0123abc"})
    draws = [make_draw(p, i, spec.seed) for p in prompts for i in range(spec.images_per_prompt)]
    for block in range(0, len(draws), spec.batch_size):
        items = [
            (
                draw.prompt,
                Generation(draw.key, draw.seed, image=image, elapsed_s=0.04, error=error_of(draw.key)),
            )
            for draw in draws[block : block + spec.batch_size]
            if not leave_out(draw.key)
            for image in [None if error_of(draw.key) else image_of(draw)]
        ]
        number = block // spec.batch_size
        run.folder.generations.write(number, [generation_row(p, g, spec.digest) for p, g in items])
        with ShapesJudge(**spec.judge_options) as judge:
            verdicts = list(judge.judge(items))
        run.verdicts |= {verdict.key: verdict for verdict in verdicts}
        rows = [verdict_row(verdict, spec.judge_digest) for verdict in verdicts]
        run.folder.verdicts("shapes").write(number, rows)
    return run

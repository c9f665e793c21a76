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
from sar_eval.storage.manifest import Manifest
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

    def store(self, block, items, verdicts):
        rows = [generation_row(prompt, generation, self.spec.digest) for prompt, generation in items]
        part = self.folder.write_generations(block, rows, self.spec.digest)
        self.store_verdicts(block, verdicts, part)

    def store_verdicts(self, block, verdicts, part=None):
        """Store a block's verdicts, in place of those that are there."""
        part = part or self.folder.generations.part(block)
        self.verdicts |= {verdict.key: verdict for verdict in verdicts}
        keys = self.folder.generations.read(part.path, ["key"]).column("key").to_pylist()
        images = dict(zip(keys, self.folder.generations.image_digests(part, len(keys)), strict=True))
        digest = self.spec.judge_digest
        rows = [verdict_row(verdict, digest, images.get(verdict.key)) for verdict in verdicts]
        self.folder.write_verdicts("shapes", block, rows, digest, part)

    def write(self, **options):
        summarize(self.spec, self.folder, partial=True)
        return write_report(self.spec, self.folder, **options)


def make_run(path, prompts, spec, image_of, error_of=lambda key: None, leave_out=lambda key: False):
    """Store generations and the shapes judge's verdicts block by block, as the stages do."""
    run = begin(path, prompts, spec)
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
        if not items:  # a block that is still to be drawn
            continue
        with ShapesJudge(**spec.judge_options) as judge:
            run.store(block // spec.batch_size, items, list(judge.judge(items)))
    return run


def begin(path, prompts, spec):
    """An empty run folder."""
    run = Run(spec, RunFolder(path), prompts)
    stored = run.folder.write_prompts(prompts)
    run.folder.write_manifest(
        Manifest(spec=spec.to_json(), digest=spec.digest, git_commit="0123abc", prompts=stored)
    )
    return run


def make_large_run(path, prompts, spec, evidence_of=lambda key: None, error_of=lambda key: None):
    """A run of many rows at once: images of one colour, of which every fifth failed."""
    run = begin(path, prompts, spec)
    images = [encode(np.full((8, 8, 3), 20 * shade, np.uint8)) for shade in range(10)]
    draws = [make_draw(p, i, spec.seed) for p in prompts for i in range(spec.images_per_prompt)]
    for number, start in enumerate(range(0, len(draws), spec.batch_size)):
        items, verdicts = [], []
        for row, draw in enumerate(draws[start : start + spec.batch_size], start):
            error = error_of(draw.key)
            image = None if error else images[row % 10]
            items.append((draw.prompt, Generation(draw.key, draw.seed, image=image, error=error)))
            passed = None if error else row % 5 != 0
            reason = f"reason {row}" if passed is False else ""
            evidence = evidence_of(draw.key)
            verdicts.append(Verdict(draw.key, "shapes", "1", None, passed, reason, evidence, error))
        run.store(number, items, verdicts)
    return run

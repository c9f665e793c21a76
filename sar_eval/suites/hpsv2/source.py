"""Where HPSv2's benchmark prompts come from."""

from __future__ import annotations

from sar_eval.suites.hpsv2.suite import OFFICIAL_PROMPTS, STYLES, import_suite
from sar_eval.suites.source import SuiteSource, official

FOLDER = "https://huggingface.co/datasets/ymhao/HPDv2/resolve/main/benchmark"

SOURCE = SuiteSource(
    title="HPSv2's benchmark",
    licence="Apache-2.0",
    files=tuple(
        official("hpsv2", f"{FOLDER}/{style}.json", f"prompts of the style {style}") for style in STYLES
    ),
    convert=import_suite,
    takes="the folder benchmark of HPDv2, or any with its four files",
    prompts=OFFICIAL_PROMPTS,
)

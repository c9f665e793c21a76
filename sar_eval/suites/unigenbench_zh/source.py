"""Where UniGenBench's Chinese prompts come from."""

from __future__ import annotations

from sar_eval.suites.unigenbench.source import make_source

SOURCE = make_source("unigenbench_zh", "zh")

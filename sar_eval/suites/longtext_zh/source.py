"""Where LongText-Bench's Chinese prompts come from."""

from __future__ import annotations

from sar_eval.suites.longtext.source import make_source

SOURCE = make_source("longtext_zh", "zh")

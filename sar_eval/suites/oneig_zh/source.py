"""Where OneIG-Bench's Chinese prompts and questions come from."""

from __future__ import annotations

from sar_eval.suites.oneig.source import alignment_source

SOURCE = alignment_source("oneig_zh", "zh")

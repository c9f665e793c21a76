"""Where OneIG-Bench's English prompts with a text to render come from."""

from __future__ import annotations

from sar_eval.suites.oneig.source import text_source

SOURCE = text_source("oneig_text", "en")

"""Where DSG-1k's prompts and questions come from."""

from __future__ import annotations

from sar_eval.suites.dsg.suite import OFFICIAL_PROMPTS, TABLE, import_suite
from sar_eval.suites.source import SuiteSource, official

COMMIT = "7330119a39f76ff90e619a8bd3ff321e71aa986b"

SOURCE = SuiteSource(
    title="DSG-1k",
    licence="Apache-2.0; prompts come from ten sources with their own terms",
    files=(
        official(
            "dsg",
            f"https://raw.githubusercontent.com/j-min/DSG/{COMMIT}/dsg/data/{TABLE}",
            "DSG-1k's prompts and questions",
        ),
    ),
    convert=import_suite,
    takes=f"DSG's folder dsg/data, or its {TABLE} alone",
    prompts=OFFICIAL_PROMPTS,
)

"""Where GenEval 2's prompts, questions and the judge's text come from."""

from __future__ import annotations

from sar_eval.suites.geneval2.suite import DATA, OFFICIAL_PROMPTS, PROGRAM, import_suite
from sar_eval.suites.source import SuiteSource, official

COMMIT = "a6e82d2289e8d418f27f0adee77908b07060eea3"
BASE = f"https://raw.githubusercontent.com/facebookresearch/GenEval2/{COMMIT}"

SOURCE = SuiteSource(
    title="GenEval 2",
    licence="CC BY-NC 4.0",
    files=(
        official("geneval2", f"{BASE}/{DATA}", "GenEval 2's prompts and questions"),
        official(
            "geneval2", f"{BASE}/{PROGRAM}", "its script, for the end of every question; it is not run"
        ),
    ),
    convert=import_suite,
    takes=f"the official folder, with {DATA} and {PROGRAM}",
    prompts=OFFICIAL_PROMPTS,
)

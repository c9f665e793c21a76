"""Where PairComp's captions and the judge's text come from."""

from __future__ import annotations

from sar_eval.suites.paircomp.suite import DATA, OFFICIAL_PROMPTS, PROGRAM, import_suite
from sar_eval.suites.source import SuiteSource, official

COMMIT = "070155b01ff74c08841721bd001705120e3ef13d"
BASE = f"https://raw.githubusercontent.com/wendell0218/FocusDiff/{COMMIT}/PairComp"

SOURCE = SuiteSource(
    title="PairComp",
    licence="none is published",
    files=(
        official("paircomp", f"{BASE}/{DATA}", "PairComp's pairs of captions", name=DATA),
        official("paircomp", f"{BASE}/{PROGRAM}", "its script, for the judge's question; it is not run"),
    ),
    convert=import_suite,
    takes=f"the official folder PairComp, with {DATA} and {PROGRAM}",
    prompts=OFFICIAL_PROMPTS,
)

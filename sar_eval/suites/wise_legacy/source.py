"""Where the prompts and the judge's texts of WISE as of 2025 come from."""

from __future__ import annotations

from functools import partial

from sar_eval.suites.source import SuiteSource, Template, official
from sar_eval.suites.wise.official import LEGACY, PROMPTS
from sar_eval.suites.wise.rows import import_rows

COMMIT = "117c25efa3d1ef4477649f958a240c32e0d3fea6"  # the last form before WISE Verified
URL = f"https://raw.githubusercontent.com/PKU-YuanGroup/WISE/{COMMIT}"
FILES = (
    "data/cultural_common_sense.json",
    "data/spatio-temporal_reasoning.json",
    "data/natural_science.json",
)
PROGRAM = "gpt_eval.py"
HOLES = {"prompt_data['Prompt']": "prompt", "prompt_data['Explanation']": "explanation"}

SOURCE = SuiteSource(
    title="WISE (legacy)",
    licence="no licence file: fetched, never shipped",
    files=(
        *(official("wise_legacy", f"{URL}/{name}", "WISE's prompts of 2025", name=name) for name in FILES),
        official("wise_legacy", f"{URL}/{PROGRAM}", "the judge's texts", name=PROGRAM),
    ),
    convert=partial(import_rows, files=FILES, form=LEGACY),
    takes="WISE's folder of 2025, with data and gpt_eval.py",
    prompts=PROMPTS,
    templates=(
        Template("system", PROGRAM, "1034e394de55d899eb78e5ad09835de551cefa5bfeb0ba4bf452c83f6285ffc0"),
        Template(
            "user",
            PROGRAM,
            "08b61170ace02a0830e76b815f5920e151c367b487c57ba1ca425de963db326e",
            holes=HOLES,
        ),
    ),
)

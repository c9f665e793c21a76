"""Where the prompts and the judge's texts of WISE Verified come from."""

from __future__ import annotations

from functools import partial

from sar_eval.suites.source import SuiteSource, Template, official
from sar_eval.suites.wise.official import PROMPTS, VERIFIED
from sar_eval.suites.wise.rows import import_rows

COMMIT = "eb51174483a5de2e34e8614cf9dfb3319ee7fcd0"
URL = f"https://raw.githubusercontent.com/PKU-YuanGroup/WISE/{COMMIT}"
FILES = (
    "data_verified/cultural_common_sense_verified.json",
    "data_verified/spatio-temporal_reasoning_verified.json",
    "data_verified/natural_science_verified.json",
)
PROGRAM = "vllm_eval.py"
# Whatever the program calls the row.
HOLES = {
    form.format(row=row, key=key): key.lower()
    for row in ("prompt_data", "item", "row", "data")
    for key in ("Prompt", "Explanation")
    for form in ("{row}['{key}']", "{row}.get('{key}', '')", "{row}.get('{key}')")
}

SOURCE = SuiteSource(
    title="WISE Verified",
    licence="no licence file: fetched, never shipped",
    files=(
        *(official("wise", f"{URL}/{name}", "WISE's verified prompts", name=name) for name in FILES),
        official("wise", f"{URL}/{PROGRAM}", "the judge's texts", name=PROGRAM),
    ),
    convert=partial(import_rows, files=FILES, form=VERIFIED),
    takes="WISE's folder, with data_verified and vllm_eval.py",
    prompts=PROMPTS,
    templates=(
        Template("system", PROGRAM, "c9b9e5e189408801a05c600dfc385addc37bb1ebe9b933c74202ea72eb415f8c"),
        Template(
            "user",
            PROGRAM,
            "ae8ed379b898b441a5ebe7b3b7ba86fee0ac5ab5ac1272bedf12891029cf302c",
            holes=HOLES,
        ),
    ),
)

"""Where DPG-Bench's prompts and questions come from."""

from __future__ import annotations

from sar_eval.suites.dpg.suite import OFFICIAL_PROMPTS, import_suite
from sar_eval.suites.source import SuiteSource
from sar_eval.tensors.remote_file import RemoteFile

SOURCE = SuiteSource(
    title="DPG-Bench",
    licence="Apache-2.0",
    files=(
        RemoteFile(
            "dpg_bench.csv",
            "https://raw.githubusercontent.com/TencentQQGYLab/ELLA/main/dpg_bench/dpg_bench.csv",
            "",  # none is published
            "DPG-Bench's prompts and questions (ELLA)",
            licence="Apache-2.0",
        ),
    ),
    convert=import_suite,
    takes="ELLA's folder dpg_bench, or its CSV alone",
    prompts=OFFICIAL_PROMPTS,
)

"""WISE of 2025: WiScore of consistency, realism, aesthetic quality; weighted mean of six categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure
from sar_eval.suites.wise.figures import measures_of_categories
from sar_eval.suites.wise.official import LEGACY
from sar_eval.types import Prompt, Verdict


class WiseLegacyFold:
    """See `suites.wise.figures`."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, `category/*`, `reference/*`; `bounds/*` and `share/*` if draws have no score."""
        return measures_of_categories(LEGACY, prompts, verdicts)


BENCHMARK = WiseLegacyFold

"""WISE Verified: world knowledge, judged 0 or 1 by a chat model; weighted mean of six categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sar_eval.measures import Measure
from sar_eval.suites.wise.figures import measures_of_categories
from sar_eval.suites.wise.official import VERIFIED
from sar_eval.types import Prompt, Verdict


class WiseFold:
    """See `suites.wise.figures`."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall`, `category/*`, `reference/*`; `bounds/*` and `share/*` if draws have no score."""
        return measures_of_categories(VERIFIED, prompts, verdicts)


BENCHMARK = WiseFold

"""HPSv2: mean human-preference scores times 100, by style and over all pictures.

A verdict's score is the scorer's own number (`--judge score --scorers hps`).
docs/reward-benchmarks.md describes both ways of averaging.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sar_eval.measures import Measure, Stratum, draw_scores, merge, stratum
from sar_eval.suites.hpsv2.suite import chunk_spread, chunk_weights
from sar_eval.types import Prompt, Verdict

SCALE = 100


class HpsFold:
    """Plain means, and what the official script prints."""

    version = "1"

    def fold(self, prompts: Sequence[Prompt], verdicts: Mapping[str, Verdict]) -> tuple[Measure, ...]:
        """`overall` over pictures, `styles` over styles, `style/*`; `reference/style/*` and `..._std`.

        The script's average over all pictures is `overall`. Only scored draws count; the summary reports
        missing ones.
        """
        styles = draw_scores(prompts, verdicts).strata([prompt.tag for prompt in prompts])
        everything = (merge(styles),) if styles else ()
        return (
            _measure("overall", everything),
            _measure("styles", styles),
            *(_measure(f"style/{style.task}", (style,)) for style in styles),
            *(measure for style in styles for measure in _official(style)),
        )


def _measure(name: str, strata: Sequence[Stratum]) -> Measure:
    """Of cosines, which come near no bound."""
    return Measure(name, strata, SCALE, bounds=None)


def _official(style: Stratum) -> Iterator[Measure]:
    """The mean of the means of 80 pictures each, and their spread.

    The script knows one picture of each prompt: here, the first that has a score.
    """
    first = style.starts[:-1]
    scores, indices = style.sums[first].tolist(), style.indices[first].tolist()
    rows = [
        (prompt, index, weight * score, weight)
        for prompt, index, score, weight in zip(
            style.prompts, indices, scores, chunk_weights(len(scores)), strict=True
        )
    ]
    number, spread = len(rows), chunk_spread(scores)
    yield Measure(f"reference/style/{style.task}", (stratum(rows),), SCALE, count=number, bounds=None)
    yield Measure(
        f"reference/style/{style.task}_std",
        (stratum([("", 0, spread, 1.0)]),),
        SCALE,
        count=number,
        is_effect=True,
        has_interval=False,
        bounds=None,
    )


BENCHMARK = HpsFold

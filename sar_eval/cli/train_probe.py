"""What `train grpo --probe` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sar_eval.cli.terminal import console, plain, say

if TYPE_CHECKING:
    from sar_eval.rl.probe import ProbeResult

HEADER = ("reward", "task", "prompts", "mean", "pass", "differ", "expected")
CAPTION = (
    "differ: groups whose rewards are not all the same, which alone teach; expected: the same from "
    "each prompt's rate p of right pictures, 1 - p^G - (1 - p)^G"
)
TEXT_COLUMNS = 2  # at the left


def print_probe(result: ProbeResult, advice: Sequence[str], seconds: float | None = None) -> None:
    """A table of the rewards by task, the sampler in a line, and what to change."""
    from rich.table import Table

    table = Table(
        title=plain(_title(result, seconds), style="table.title"),
        caption=plain(CAPTION, style="table.caption"),
        title_justify="left",
        caption_justify="left",
    )
    for number, name in enumerate(HEADER):
        is_text = number < TEXT_COLUMNS
        table.add_column(plain(name), justify="left" if is_text else "right", no_wrap=not is_text)
    for row in probe_rows(result):
        table.add_row(*map(plain, row))
    console().print(table)
    say(sampler_sentence(result))
    for line in advice:
        say(f"- {line}")


def probe_rows(result: ProbeResult) -> Iterator[tuple[str, ...]]:
    """The cells of the table, in the order of `HEADER`; a single reward is not shown again as the sum."""
    for line in result.lines if len(result.lost) > 1 else result.of(next(iter(result.lost))):
        yield (
            "" if line.tag else line.reward,
            line.tag or "all",
            str(line.prompts),
            "" if math.isnan(line.mean) else f"{line.mean:.3f}",
            _share(line.pass_rate),
            _share(line.varied),
            _share(line.expected),
        )


def sampler_sentence(result: ProbeResult) -> str:
    """How different a prompt's pictures are, and what was lost."""
    nats = "" if result.nats is None else f", {result.nats:.2f} nats a token"
    failed = sum(result.failed.values())
    lost = "".join(f"; {name} lost {share:.0%}" for name, share in result.lost.items() if share)
    return (
        f"pictures of a prompt differ at {_share(result.diversity) or '?'} of their places{nats}; "
        f"{failed} of {result.pictures} draws failed{lost}"
    )


def _title(result: ProbeResult, seconds: float | None) -> str:
    took = "" if seconds is None else f", {seconds:.0f} s"
    return f"{result.pictures} pictures, {result.draws} of a prompt, groups of {result.group}{took}"


def _share(share: float | None) -> str:
    return "" if share is None or math.isnan(share) else f"{share:.0%}"

"""`train select` and `train dpo`: training on pictures of judged runs, without an engine in the loop."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import with_options
from sar_eval.cli.terminal import say
from sar_eval.options import option
from sar_eval.types import Json

if TYPE_CHECKING:
    from sar_eval.train.select import SelectOptions

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders with verdicts.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToSelect:
    """What `train select` is asked for."""

    out: Path = option("The folder to write.", "run", default=MISSING)
    top: int = option("Pictures of each prompt at most: the best.", "run", default=1, low=1, high=100_000)
    min_score: float | None = option("Only pictures of at least this score.", "run")
    by: str = option(
        "Whose score counts: a judge, or scorer/NAME; by default the run's judge.", "run", default=""
    )
    ckpt: list[str] | None = option(
        "Where the checkpoint that drew is now, if not where the run says; may be repeated.", "run"
    )
    train_on_test: bool = option(
        "Take prompts of evaluation suites, too; selection.json then says so.", "run", default=False
    )

    def options(self) -> SelectOptions:
        """As `train.select` takes them."""
        from sar_eval.train.select import SelectOptions

        return SelectOptions(self.top, self.min_score, self.by, self.train_on_test)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(select)


@with_options()
def select(runs: Runs, selecting: HowToSelect) -> None:
    """Write the best pictures of each prompt of judged runs as token shards, for `train sft` (RAFT)."""
    from sar_eval.train.select import select as run

    found = run(runs, selecting.out, selecting.options(), selecting.ckpt or ())
    for name, value in found.facts().items():
        say(f"{name.replace('_', ' '):20s} {_shown(value):>8s}")
    if found.tested:
        say(
            f"warning: {found.tested} prompts are of a test: what is trained on them is no result", err=True
        )
    checkpoint = found.checkpoint
    say(
        f"{len(found.chosen)} rows of tokens in {selecting.out}; next: sar-eval train sft --ckpt "
        f"{checkpoint.name} --data {selecting.out} --tokenizer {checkpoint.visual_folder} --steps N --out DIR"
    )


def _shown(value: Json) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value}"

"""`compare` and `baseline`: which of two checkpoints is better, and is that more than luck."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli import github, session
from sar_eval.cli.gate_options import WhatMayDiffer, WhereCiLooks
from sar_eval.cli.gate_result import write_checked
from sar_eval.cli.options import AsJson, FoldOf, with_options
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput, Incomplete

if TYPE_CHECKING:
    from sar_eval.comparisons import Comparison
    from sar_eval.stages.compare import Allowed
    from sar_eval.stages.measure import ScoredRun

baseline = typer.Typer(help="Baseline files: what comparing with a run needs, small enough to commit.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(compare)
    app.add_typer(baseline, name="baseline")


@with_options(without=["junit"])
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...", help="Run folders, baselines (.parquet), or published:NAME to show beside."
        ),
    ],
    differing: WhatMayDiffer,
    files: WhereCiLooks,
    benchmark: FoldOf = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.html", help="The page. Default: runs/compare/NAMES/compare.html."
        ),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no page.")] = False,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=0,
            help="Pairs of pictures at most, if not all fit into the page. Default: all of up to 5,000 "
            "pictures, else 1,000 pairs.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which of two or more runs is better, and whether that is more than luck.

    Runs are paired by prompt and image. For every measure: the difference with its 95 % interval, p,
    prompts won, lost and tied, and the smallest difference that would have been found. A page shows the
    same with a plot, and the images that changed side by side.
    """
    from sar_eval.cli.comparison import print_comparison
    from sar_eval.report.markdown import comparison_as_markdown
    from sar_eval.stages.compare import compare as compare_stage
    from sar_eval.stages.compare import is_published

    published = [word for word in runs if is_published(word)]
    scored = [read_run(word, benchmark) for word in runs if not is_published(word)]
    found = compare_stage(scored, published, allowed(differing))
    if not as_json:
        print_comparison(found)
    markdown = comparison_as_markdown(found)
    github.add_summary(markdown)
    if files.markdown is not None:
        write_checked("--markdown", files.markdown, markdown.encode())
    page: Path | None = None
    try:
        page = None if no_report else _write_page(found, scored, out, images)
    finally:  # the answer is there, also where no page can be written
        if as_json:
            data = comparison_json(found) | {"report": str(page) if page else None}
            typer.echo(json.dumps(data, indent=2))
    if page and not as_json:
        say(f"report  {page}")


def _write_page(found: Comparison, scored: list[ScoredRun], out: Path | None, images: int | None) -> Path:
    from sar_eval.report.compare_page import default_page, write_comparison
    from sar_eval.storage.files import check_output

    stored = [run.stored for run in scored]
    page = check_output("--out", out or default_page(found, Path("runs")))
    return write_comparison(found, stored, page, images=images)


@baseline.command()
def save(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="The baseline to write.")],
    benchmark: FoldOf = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Save an incomplete run; comparing then needs --allow-missing."),
    ] = False,
) -> None:
    """Save what comparing with a run needs: scores by image, protocol and digests; no pictures."""
    from sar_eval.stages.save_baseline import save_baseline

    scored = read_run(str(run_folder), benchmark)
    if scored.facts.failed and not partial:
        raise Incomplete(
            f"{run_folder} is incomplete: {scored.facts.failed} of {scored.facts.expected} images have no "
            "score: finish it, or --partial saves what is there"
        )
    size = save_baseline(scored, file)
    say(f"{file}: {len(scored.measures)} measures of {scored.facts.expected:,} images, {size:,} bytes")


def allowed(differing: WhatMayDiffer) -> Allowed:
    """In what runs may differ, as the flags say.

    Raises:
        BadInput: `--across` names anything but `protocol`.
    """
    from sar_eval.stages.compare import Allowed

    if unknown := [word for word in differing.across or () if word != "protocol"]:
        raise BadInput(
            f"--across {unknown[0]!r}: only `protocol` may differ; with other prompts, judges or rules of "
            "scoring, figures mean something else"
        )
    return Allowed(protocol=bool(differing.across), missing=differing.allow_missing)


def read_run(word: str, benchmark: str | None = None) -> ScoredRun:
    """The scores of a run folder or of a baseline file.

    Raises:
        BadInput: it is neither, or cannot be read.
    """
    from sar_eval.stages.compare import resolve_path
    from sar_eval.stages.measure import read_scored, score_run

    path = resolve_path(word)
    if not path.is_dir():
        return read_scored(path)
    folder, spec = session.open_run(path, named=benchmark is not None)
    return score_run(session.with_fold(spec, folder, benchmark), folder)


def comparison_json(found: Comparison) -> dict[str, object]:
    """A comparison as `--json` prints it, with its sentences and winners."""
    from sar_eval.comparisons import sentence

    data = asdict(found)
    for pair, written in zip(found.pairs, data["pairs"], strict=True):
        written["sentence"] = sentence(found, pair)
        for difference, row in zip(pair.differences, written["differences"], strict=True):
            row["winner"] = {"first": pair.first, "second": pair.second, "": None}[difference.winner]
    return data

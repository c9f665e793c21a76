"""`distance`: how far two sets of pictures are from each other (FID, KID, CMMD, FD-DINOv2)."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sar_eval.cli.options import AsJson
from sar_eval.cli.terminal import console, plain, printable, say
from sar_eval.errors import BadInput, Incomplete

if TYPE_CHECKING:
    from rich.table import Table

    from sar_eval.stages.distance import Distance, Distances

LISTED = 10  # problems on the terminal


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(distance)


def distance(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="A run folder, a folder of images, or statistics (.npz).")
    ],
    second: Annotated[
        Path | None,
        typer.Argument(metavar="[B]", help="The set to compare with; none with --save-statistics alone."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="fid-clean (default), fid-torch, fid-tf, kid, cmmd or fd-dinov2; may be repeated.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="[NAME=]PATH",
            help="Weights, if not the fetched ones; may be repeated. NAME is needed where metrics have "
            "several: inception-clean, inception-fid, clip-l14-336, dinov2-l14.",
        ),
    ] = None,
    save_statistics: Annotated[
        Path | None,
        typer.Option("--save-statistics", metavar="FILE.npz", help="Write the statistics of A."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of subsets and resampling.")] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=4096, help="Pictures of one forward pass.")
    ] = 32,
    device: Annotated[
        str | None, typer.Option("--device", help="Torch device. Default: the first GPU, else the CPU.")
    ] = None,
    partial_: Annotated[
        bool, typer.Option("--partial", help="Measure what is there where pictures are missing.")
    ] = False,
    no_interval: Annotated[
        bool,
        typer.Option(
            "--no-interval", help="No intervals; KID's takes minutes for tens of thousands of pictures."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how far two sets of pictures are from each other, as distributions.

    0 means that a metric sees no difference. FID and FD-DINOv2 compare means and covariances and are
    biased upwards for small sets; KID is unbiased and may be below 0.
    """
    from sar_eval.cli.progress import showing_progress
    from sar_eval.stages.distance import distance as measure
    from sar_eval.stages.set_metrics import Settings, check_metrics
    from sar_eval.stages.set_statistics import write_statistics

    if second is None and save_statistics is None:
        raise BadInput("name a second set to compare with, or --save-statistics FILE.npz")
    names = check_metrics(metric or ["fid-clean"])
    settings = Settings(
        metrics=names,
        weights=_paths(weights or [], names),
        device=device or _first_device(),
        batch_size=batch_size,
        seed=seed,
        partial=partial_,
        intervals=not no_interval,
    )
    save = partial(write_statistics, save_statistics) if save_statistics else None
    sets = [first] if second is None else [first, second]
    try:
        with showing_progress(as_json) as progress:
            found = measure(sets, settings, progress, save)
    except KeyboardInterrupt as error:
        raise Incomplete("interrupted; nothing is kept: run the same command again") from error
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2))
    else:
        _print(found)
    _end(found, save_statistics, quiet=as_json)


def _paths(words: list[str], metrics: tuple[str, ...]) -> dict[str, Path]:
    """Paths by name of the weights.

    Raises:
        BadInput: a path without a name where the metrics have several weights, or a name of none of them.
    """
    from sar_eval.stages.set_metrics import FEATURES, METRICS

    needed = list(dict.fromkeys(FEATURES[METRICS[name].features].weights for name in metrics))
    known = {features.weights for features in FEATURES.values()}
    paths = {}
    for word in words:
        name, _, path = word.partition("=")
        if name not in known:  # a path may have an equals sign
            if len(needed) > 1:
                raise BadInput(f"--weights {word}: say of which network, as {needed[0]}=PATH")
            name, path = needed[0], word
        if name not in needed:
            raise BadInput(f"--weights {word}: these metrics need {', '.join(needed)} alone")
        paths[name] = Path(path)
    return paths


def _first_device() -> str:
    from sar_eval.runtime.devices import chosen_devices

    return "cuda:0" if chosen_devices(None) else "cpu"


def _print(found: Distances) -> None:
    out = console()
    if found.metrics:
        out.print(_table(found))
    lines = [f"{figure.metric}: {_details(figure)}" for figure in found.metrics]
    lines += [f"note: {note}" for note in found.notes]
    for one in found.sets:
        lines += [f"{one.label}: INCOMPLETE, {len(one.problems)} without features"] if one.problems else []
        lines += [f"  {name}: {why}" for name, why in list(one.problems.items())[:LISTED]]
    for line in lines:
        out.print(printable(line), soft_wrap=True)


def _table(found: Distances) -> Table:
    from rich.table import Table

    title = " and ".join(one.label for one in found.sets) + ("  PARTIAL" if found.partial else "")
    table = Table(title=plain(title, style="table.title"), title_justify="left")
    table.add_column("")
    for column in ("distance", "95 % interval", "n of A", "n of B"):
        table.add_column(column, justify="right", no_wrap=True)
    for figure in found.metrics:
        table.add_row(*_row(figure))
    return table


def _row(figure: Distance) -> tuple[str, ...]:
    numbers = tuple("?" if n is None else f"{n:,}" for n in figure.n)
    interval = "-" if figure.low is None else f"{figure.low:.6g} to {figure.high:.6g}"
    return figure.metric, f"{figure.value:.6g}", interval, *numbers


def _details(figure: Distance) -> str:
    error = (
        "" if figure.standard_error is None else f", standard error of subsets {figure.standard_error:.2g}"
    )
    return f"version {figure.version}{error}"


def _as_json(found: Distances) -> dict[str, Any]:
    return {
        "sets": [asdict(one) for one in found.sets],
        "metrics": [asdict(figure) for figure in found.metrics],
        "notes": list(found.notes),
        "partial": found.partial,
        "failed": found.failed,
    }


def _end(found: Distances, saved: Path | None, *, quiet: bool) -> None:
    """The last line, or exit code 3 where pictures are missing."""
    if found.failed and not found.partial:
        raise Incomplete(
            f"{found.failed} pictures have no features, so there is no distance: mend or remove them, or "
            "--partial measures the others"
        )
    if saved is not None and not quiet:
        say(f"statistics of {found.sets[0].label}: {saved}")

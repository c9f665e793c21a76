"""`synth`: from a file of prompts to a filtered, ranked, deduplicated set of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sar_eval.cli import session, slurm, synth_dedup, synth_product, synth_status, synth_verify, synth_work
from sar_eval.cli.options import Ckpt, check_push, named_options, overrides, with_options
from sar_eval.cli.slurm import OnSlurm
from sar_eval.cli.synth_funnel import funnel_table, order_table
from sar_eval.cli.synth_progress import Watch, showing_synthesis
from sar_eval.cli.terminal import console, say
from sar_eval.errors import BadInput, Incomplete
from sar_eval.options import HowToDraw, WhereToRun, check_name, option

if TYPE_CHECKING:
    from sar_eval.runtime.runtimes import Runtime
    from sar_eval.storage.image_set import ImageSet
    from sar_eval.synthesis.begin import SetRequest
    from sar_eval.synthesis.monitor import Monitor
    from sar_eval.synthesis.selection import Selection
    from sar_eval.synthesis.spec import SetSpec

DEFAULT = "start"
CLOSE = 0.75  # likeness of a mistyped command, from 0 to 1
SELECTION, SET = "Selection", "Set"  # panels of --help


class SynthGroup(TyperGroup):
    """A group whose first word may be left out: `synth FILE` is `synth start FILE`."""

    default = DEFAULT

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before words that name none."""
        first = next((word for word in args if not word.startswith("-")), "")
        if args and not self._names_a_command(first) and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _names_a_command(self, word: str) -> bool:
        """Whether a word is a command's, or all but, where no file is called so."""
        is_close = bool(get_close_matches(word, self.commands, 1, CLOSE))
        return word in self.commands or (is_close and not Path(word).exists())


app = typer.Typer(
    cls=SynthGroup,
    help="Draw sets of pictures from prompts: filtered, ranked, deduplicated, on any number of machines.",
    no_args_is_help=True,
)
Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="Prompts: .parquet or .jsonl of any size, here or in a bucket; smaller ones in any format.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatToKeep:
    """Which of the draws are kept."""

    seed: int = option("Seed of the set.", "run", default=0, low=-(2**63), high=2**63 - 1)
    best_of: int = option("Draws of each prompt.", "run", default=1, panel=SELECTION, low=1, high=1000)
    filter: str = option(
        'What a picture must be to be kept, as "hps > 0.27 and geneval.passed".',
        "run",
        default="",
        panel=SELECTION,
        metavar="TEXT",
    )
    rank: str = option(
        "Judge or scorer whose best draws of a prompt are kept.",
        "run",
        default="",
        panel=SELECTION,
        metavar="NAME",
    )
    top: int | None = option(
        "Draws of a prompt that are kept at most; by default 1 with --rank, else all.",
        "run",
        panel=SELECTION,
        low=1,
        high=1000,
    )
    duplicates: str = option(
        "Drop kept pictures like an earlier one of their block: exact, of the same pixels; a number, of "
        "perceptual hashes that differ in at most so many of 64 bits; or keep.",
        "run",
        default="exact",
        panel=SELECTION,
        metavar="exact|keep|BITS",
    )
    measure: list[str] | None = option(
        "A judge or scorer asked of what is kept, for its column; may be repeated.",
        "run",
        panel=SELECTION,
        metavar="NAME",
    )
    measure_option: list[str] | None = option(
        "An option of a judge or scorer, as hps.resize=aliased; may be repeated.",
        "run",
        panel=SELECTION,
        metavar="NAME.OPTION=VALUE",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatToStore:
    """Where the set goes, and in which form."""

    uri: str = option("A folder, or an address s3://..., gs://...", "run", "--out", default="", panel=SET)
    layout: str = option("parquet or webdataset.", "run", default="parquet", panel=SET)
    keep: str = option("pixels, tokens or both.", "run", default="pixels", panel=SET)
    block_prompts: int = option(
        "Prompts of a block: drawn, judged and stored together.",
        "run",
        default=256,
        panel=SET,
        low=1,
        high=1_000_000,
    )
    push: str = option(
        "Upload the finished set to this dataset of the hub.",
        "run",
        default="",
        panel=SET,
        metavar="ORG/NAME",
    )
    embed: str = option("Store an embedding of each kept picture: clip.", "run", default="", panel=SET)


@app.command(name=DEFAULT)
@with_options(without=["out", "shard"])
def start(
    prompts: Prompts,
    ckpt: Ckpt,
    selecting: WhatToKeep,
    storing: WhatToStore,
    how: HowToDraw,
    where: WhereToRun,
    watch: Watch,
    on_slurm: OnSlurm,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print where the draws went, with shares and intervals.")
    ] = False,
) -> None:
    """Draw prompts, keep what passes, and store it as a set.

    The same command goes on where an earlier one stopped, and draws again what failed.
    """
    from sar_eval.synthesis.begin import begin_set
    from sar_eval.synthesis.driver import Driver
    from sar_eval.synthesis.holder import driver_name

    by_slurm = slurm.is_asked(where, on_slurm)
    request = _request(prompts, ckpt, selecting, storing, how)
    image_set, spec = begin_set(request)
    for note in request.notes:
        say(f"note: {note}", err=True)
    if explain:
        console(watch.fills_stdout).print(order_table(spec.selection))
    if by_slurm:
        slurm.submit_set(image_set, spec, where, on_slurm)
        return
    with working(storing.uri, watch) as monitor, driver_name(image_set.store.uri) as name:
        driver = Driver(image_set, spec, runtime_of(spec, where), name, monitor)
        driver.run()
    if driver.left:
        raise Incomplete(
            f"{driver.left} of {spec.blocks} blocks are in work elsewhere: see `sar-eval synth status`"
        )
    finish(image_set, explain, err=watch.fills_stdout)
    if storing.push:
        synth_product.push_set(storing.uri, storing.push, err=watch.fills_stdout)


def _request(
    prompts: str, ckpt: str, selecting: WhatToKeep, storing: WhatToStore, how: HowToDraw
) -> SetRequest:
    from sar_eval.storage.objects import check_lasting
    from sar_eval.synthesis.begin import SetRequest

    if not storing.uri:
        raise BadInput("--out is missing: a folder, or an address s3://..., gs://... for the set")
    if "://" not in storing.uri:
        check_name(storing.uri, "--out")
    check_lasting(storing.uri)
    asked = overrides(how)
    check_push(storing.push, "dataset")
    options = dict(asked["engine_options"])
    image_format = str(options.pop("image_format", "png"))
    drawing = {"seed": selecting.seed, "images_per_prompt": selecting.best_of, "engine_options": options}
    return SetRequest(
        prompts=prompts,
        checkpoint=ckpt,
        drawing=asked | drawing,
        selection=_selection(selecting),
        out=storing.uri,
        layout=storing.layout,
        keep=storing.keep,
        image_format=image_format,
        block_prompts=storing.block_prompts,
        embed=storing.embed,
    )


def _selection(selecting: WhatToKeep) -> Selection:
    from sar_eval.synthesis.selection import make_selection

    top = selecting.top if selecting.top is not None else (1 if selecting.rank else 0)
    options = named_options("--measure-option", selecting.measure_option)
    return make_selection(
        filter=selecting.filter,
        rank=selecting.rank,
        top=top,
        duplicates=selecting.duplicates,
        columns=selecting.measure or (),
        options=options,
    )


def runtime_of(spec: SetSpec, where: WhereToRun) -> Runtime:
    """Where the workers of a set run."""
    return session.drawing_runtime(spec.run, where)


@contextmanager
def working(uri: str, watch: Watch) -> Iterator[Monitor]:
    """Show progress; Ctrl-C ends in a word on how to go on."""
    try:
        with showing_synthesis(watch) as monitor:
            yield monitor
    except KeyboardInterrupt as error:
        raise Incomplete(
            f"interrupted; finished blocks are stored in {uri}: run the same command again to go on"
        ) from error


def finish(image_set: ImageSet, explain: bool, err: bool = False) -> None:
    """Write the set's card, say what is in it, and exit 3 if something is missing.

    Args:
        image_set: whose driver has ended.
        explain: whether the funnel is shown.
        err: whether all this is said on standard error.

    Raises:
        Incomplete: blocks are missing, or draws failed or are unjudged.
    """
    from sar_eval.storage.set_reader import SetReader
    from sar_eval.synthesis.card import README, write_card
    from sar_eval.synthesis.summary import summarise

    reader = SetReader(image_set.store)
    summary = summarise(reader)
    figures, spec, uri = summary.figures, summary.spec, image_set.store.uri
    if explain:
        console(err).print(funnel_table(summary.funnel))
    say(
        f"{figures.kept:,} of {figures.draws:,} pictures are kept, {figures.data_bytes:,} bytes: {uri}", err
    )
    if len(figures.devices) > 1:
        say(
            f"note: drawn on several devices, whose rounding may differ: {', '.join(figures.devices)}",
            err=True,
        )
    if figures.blocks < spec.blocks:
        raise Incomplete(
            f"{spec.blocks - figures.blocks} of {spec.blocks} blocks are not there: start again"
        )
    write_card(image_set.store, summary=summary)
    say(f"card    {image_set.store.where(README)}", err)
    if lacking := figures.fates.get("failed", 0) + figures.fates.get("unjudged", 0):
        raise Incomplete(
            f"{lacking:,} of {figures.draws:,} draws failed or are unjudged: `sar-eval synth status {uri}` "
            "names some; the same command tries them again"
        )


for module in (synth_dedup, synth_product, synth_status, synth_verify, synth_work):
    module.register(app)

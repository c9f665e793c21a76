"""`train tokenize` and `train inspect`: shards of visual tokens, made and looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import with_options
from sar_eval.cli.session import runtime
from sar_eval.cli.terminal import say
from sar_eval.cli.train_progress import Show, showing
from sar_eval.errors import Incomplete
from sar_eval.options import WhereToRun, check_name, option

if TYPE_CHECKING:
    from sar_eval.tokenization.driver import Tokenized, TokenizeRequest

SOURCE, SIZE, FILTER = "Source", "Size", "Filters"  # panels of --help


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(tokenize)
    app.command(name="inspect")(inspect)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatToTokenize:
    """Where pictures and captions come from, and where their tokens go."""

    data: list[str] = option(
        "Pictures with captions: a folder, file, set or address (s3://, gs://, hf://datasets/ORG/NAME); "
        "give it again for more.",
        "run",
        default=MISSING,
    )
    tokenizer: str = option(
        "What makes codes of pictures: a folder with its two .jit files, of the hub, or demo:NAME.",
        "run",
        default=MISSING,
    )
    tokens: str = option("The folder or address to write.", "run", "--out", default=MISSING)
    caption_column: list[str] | None = option(
        "Column (or file of a tar's sample) with captions; repeatable, then pictures have several.",
        "run",
        panel=SOURCE,
        metavar="NAME",
    )
    image_column: str = option(
        "Column of Parquet files with pictures.", "run", default="", panel=SOURCE, metavar="NAME"
    )
    format: str = option(
        "pictures, parquet or webdataset, where a place has files of several kinds.",
        "run",
        default="",
        panel=SOURCE,
    )
    size: str = option(
        "Pixels of a side, as 512, or HEIGHTxWIDTH; by default as pictures come.",
        "run",
        default="",
        panel=SIZE,
        metavar="TEXT",
    )
    crop: str = option(
        "What is cut off: centre, random (by --seed), or none, which stretches a little.",
        "run",
        default="centre",
        panel=SIZE,
    )
    buckets: int = option(
        "Shapes near to the picture's own: sides of multiples of so many pixels, --size's area at most.",
        "run",
        default=0,
        panel=SIZE,
        low=0,
        high=4096,
    )
    max_aspect: float = option(
        "Longer side of a bucket over its shorter one.", "run", default=2.0, panel=SIZE, low=1, high=16
    )
    seed: int = option("Seed of random crops.", "run", default=0, panel=SIZE, low=0, high=2**32 - 1)
    min_side: int = option(
        "Leave out pictures with a shorter side.", "run", default=0, panel=FILTER, low=0, high=65_535
    )
    caption_length: str = option(
        "Leave out captions of other lengths in characters.",
        "run",
        default="",
        panel=FILTER,
        metavar="LOW:HIGH",
    )
    strict: bool = option(
        "Exit code 3 if pictures were damaged or without caption.",
        "run",
        "--strict",
        default=False,
        panel=FILTER,
    )
    batch_size: int = option("Pictures encoded together.", "run", default=64, low=1, high=65_536)
    block_pictures: int = option(
        "Pictures of a block, which is stored and resumed as one; a tar is one by itself.",
        "run",
        default=10_000,
        low=1,
        high=1_000_000,
    )


@with_options(without=["out", "shard"])
def tokenize(what: WhatToTokenize, where: WhereToRun) -> None:
    """Turn pictures with captions into shards of visual tokens, once, ahead of training.

    The same command goes on where an earlier one stopped. Pictures that are damaged or left out are
    counted, and named in OUT/rejected/.
    """
    request = _request(what)
    from sar_eval.tokenization.driver import tokenize as run

    with showing("tokenize", what.tokens) as show:
        done = run(request, runtime(where), _blocks(show))
    _tell(done, what.tokens)
    if what.strict and done.faults:
        raise Incomplete(f"{done.faults:,} pictures are damaged or lack something (--strict)")


def _request(what: WhatToTokenize) -> TokenizeRequest:
    from sar_eval.families.locate import locate_visual_tokenizer
    from sar_eval.tokenization.driver import TokenizeRequest
    from sar_eval.tokenization.options import TokenizeOptions, check_columns, parse_length, parse_size

    for place in (*what.data, what.tokens):
        if "://" not in place:
            check_name(place, "--data and --out")
    options = TokenizeOptions(
        size=parse_size(what.size),
        crop=what.crop,
        buckets=what.buckets,
        max_aspect=what.max_aspect,
        min_side=what.min_side,
        caption_length=parse_length(what.caption_length),
        caption_columns=check_columns(what.caption_column or ()),
        image_column=what.image_column,
        format=what.format,
        block_pictures=what.block_pictures,
        seed=what.seed,
    )
    return TokenizeRequest(
        places=what.data,
        tokenizer=locate_visual_tokenizer(what.tokenizer),
        out=what.tokens,
        options=options,
        batch_size=what.batch_size,
    )


def _blocks(show: Show) -> Callable[[int, int, int], None]:
    began = time.monotonic()

    def progress(done: int, blocks: int, rows: int) -> None:
        rate = rows / max(time.monotonic() - began, 1e-6)
        show(done, blocks, f"{rows:,} pictures, {rate:,.0f}/s")

    return progress


def _tell(done: Tokenized, out: str) -> None:
    from sar_eval.tokenization.reasons import REASONS

    say(f"{done.rows:,} rows, {done.tokens:,} tokens, {done.captions:,} captions in {out}")
    for note in done.notes:
        say(f"note: {note}", err=True)
    for reason, number in done.rejected.items():
        say(f"left out: {number:,} {REASONS.get(reason, reason)}", err=True)
    if done.rejected:
        say(
            "\n".join([*(f"  {line}" for line in done.examples), f"all of them: {out}/rejected/"]), err=True
        )


def inspect(
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="Folder or address of token shards.")],
    tokenizer: Annotated[
        str,
        typer.Option("--tokenizer", help="What made these codes: a folder, of the hub, or demo:NAME."),
    ],
    rows: Annotated[int, typer.Option("--rows", min=1, max=500, help="Pictures to show.")] = 24,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sample.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("tokens.html"),
) -> None:
    """Decode a sample of token shards into one HTML page: pictures, captions, sizes, rejections."""
    from sar_eval.families.locate import locate_visual_tokenizer
    from sar_eval.report.token_page import write_token_page
    from sar_eval.storage.files import check_output
    from sar_eval.tokenization.inspect import look_at

    page = check_output("--out", out)
    write_token_page(page, look_at(shards, locate_visual_tokenizer(tokenizer), rows, seed))
    say(f"page    {out}")

"""`synth card` and `synth repack`: what makes a set something to hand on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sar_eval.cli.options import check_push
from sar_eval.cli.terminal import say
from sar_eval.errors import BadInput

if TYPE_CHECKING:
    from sar_eval.storage.set_reader import SetReader

SetUri = Annotated[str, typer.Argument(metavar="SET", help="Folder or URI of a set.")]
Push = Annotated[
    str, typer.Option("--push", metavar="ORG/NAME", help="Upload the set to this dataset of the hub.")
]
Private = Annotated[bool, typer.Option("--private", help="Make a new repository of --push private.")]
Title = Annotated[str, typer.Option("--title", help="Title of the card.")]
Licence = Annotated[str, typer.Option("--licence", help="Licence of the set, as the hub spells it.")]
OfCheckpoint = Annotated[str, typer.Option("--checkpoint-licence", help="Licence of the checkpoint.")]
OfPrompts = Annotated[str, typer.Option("--prompts-licence", help="Licence of the prompts.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(card)
    app.command()(repack)


def card(
    uri: SetUri,
    title: Title = "",
    licence: Licence = "",
    checkpoint_licence: OfCheckpoint = "",
    prompts_licence: OfPrompts = "",
    push: Push = "",
    private: Private = False,
) -> None:
    """Write a set's README.md (its data card) and funnel.json, and upload the set with --push.

    What was said in an earlier call, a title or a licence, is kept. The Hugging Face hub, `datasets` and
    `webdataset` open the set, in its own place or uploaded.
    """
    from sar_eval.storage.set_reader import open_set
    from sar_eval.synthesis.card import README, CardWords, write_card

    check_push(push, "dataset", private=private)
    reader = open_set(uri)
    write_card(reader.store, CardWords(title, licence, checkpoint_licence, prompts_licence))
    say(f"card in {uri.rstrip('/')}/{README}")
    if push:
        _push(reader, push, private)


def repack(
    uri: SetUri,
    out: Annotated[str, typer.Option("--out", help="A new folder or URI.")],
    rows: Annotated[int, typer.Option("--rows", min=1, max=10_000_000, help="Rows of an object.")] = 10_000,
    max_mib: Annotated[
        int, typer.Option("--max-mib", min=1, max=1 << 20, help="An object ends before it is larger.")
    ] = 512,
    layout: Annotated[str, typer.Option(help="parquet or webdataset; by default the set's own.")] = "",
    push: Push = "",
    private: Private = False,
) -> None:
    """Copy a set into objects of even size, without the rows that `synth dedup` removed.

    The copy is a set that trainers read, without manifest: that stays where the set was drawn. The same
    command goes on where an earlier one stopped. The bytes of the copy are a function of set and options.
    """
    from sar_eval.cli.train_progress import showing
    from sar_eval.storage.objects import check_lasting, open_store
    from sar_eval.storage.set_objects import LAYOUTS
    from sar_eval.storage.set_reader import SetReader, open_set
    from sar_eval.synthesis.card import earlier_words, write_card
    from sar_eval.synthesis.repack import RepackOptions
    from sar_eval.synthesis.repack import repack as run

    check_push(push, "dataset", private=private)
    check_lasting(out)
    source, store = open_set(uri), open_store(out)
    if layout and layout not in LAYOUTS:
        raise BadInput(f"--layout is {layout!r}: {' or '.join(LAYOUTS)}")
    store.check_writable()
    options = RepackOptions(rows, layout or source.layout, max_mib)
    with showing("repack", out) as show:
        made = run(source, store, options, lambda done: show(done, None, 0.0))
    write_card(store, earlier_words(source.store))
    say(f"{sum(part.rows for part in made.parts):,} rows in {len(made.parts):,} objects in {out}")
    if push:
        _push(SetReader(store), push, private)


def push_set(uri: str, repository: str, err: bool = False) -> None:
    """Upload a set that has its card; `err`: words go to standard error."""
    from sar_eval.storage.set_reader import open_set

    _push(open_set(uri), repository, private=False, err=err)


def _push(reader: SetReader, repository: str, private: bool, err: bool = False) -> None:
    from sar_eval.cli.train_progress import showing
    from sar_eval.synthesis.push import push

    with showing("push", repository) as show:
        address = push(
            reader, repository, private=private, progress=lambda done, total: show(done, total, 0.0)
        )
    say(f"pushed to {address}", err)

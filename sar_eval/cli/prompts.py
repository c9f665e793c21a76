"""`prompts`: make, import, fetch and check suites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sar_eval.cli.options import PromptFile
from sar_eval.cli.terminal import one_line, say
from sar_eval.errors import BadInput, Incomplete

# The suites that can be sampled anew, each with the module of its `make_suite`.
SUITE_SAMPLERS = {
    "geneval": "sar_eval.suites.geneval.suite",
    "shapes": "sar_eval.suites.shapes.suite",
    "dpg-shapes": "sar_eval.suites.shapes.questions",
}

LISTED_TAGS = 50

app = typer.Typer(help="Make and check prompt suites.", no_args_is_help=True)


@app.command()
def make(
    suite: Annotated[str, typer.Argument(help="Which suite: geneval, shapes or dpg-shapes.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    seed: Annotated[int, typer.Option(help="Seed of the sampler.", min=0)] = 43,
    per_task: Annotated[
        int | None,
        typer.Option(help="Prompts of each task; by default as the shipped suite.", min=1, max=100_000),
    ] = None,
    output_format: Annotated[
        str, typer.Option("--format", help="prompts (ours), or metadata (GenEval's own file).")
    ] = "prompts",
) -> None:
    """Sample a suite anew; seed 43 gives the shipped one (for geneval, the official 553 prompts)."""
    import importlib

    from sar_eval import discover
    from sar_eval.storage.files import write_bytes

    if output_format not in ("prompts", "metadata"):
        raise BadInput(f"unknown --format {output_format!r}: prompts or metadata")
    if suite not in SUITE_SAMPLERS:
        raise discover.unknown("suite", suite, list(SUITE_SAMPLERS))
    target = _regular_file(out)
    maker = importlib.import_module(SUITE_SAMPLERS[suite]).make_suite
    rows = maker(seed) if per_task is None else maker(seed, per_task)
    if output_format == "metadata" and "include" not in rows[0]["checks"]:
        raise BadInput(f"suite {suite!r} has no GenEval metadata: leave out --format metadata")
    lines = [row["checks"] if output_format == "metadata" else row for row in rows]
    write_bytes(target, "".join(json.dumps(line) + "\n" for line in lines).encode())
    say(f"{len(rows)} prompts in {out}")


FetchedSuite = Annotated[str, typer.Argument(metavar="SUITE", help="Which suite: dpg.")]


@app.command("import")
def import_(
    suite: FetchedSuite,
    source: Annotated[Path, typer.Option("--from", help="ELLA's folder dpg_bench, or its CSV alone.")],
    out: Annotated[
        Path | None, typer.Option(help="The .jsonl file to write; by default where `run dpg` looks for it.")
    ] = None,
) -> None:
    """Turn a benchmark's official files into one suite file, and name every inconsistency in them."""
    _check_importable(suite, out)
    _import_dpg(source, out)


@app.command()
def fetch(
    suite: FetchedSuite,
    out: Annotated[
        Path | None, typer.Option(help="The .jsonl file to write; by default where `run dpg` looks for it.")
    ] = None,
) -> None:
    """Download a benchmark's official prompts (ELLA's repository, Apache-2.0), and import them."""
    from sar_eval.cli.progress import downloading
    from sar_eval.stages.fetch import fetch as download
    from sar_eval.tensors.published_weights import DPG_QUESTIONS

    _check_importable(suite, out)
    try:
        with downloading() as show:
            (table,) = download((DPG_QUESTIONS,), progress=show)
    except KeyboardInterrupt as error:
        raise Incomplete("interrupted; run the same command again to go on") from error
    _import_dpg(table, out)


def _check_importable(suite: str, out: Path | None) -> None:
    if suite != "dpg":
        raise BadInput(f"no importer for suite {suite!r}: dpg")
    if out is not None and out.suffix != ".jsonl":
        raise BadInput(f"--out {out}: the name must end in .jsonl")


def _regular_file(out: Path) -> Path:
    """The file to write, behind links; nothing replaces a device, a pipe or a folder."""
    try:
        target = out.resolve()
        if target.is_file() or not target.exists():
            return target
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise BadInput(f"--out {out}: {error}") from error
    raise BadInput(f"--out {out} is {'a directory' if target.is_dir() else 'no regular file'}: name a file")


def _import_dpg(source: Path, out: Path | None) -> None:
    from sar_eval.storage.files import write_bytes
    from sar_eval.suites.dpg.questions import read_questions
    from sar_eval.suites.dpg.suite import OFFICIAL_PROMPTS, import_suite, to_lines
    from sar_eval.suites.prompts import load_suite
    from sar_eval.tensors.published_weights import cache_folder

    path = out or cache_folder() / "dpg.jsonl"
    target = _regular_file(path)
    found = import_suite(source)
    write_bytes(target, to_lines(found.prompts))
    for note in found.notes:
        say(note)
    questions = sum(len(read_questions(prompt.checks)) for prompt in found.prompts)
    number = len(found.prompts)
    official = "" if number == OFFICIAL_PROMPTS else f" (DPG-Bench has {OFFICIAL_PROMPTS:,})"
    say(
        f"{number:,} prompts{official} with {questions:,} questions in {path}, "
        f"digest {load_suite(path).digest}; {len(found.notes)} notes"
    )


@app.command()
def check(file: PromptFile) -> None:
    """Read prompts as a run would, and say what is in them and what was assumed."""
    from collections import Counter

    from sar_eval.suites.prompts import load_suite
    from sar_eval.suites.streamed import STEP, StreamedPrompts

    suite = load_suite(file)
    for note in suite.notes:
        say(f"note: {note}", err=True)
    if isinstance(suite.prompts, StreamedPrompts):
        first = suite.prompts[:STEP]
        say(f"{len(suite.prompts)} prompts, of which the first {len(first)} are as they should be")
        return
    numbers = Counter(prompt.tag for prompt in suite.prompts)
    tags = [f"{number} {one_line(tag) or 'without tag'}" for tag, number in numbers.items()]
    more = f" and {len(tags) - LISTED_TAGS} more tags" if len(tags) > LISTED_TAGS else ""
    say(f"{len(suite.prompts)} prompts ({', '.join(tags[:LISTED_TAGS])}{more}), digest {suite.digest}")

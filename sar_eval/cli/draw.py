"""`draw`: any picture of a set again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sar_eval.cli.options import AsJson, Code
from sar_eval.cli.terminal import one_line, say
from sar_eval.documents import cut
from sar_eval.errors import BadInput, GateFailed, Incomplete

if TYPE_CHECKING:
    from sar_eval.storage.image_set import ImageSet
    from sar_eval.synthesis.draw_again import Redrawn
    from sar_eval.synthesis.prompts import PromptSource
    from sar_eval.synthesis.spec import SetSpec

SHOWN = 60  # characters of a prompt


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(draw)


def draw(
    uri: Annotated[str, typer.Argument(metavar="SET", help="Folder or URI of a set.")],
    keys: Annotated[
        list[str],
        typer.Argument(metavar="KEY...", help="ROW/INDEX of a draw, or ROW for all draws of a prompt."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures, called ROW-INDEX.")] = Path(
        "drawn"
    ),
    ckpt: Annotated[
        str, typer.Option("--ckpt", help="The set's checkpoint, where it lies elsewhere now.")
    ] = "",
    prompts: Annotated[
        str, typer.Option("--prompts", help="The set's prompt file, where it lies elsewhere now.")
    ] = "",
    devices: Annotated[
        str | None, typer.Option("--devices", help="GPUs, as 0,1,3; `cpu` for none.")
    ] = None,
    code: Code = None,
    as_json: AsJson = False,
) -> None:
    """Draw pictures of a set again, kept ones or not, and say whether they are what its manifest says.

    Checkpoint and prompt file must be those that the set was drawn with, which is checked. The exit code is
    1 if a picture differs, and 3 if one cannot be drawn.
    """
    from sar_eval.storage.files import write_bytes
    from sar_eval.storage.schemas import image_suffix
    from sar_eval.synthesis.draw_again import draw_again, parse_keys, same_files

    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out} is a file: name a folder")
    image_set, spec, source = _opened(uri, prompts)
    spec.check_code(code or (), uri)
    wanted = parse_keys(keys, spec)
    spec = same_files(spec, ckpt)
    found = []
    for drawn in draw_again(image_set, spec, source, wanted, _device(devices)):
        path = None
        if drawn.generation.image is not None:
            suffix = image_suffix(drawn.generation.image)
            path = out / f"{drawn.row:012d}-{drawn.index:04d}.{suffix}"
            write_bytes(path, drawn.generation.image)
        found.append(drawn)
        say(json.dumps(_facts(drawn, path)) if as_json else _line(drawn, path))
    _judge(found, spec)


def _opened(uri: str, prompts: str) -> tuple[ImageSet, SetSpec, PromptSource]:
    from sar_eval.storage.image_set import ImageSet
    from sar_eval.storage.objects import open_store
    from sar_eval.synthesis.begin import stored_spec
    from sar_eval.synthesis.prompts import open_prompts

    image_set = ImageSet(open_store(uri))
    spec = stored_spec(image_set)
    try:
        return image_set, spec, open_prompts(prompts or spec.run.suite, image_set.prompt_index())
    except BadInput as error:
        raise type(error)(f"the set's prompts: {error}; --prompts names the file elsewhere") from error


def _device(devices: str | None) -> str:
    """The first of the chosen or visible GPUs, which alone the process then sees; else the CPU."""
    import os

    from sar_eval.runtime.devices import chosen_devices

    chosen = chosen_devices(devices)
    if chosen:
        os.environ["CUDA_VISIBLE_DEVICES"] = chosen[0]
    return "cuda" if chosen else "cpu"


def _facts(drawn: Redrawn, path: Path | None) -> dict[str, Any]:
    stored = drawn.stored
    return {
        "key": f"{drawn.row}/{drawn.index}",
        "id": drawn.prompt.id,
        "text": drawn.prompt.text,
        "seed": drawn.generation.seed,
        "path": None if path is None else str(path),
        "error": drawn.generation.error,
        "fate": stored and stored.fate,
        "why": stored and stored.why,
        "same": drawn.same,
    }


def _line(drawn: Redrawn, path: Path | None) -> str:
    stored = drawn.stored
    fate = "not in the set yet" if stored is None else stored.fate
    if stored is not None and stored.why not in ("", drawn.generation.error):
        fate += f" ({cut(stored.why)})"
    said = {True: "the same pixels", False: "OTHER PIXELS than the manifest's", None: "nothing to compare"}
    where = f"no picture: {drawn.generation.error}" if path is None else f"{path}, {said[drawn.same]}"
    text = cut(drawn.prompt.text, SHOWN)
    return one_line(f"{drawn.row}/{drawn.index}  {fate}  {where}  {text!r}")


def _judge(found: list[Redrawn], spec: SetSpec) -> None:
    """End with 1 if pixels differ, with 3 if there are none where the set has some.

    Raises:
        GateFailed, Incomplete: so.
    """
    other = sum(drawn.same is False for drawn in found)
    if other:
        raise GateFailed(
            f"{other} of {len(found)} pictures have other pixels than when the set was drawn: in "
            f"{spec.run.dtype}, another device or version of torch may round otherwise"
        )
    missing = sum(drawn.generation.image is None for drawn in found)
    if missing:
        raise Incomplete(f"{missing} of {len(found)} pictures could not be drawn")

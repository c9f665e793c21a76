"""Small sets for tests of synthesis, drawn by the engine of `tests/synth_engine.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sar_eval.runtime.local import LocalRuntime
from sar_eval.runtime.slots import WorkerSlot
from sar_eval.storage.image_set import ImageSet
from sar_eval.synthesis.begin import SetRequest, begin_set
from sar_eval.synthesis.driver import Driver
from sar_eval.synthesis.monitor import Monitor, no_monitor
from sar_eval.synthesis.selection import make_selection

ENGINE = f"{Path(__file__).parent / 'synth_engine.py'}:ENGINE"
PASSING = ("spec.json", "prompts.index", "data/", "manifest/", "done/", "ledger/")  # of a set's files


def write_prompts(path: Path, texts: Iterable[str]) -> Path:
    """A prompt file."""
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


def request(prompts: Path, out: str, best_of: int = 2, **changes: object) -> SetRequest:
    """Two draws of each prompt, four prompts a block; `changes` of the request or the selection."""
    selecting = {key: changes.pop(key) for key in ("filter", "rank", "top", "duplicates") if key in changes}
    options = {"engine": ENGINE, "engine_options": changes.pop("engine_options", {})}
    return SetRequest(
        prompts=str(prompts),
        checkpoint="demo:sft",
        drawing={**options, "images_per_prompt": best_of, "seed": changes.pop("seed", 0)},
        selection=make_selection(**selecting),  # type: ignore[arg-type]
        out=out,
        block_prompts=int(str(changes.pop("block_prompts", 4))),
        **changes,  # type: ignore[arg-type]
    )


def synthesise(
    asked: SetRequest, workers: int = 1, monitor: Monitor = no_monitor, holder: str = "test"
) -> tuple[ImageSet, Driver]:
    """Draw a set in this many processes."""
    image_set, spec = begin_set(asked)
    runtime = LocalRuntime([WorkerSlot(number) for number in range(workers)])
    driver = Driver(image_set, spec, runtime, holder, monitor)
    driver.run()
    return image_set, driver


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of a set's objects by name, without claims and what else passes."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items()) if name.startswith(PASSING)}

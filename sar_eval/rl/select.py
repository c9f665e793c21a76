"""Best-of-N: the best pictures of judged runs as token shards, for `train sft`.

Drawing, selecting and fine-tuning, over and over, is RAFT (Dong et al. 2023, arXiv 2304.06767): the rival
that every claim of a policy gradient has to beat at an equal number of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from sar_eval.decoding.token_grid import token_grid
from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.simplear import Checkpoint
from sar_eval.rl.judged_draws import JudgedDraw, JudgedRun, by_prompt, count_tested, read_judged_runs
from sar_eval.storage.files import write_json
from sar_eval.storage.shards import SELECTED_SCHEMA, SIZED_SCHEMA, write_shards
from sar_eval.types import Json


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """What is selected.

    Attributes:
        top: at most so many pictures of each prompt, the best ones.
        min_score: only pictures of at least this score; None takes any.
        by: whose score counts (see `read_judged_runs`).
        train_on_test: take prompts of evaluation suites, too.
    """

    top: int = 1
    min_score: float | None = None
    by: str = ""
    train_on_test: bool = False

    def __post_init__(self) -> None:
        """Refuse a score that is no number.

        Raises:
            BadInput: `min_score` is infinite or not a number.
        """
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise BadInput(f"--min-score is {self.min_score}: it must be a number")


@dataclass(slots=True)
class Selection:
    """The selected pictures, and what became of the others.

    Attributes:
        checkpoint: that drew the first run.
        chosen: by prompt in the order of the runs, the best first.
        prompts: how many there are.
        without: prompts of which nothing was taken.
        tested: prompts that an evaluation asks, too (with `train_on_test`).
        scores: of all scored pictures.
        failed, unscored, below, repeated: draws without a picture, pictures without a score, pictures below
            `min_score`, and pictures whose codes a better or earlier one of the prompt has.
    """

    checkpoint: Checkpoint
    chosen: list[JudgedDraw] = field(default_factory=list)
    prompts: int = 0
    without: int = 0
    scores: list[float] = field(default_factory=list)
    tested: int = 0
    failed: int = 0
    unscored: int = 0
    below: int = 0
    repeated: int = 0

    def facts(self) -> dict[str, Json]:
        """Counts and mean scores, as the command prints and stores them."""
        chosen = [draw.score for draw in self.chosen if draw.score is not None]
        return {
            "prompts": self.prompts,
            "prompts_without": self.without,
            "prompts_of_a_test": self.tested,
            "pictures": len(self.scores) + self.unscored,
            "failed": self.failed,
            "unscored": self.unscored,
            "below_min_score": self.below,
            "repeated": self.repeated,
            "mean_score": fmean(self.scores) if self.scores else None,
            "rows": len(chosen),
            "mean_score_of_rows": fmean(chosen) if chosen else None,
        }


def select(
    paths: Sequence[Path], out: Path, options: SelectOptions, checkpoints: Sequence[str] = ()
) -> Selection:
    """Write the best pictures of judged runs to token shards in `out`.

    A row's caption is the text that the engine gave the checkpoint for that very picture: the protocol's
    prefix and the prompt. `train sft` trains on `<|t2i|> caption <|soi|> codes`, the sequence that was
    sampled, so a later run under the same protocol asks for what was trained. The negative prompt is no
    part of it: a guided picture distils the guidance into the prompted branch.

    `out/selection.json` says what was selected from which runs.

    Args:
        paths: run folders.
        out: a new or empty folder.
        options: what is selected.
        checkpoints: see `read_judged_runs`.

    Raises:
        BadInput: see `read_judged_runs`; prompts of an evaluation suite; nothing to select; or `out` is not
            empty.
    """
    runs = read_judged_runs(paths, options.by, checkpoints)
    tested = count_tested(runs, options.train_on_test)
    selection = choose(runs, options)
    selection.tested = tested
    if not selection.chosen:
        raise BadInput(_nothing(selection, options))
    visual = VisualTokenizer(runs[0].checkpoint.visual_folder)
    metadata = {"codebook_size": str(visual.codebook_size), "encoder": visual.encoder_digest}
    size = _size_columns(runs[0])
    schema = SIZED_SCHEMA if size else SELECTED_SCHEMA
    write_shards(_rows(selection.chosen, size), out, schema, rows_per_shard=50_000, metadata=metadata)
    write_json(out / "selection.json", _provenance(runs, options, selection))
    return selection


def choose(runs: Sequence[JudgedRun], options: SelectOptions) -> Selection:
    """The best of each prompt; equal scores go by the order of the runs and of their draws."""
    found = Selection(runs[0].checkpoint, failed=sum(run.failed for run in runs))
    for draws in by_prompt(runs).values():
        best = sorted((d for d in draws if d.score is not None), key=lambda d: -(d.score or 0.0))
        good = [d for d in best if options.min_score is None or (d.score or 0.0) >= options.min_score]
        unlike = _unlike(good)
        taken = unlike[: options.top]
        found.chosen += taken
        found.prompts += 1
        found.without += not taken
        found.scores += [d.score for d in best if d.score is not None]
        found.unscored += len(draws) - len(best)
        found.below += len(best) - len(good)
        found.repeated += len(good) - len(unlike)
    return found


def _unlike(draws: Sequence[JudgedDraw]) -> list[JudgedDraw]:
    """The first of each row of caption and codes."""
    found: dict[tuple[str, bytes], JudgedDraw] = {}
    for draw in draws:
        found.setdefault((draw.texts[0], draw.codes.tobytes()), draw)
    return list(found.values())


def _nothing(found: Selection, options: SelectOptions) -> str:
    if not found.scores:
        return f"none of {found.unscored} pictures has a score: `sar-eval judge` the runs first"
    return (
        f"no picture of {found.prompts} prompts reaches --min-score {options.min_score:g}; the best has "
        f"{max(found.scores):g}: lower it, draw more of each prompt, or at a higher temperature"
    )


def _size_columns(run: JudgedRun) -> dict[str, int]:
    """Height and width in tokens of a run's pictures; empty for squares, which need no such columns."""
    if not run.protocol.width:
        return {}
    pixels = run.checkpoint.downsample
    height, width = token_grid(run.protocol, pixels, "the visual tokenizer's pixels per token")
    return {"height": height, "width": width}


def _rows(chosen: Sequence[JudgedDraw], size: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for d in chosen:
        yield {
            "tokens": d.codes.tolist(),
            "caption": d.texts[0],
            "score": d.score,
            "draw": f"{d.run.name}/{d.draw.key}",
            **size,
        }


def _provenance(runs: Sequence[JudgedRun], options: SelectOptions, selection: Selection) -> Json:
    """What `selection.json` says."""
    return {"options": asdict(options), "runs": [run.facts() for run in runs], **selection.facts()}

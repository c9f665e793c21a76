"""The draws of judged runs with their visual codes and scores, for best-of-N and preferences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sar_eval.documents import convert, shorten
from sar_eval.errors import BadInput
from sar_eval.families.cosmos import VisualTokenizer
from sar_eval.families.prompting import PREFIX_SETS, prompt_texts
from sar_eval.families.simplear import Checkpoint, find_checkpoint
from sar_eval.options import check_value, names_of
from sar_eval.rewards.train_prompts import refuse_test_prompts
from sar_eval.rl.run_scores import RunScores, read_scores
from sar_eval.storage.manifest import Manifest
from sar_eval.storage.parts import Part
from sar_eval.storage.run_folder import RunFolder
from sar_eval.types import Draw, DrawProtocol, Json, Prompt

RESTORE = "restore the file"


@dataclass(frozen=True, slots=True)
class JudgedDraw:
    """One picture with what it was drawn from and how good it is.

    Attributes:
        draw: prompt (id and text alone), index and seed.
        texts: of the prompted and of the negative branch, as the engine had them (prefix included).
        codes: int32 `[N]`, visual codes in raster order.
        score: None if the picture has none.
        run: the run folder, for messages.
    """

    draw: Draw
    texts: tuple[str, str]
    codes: NDArray[np.int32]
    score: float | None
    run: Path

    @property
    def prompt(self) -> str:
        """The prompt's text, without what the protocol adds."""
        return self.draw.prompt.text


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run's drawn pictures with their scores.

    Attributes:
        path, digest: the run folder, and the digest of its spec.
        protocol: under which it was drawn.
        checkpoint: that drew it.
        by, judge_version: whose scores these are, and what they depend on (see `RunScores`).
        draws: in the run's order.
        failed: how many further draws have no picture.
    """

    path: Path
    digest: str
    protocol: DrawProtocol
    checkpoint: Checkpoint
    by: str
    judge_version: str
    draws: tuple[JudgedDraw, ...]
    failed: int

    def facts(self) -> dict[str, Json]:
        """What training writes down of where its pictures are from."""
        return {
            "run": self.path.resolve().name,
            "digest": self.digest,
            "checkpoint": self.checkpoint.name,
            "by": self.by,
            "judge_version": self.judge_version,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    """What is needed of the spec in `run.json`."""

    checkpoint: str
    checkpoint_digest: str
    protocol: DrawProtocol
    engine: str = ""
    engine_options: Mapping[str, Json] = field(default_factory=dict)
    judge: str = ""


def read_judged_runs(
    paths: Sequence[Path], by: str = "", checkpoints: Sequence[str] = ()
) -> list[JudgedRun]:
    """Read several runs that may be put together: one judge, one codebook, one number of tokens.

    Args:
        paths: run folders.
        by: whose score counts: a judge, or `scorer/NAME`; by default each run's own judge.
        checkpoints: where the runs' checkpoints are now, if not where `run.json` says.

    Raises:
        BadInput: see `read_judged_run`; or the runs do not go together.
    """
    runs = [read_judged_run(path, by, checkpoints) for path in paths]
    first = runs[0]
    for run in runs[1:]:
        _check_alike(first, run)
    return runs


def _check_alike(first: JudgedRun, other: JudgedRun) -> None:
    if other.judge_version != first.judge_version:
        raise BadInput(
            f"the scores of {first.path} ({first.by}) and {other.path} ({other.by}) are of different "
            "judges, versions or options: name one that judged both with --by, or judge them alike"
        )
    check_codebook(other, first.checkpoint, f"{first.path}")
    if other.protocol.size != first.protocol.size:
        raise BadInput(
            f"{first.path} was drawn at {first.protocol.written_size} pixels, {other.path} at "
            f"{other.protocol.written_size}: one size at a time"
        )


def check_codebook(run: JudgedRun, checkpoint: Checkpoint, name: str) -> None:
    """Refuse codes that mean other pixels to the checkpoint `name`.

    Raises:
        BadInput: the visual tokenizers differ.
    """
    theirs, ours = (VisualTokenizer(c.visual_folder) for c in (run.checkpoint, checkpoint))
    if (theirs.codebook_size, theirs.encoder_digest) != (ours.codebook_size, ours.encoder_digest):
        raise BadInput(
            f"{run.path} has codes of {theirs.folder} ({theirs.codebook_size} codes, encoder "
            f"{theirs.encoder_digest}), and {name} uses {ours.folder} ({ours.codebook_size} codes, encoder "
            f"{ours.encoder_digest}): the same code is another piece of a picture there"
        )


def read_judged_run(path: Path, by: str = "", checkpoints: Sequence[str] = ()) -> JudgedRun:
    """Read a run folder's codes and the scores of one judge (see `read_judged_runs`).

    Raises:
        BadInput: it is no run folder, has no pictures with tokens, no such scores or scores under several
            options of the judge; its checkpoint is not found or was changed; or a part is damaged.
    """
    folder = RunFolder(path)
    manifest = folder.read_manifest()
    spec = _read_spec(manifest, path)
    scores = read_scores(folder, by or spec.judge)
    checkpoint = _find_drawer(spec, path, checkpoints)
    rows = [row for part in folder.generations.parts().values() for row in _rows(folder, manifest, part)]
    drawn = [row for row in rows if row["error"] is None]
    _check_codes(drawn, spec, checkpoint, path)
    draws = tuple(_judged_draw(row, spec.protocol, scores, path) for row in drawn)
    return JudgedRun(
        path,
        manifest.digest,
        spec.protocol,
        checkpoint,
        scores.by,
        scores.version,
        draws,
        failed=len(rows) - len(drawn),
    )


def _read_spec(manifest: Manifest, path: Path) -> _Spec:
    where = f"{path / 'run.json'}, spec"
    spec = convert(dict(manifest.spec), _Spec, where, RESTORE)
    for name in names_of("protocol"):
        check_value(name, getattr(spec.protocol, name), where)
    if spec.protocol.prefixes and spec.protocol.prefixes not in PREFIX_SETS:
        raise BadInput(
            f"{where}: no set of prefixes is called {shorten(spec.protocol.prefixes)}: {RESTORE}"
        )
    return spec


def _find_drawer(spec: _Spec, path: Path, others: Sequence[str]) -> Checkpoint:
    """The checkpoint that drew the run: one of `others`, or the one that `run.json` names.

    Raises:
        BadInput: none of them has its bytes.
    """
    visual = str(spec.engine_options.get("visual_tokenizer", ""))
    for name in (*others, spec.checkpoint):
        try:
            found = find_checkpoint(name, visual)
        except BadInput as error:
            raise BadInput(
                f"the checkpoint that drew {path}: {error}; if it was moved, say where with --run-ckpt"
            ) from error
        if found.digest == spec.checkpoint_digest:
            return found
    raise BadInput(
        f"{path} was drawn by {spec.checkpoint} when its files had the digest {spec.checkpoint_digest}; "
        f"now {found.folder} has {found.digest}: say with --run-ckpt where the one is that drew it"
    )


def _rows(folder: RunFolder, manifest: Manifest, part: Part) -> Iterator[dict[str, Any]]:
    """Rows of a part of generations, each with `codes` (int32) and its image's digest."""
    table = folder.generations
    made_for = table.facts(part).made_for
    if made_for not in (manifest.digest, *manifest.earlier_digests):
        raise BadInput(f"{part.path} is of another run ({made_for}): `sar-eval verify {folder.path}`")
    columns = ("key", "prompt_id", "prompt", "index", "seed", "tokens", "error")
    rows = table.read(part.path, columns).to_pylist()
    for row, digest in zip(rows, table.image_digests(part, len(rows)), strict=True):
        yield {**row, "codes": np.array(row.pop("tokens") or (), np.int32), "image_digest": digest}


def _check_codes(rows: Sequence[dict[str, Any]], spec: _Spec, checkpoint: Checkpoint, path: Path) -> None:
    """Refuse pictures without codes, or with codes that are none of this checkpoint."""
    if not rows:
        raise BadInput(f"{path} has no pictures: draw them with `sar-eval run` or `sar-eval generate`")
    number = math.prod(spec.protocol.size) // checkpoint.downsample**2
    for row in rows:
        codes = row["codes"]
        if not codes.size:
            raise BadInput(
                f"{path}: {row['key']} is a picture without tokens (engine {spec.engine or 'unknown'}): "
                "training needs pictures that `sar-eval run` or `generate` drew token by token; for others "
                "there is `sar-eval train tokenize`"
            )
        if codes.size != number or codes.min() < 0 or codes.max() >= checkpoint.codebook_size:
            raise BadInput(
                f"{path}: {row['key']} has {codes.size} codes from {codes.min()} to {codes.max()}; the "
                f"run's protocol and checkpoint make {number} from 0 to {checkpoint.codebook_size - 1}: "
                f"`sar-eval verify {path}`"
            )


def _judged_draw(row: dict[str, Any], protocol: DrawProtocol, scores: RunScores, path: Path) -> JudgedDraw:
    draw = Draw(Prompt(row["prompt_id"], row["prompt"]), row["index"], row["seed"])
    score = scores.of(row["key"], row["image_digest"])
    return JudgedDraw(draw, prompt_texts(protocol, draw), row["codes"], score, path)


def by_prompt(runs: Sequence[JudgedRun]) -> dict[str, list[JudgedDraw]]:
    """The pictures of all runs by the text of their prompt, in the order of the runs and of their draws."""
    found: dict[str, list[JudgedDraw]] = {}
    for draw in (draw for run in runs for draw in run.draws):
        found.setdefault(draw.prompt, []).append(draw)
    return found


def count_tested(runs: Sequence[JudgedRun], train_on_test: bool) -> int:
    """How many of the prompts stand in the suite of an evaluation; refused unless `train_on_test`.

    Raises:
        BadInput: naming some of them.
    """
    number, seen = 0, set[str]()
    for run in runs:
        fresh = {draw.prompt: draw.draw.prompt for draw in run.draws if draw.prompt not in seen}
        number += refuse_test_prompts(fresh.values(), str(run.path), train_on_test)
        seen |= fresh.keys()
    return number

"""What a set is, resolved: everything that decides its bytes."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sar_eval.documents import convert, shorten
from sar_eval.errors import BadInput, SpecMismatch
from sar_eval.options import check_choice, check_whole_number
from sar_eval.spec import RunSpec, code_files
from sar_eval.synthesis.selection import Selection
from sar_eval.types import Json

LAYOUTS, KEPT = ("parquet", "webdataset"), ("pixels", "tokens", "both")
IMAGE_FORMATS = ("png", "webp")
REMOTE_CODE = "trust_remote_code"  # the engines' option that runs files of a checkpoint
FORMAT = 1  # of the stored spec
MAX_BEST_OF = 1000
OWNER = "the set"  # in messages about its settings


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """Of the prompt file: its size in bytes, the digest of its bytes, and how many prompts it has."""

    size: int
    digest: str
    rows: int


@dataclass(frozen=True, slots=True)
class SetSpec:
    """Everything that decides a set's bytes.

    Attributes:
        run: what draws: checkpoint, protocol, engine, seed, and `images_per_prompt` draws of each prompt.
        prompts: which prompts.
        selection: what is kept of the draws.
        layout: of data objects: "parquet" or "webdataset".
        keep: of a kept draw: "pixels", "tokens" or "both".
        image_format: of its pixels: "png" or "webp", both lossless.
        block_prompts: prompts of a block.
        embed: network whose embedding of each kept picture is stored, with the version of its weights; ""
            for none.
    """

    run: RunSpec
    prompts: PromptFacts
    selection: Selection
    layout: str = "parquet"
    keep: str = "pixels"
    image_format: str = "png"
    block_prompts: int = 256
    embed: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that no set can have.

        Raises:
            BadInput: naming the setting.
        """
        check_choice("layout", self.layout, LAYOUTS, OWNER)
        check_choice("keep", self.keep, KEPT, OWNER)
        check_choice("image_format", self.image_format, IMAGE_FORMATS, OWNER)
        check_whole_number("block_prompts", self.block_prompts, OWNER, maximum=1_000_000)
        check_whole_number("best_of", self.best_of, OWNER, maximum=MAX_BEST_OF)

    @property
    def best_of(self) -> int:
        """Draws of each prompt."""
        return self.run.images_per_prompt

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.prompts.rows // self.block_prompts)

    def rows_of(self, block: int) -> range:
        """Rows of the prompts of a block."""
        first = block * self.block_prompts
        return range(first, min(self.prompts.rows, first + self.block_prompts))

    @property
    def digest(self) -> str:
        """Hash of what decides the set: not paths, names, or what only changes its speed."""
        text = json.dumps(self._deciding(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _deciding(self) -> dict[str, Json]:
        """By the name that a message calls it."""
        selection = self.selection
        return {
            "the checkpoint's weights": self.run.checkpoint_digest,
            "the protocol": {**self.run.protocol.to_json(), "name": ""},
            "the engine": [self.run.engine, self.run.engine_version, self.run.dtype],
            "seed": self.run.seed,
            "best-of": self.best_of,
            "the prompt file's bytes": [self.prompts.size, self.prompts.digest],
            "filter": selection.filter,
            "rank": selection.rank,
            "top": selection.top,
            "duplicates": selection.duplicates,
            "judges and scorers": [spec.identity for spec in selection.measures],
            "layout": self.layout,
            "keep": self.keep,
            "image-format": self.image_format,
            "block-prompts": self.block_prompts,
            "embed": self.embed,
            "the engine's options": self.run.digest,  # and all else that decides a draw
        }

    @property
    def code(self) -> list[str]:
        """What of it is somebody's code: `path.py:NAME` of engine and measures, and a checkpoint's own."""
        found = code_files({"engine": self.run.engine}, {})
        for measure in self.selection.measures:
            found |= code_files({measure.name: measure.source}, measure.options)
        remote = [REMOTE_CODE] if self.run.engine_options.get(REMOTE_CODE) else []
        return [*sorted({*found.values()}), *remote]

    def check_code(self, allowed: Collection[str], where: str) -> None:
        """Refuse to run code that a stored spec names and this command does not.

        Raises:
            BadInput: naming the code.
        """
        if unnamed := [name for name in self.code if name not in allowed]:
            raise BadInput(
                f"{where} names code that would run here; if you trust it: --code {shlex.quote(unnamed[0])}"
            )

    def check_same(self, asked: SetSpec, where: str) -> None:
        """Refuse to go on with a set under other settings.

        Raises:
            SpecMismatch: naming what differs.
        """
        ours, theirs = self._deciding(), asked._deciding()
        differ = [name for name in ours if ours[name] != theirs[name]]
        if differ:
            name = differ[0]
            raise SpecMismatch(
                f"{where} was begun with other settings: {name} was {shorten(ours[name])}, now "
                f"{shorten(theirs[name])}{_others(differ)}. Give the same as then, or another --out"
            )

    def resumed(self, asked: SetSpec) -> SetSpec:
        """This spec, drawn as `asked` says where that changes nothing but speed and places."""
        run = replace(
            self.run,
            suite=asked.run.suite,
            checkpoint=asked.run.checkpoint,
            batch_size=asked.run.batch_size,
            engine_options=asked.run.engine_options,
        )
        return replace(self, run=run, selection=asked.selection)

    def without_paths(self) -> SetSpec:
        """The same set for the public: of paths on this machine only the last part."""
        run, chosen = self.run, self.selection
        measures = tuple(
            replace(m, source=_last_part(m.source), options=_last_parts(m.options, m.ignored))
            for m in chosen.measures
        )
        public = replace(
            run,
            suite=_last_part(run.suite),
            checkpoint=_last_part(run.checkpoint),
            engine_options=_last_parts(run.engine_options, run.engine_speed_options),
        )
        return replace(self, run=public, selection=replace(chosen, measures=measures))

    def to_json(self) -> dict[str, Json]:
        """As `spec.json` stores it."""
        return {
            "format": FORMAT,
            "digest": self.digest,
            "run": self.run.to_json(),
            "prompts": asdict(self.prompts),
            "selection": self.selection.to_json(),
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_json(cls, data: Json, where: str) -> SetSpec:
        """From `spec.json`.

        Raises:
            BadInput: broken, changed, or written by another version.
        """
        stored = convert(data, _Stored, where, "restore the file, or use another --out")
        if stored.format != FORMAT:
            raise BadInput(f"{where} has format {stored.format}, this version of sar-eval reads {FORMAT}")
        spec = cls(
            RunSpec.from_json(stored.run, where),
            stored.prompts,
            Selection.from_json(stored.selection, where),
            **{name: getattr(stored, name) for name in _PLAIN},
        )
        if spec.digest != stored.digest:
            raise BadInput(f"{where} was changed since it was written: restore it, or use another --out")
        return spec


_PLAIN = ("layout", "keep", "image_format", "block_prompts", "embed")


@dataclass(frozen=True, slots=True)
class _Stored:
    """The keys of `spec.json`."""

    format: int
    digest: str
    run: dict[str, Any]
    prompts: PromptFacts
    selection: dict[str, Any]
    layout: str
    keep: str
    image_format: str
    block_prompts: int
    embed: str


def _last_parts(options: Mapping[str, Json], names: Collection[str]) -> dict[str, Json]:
    """The options, with the last part alone of those named paths."""
    return {name: _last_part(value) if name in names else value for name, value in options.items()}


def _last_part(value: Json) -> Json:
    is_path = isinstance(value, str) and value.startswith("/")
    return value.rstrip("/").rpartition("/")[2] if is_path else value


def _others(differ: list[str]) -> str:
    return f" (and {', '.join(differ[1:])})" if differ[1:] else ""

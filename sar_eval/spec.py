"""What a run is, resolved: everything that decides its images and verdicts, and its digests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from sar_eval import discover
from sar_eval.documents import convert
from sar_eval.errors import BadInput, SarEvalError
from sar_eval.options import check_value, names_of
from sar_eval.types import DrawProtocol, Json, Shard

# What may change between two starts of a run: it decides verdicts and figures, not images.
JUDGING = (
    *("benchmark", "fold", "judge", "judge_version", "judge_options"),
    *("judge_speed_options", "judge_path_options", "beside"),
)
# Where files lie, names, and what decides how long a run takes: none of it is in the digest.
NOT_IN_DIGEST = (*JUDGING, "suite", "checkpoint", "batch_size", "engine_speed_options")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that decides a run's images and verdicts.

    Attributes:
        benchmark: the recipe's name.
        fold: the module under `benchmarks/` whose `BENCHMARK` folds the verdicts ("" for none).
        suite: the prompt file.
        suite_digest: of its contents.
        checkpoint, checkpoint_digest: the weights, and the digest of their bytes.
        protocol: how images are sampled.
        engine, engine_version, engine_options: what draws with it.
        engine_speed_options: names of the engine's options that no image depends on.
        judge, judge_version, judge_options: what gives the verdicts ("" for none).
        judge_speed_options, judge_path_options: names of the judge's options that no verdict depends on:
            those about speed, and paths of files whose bytes are in its version.
        beside: whether the judge's verdicts stand beside those of the run's own judge.
        images_per_prompt: draws of each prompt.
        seed: of the run; each draw's own seed is made from it.
        dtype: of the weights and the computation.
        batch_size: draws of one block, that is of one forward and of one stored part.
    """

    benchmark: str
    fold: str
    suite: str
    suite_digest: str
    checkpoint: str
    checkpoint_digest: str
    protocol: DrawProtocol
    engine: str = "native"
    engine_version: str = ""
    engine_options: Mapping[str, Json] = field(default_factory=dict)
    engine_speed_options: tuple[str, ...] = ()
    judge: str = ""
    judge_version: str = ""
    judge_options: Mapping[str, Json] = field(default_factory=dict)
    judge_speed_options: tuple[str, ...] = ()
    judge_path_options: tuple[str, ...] = ()
    beside: bool = False
    images_per_prompt: int = 4
    seed: int = 0
    dtype: str = "float32"
    batch_size: int = 64

    @property
    def digest(self) -> str:
        """Hash of what decides the images: not the judge, the batch size, names, or paths."""
        parts = asdict(self) | {"protocol": self.protocol.to_json()}
        del parts["protocol"]["name"]
        for name in NOT_IN_DIGEST:
            del parts[name]
        parts["engine_options"] = without(self.engine_options, self.engine_speed_options)
        return _hash(parts)

    @property
    def judge_digest(self) -> str:
        """Hash of what decides the verdicts on the images."""
        return self._judge_digest({*self.judge_speed_options, *self.judge_path_options})

    @property
    def verdict_table(self) -> str:
        """Where the verdicts are stored; several judges of one name may stand beside the run's own."""
        return f"{self.judge}-{self.judge_digest[:8]}" if self.beside else self.judge

    @property
    def earlier_judge_digest(self) -> str:
        """The same as versions up to 0.1.0 made it: paths of weights counted although their bytes did."""
        return self._judge_digest(self.judge_speed_options)

    def _judge_digest(self, ignored: Collection[str]) -> str:
        options = without(self.judge_options, ignored)
        return _hash({"judge": self.judge, "version": self.judge_version, "options": options})

    def to_json(self) -> dict[str, Json]:
        """As `run.json` stores it."""
        data = asdict(self) | {"protocol": self.protocol.to_json()}
        del data["beside"]  # the run's own is not
        return {name: list(value) if isinstance(value, tuple) else value for name, value in data.items()}

    @property
    def files(self) -> dict[str, str]:
        """What judges and folds by a file of code, `path/to/file.py:NAME`, by field."""
        return code_files({"judge": self.judge, "fold": self.fold}, self.judge_options)

    @classmethod
    def from_json(cls, data: Mapping[str, Json], where: str = "run.json") -> RunSpec:
        """From `run.json`.

        Raises:
            BadInput: naming the key whose value is missing, of another kind, out of range, or of another
                version of sar-eval.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise BadInput(f"{where} was written by another version of sar-eval (spec.{unknown[0]})")
        spec = convert(dict(data), cls, f"{where}, spec", "restore the file, or use another --out")
        for name in names_of("spec"):
            check_value(name, getattr(spec, name), where)
        for name in names_of("protocol"):
            check_value(name, getattr(spec.protocol, name), where)
        if "engine_speed_options" not in data:  # written by version 0.1.0 or before
            return replace(spec, engine_speed_options=_speed_options(spec.engine))
        return spec


def code_files(names: Mapping[str, Json], judge_options: Mapping[str, Json]) -> dict[str, str]:
    """Those of the names, and of the answerer and scorers in a judge's options, that are files of code."""
    scorers = judge_options.get("scorers")
    texts = scorers if isinstance(scorers, list) else [scorers]
    listed = [name for text in texts for name in str(text).split(",")]
    inner = {
        "answerer": judge_options.get("answerer"),
        **{f"scorer {n}": n.strip() for n in listed},
    }
    return {what: str(name) for what, name in {**names, **inner}.items() if discover.is_file(str(name))}


def without(options: Mapping[str, Json], ignored: Collection[str]) -> dict[str, Json]:
    """The options but for some; `hps.weights` is the option `weights` of the table `hps`."""
    left: dict[str, Json] = {}
    for name, value in options.items():
        if name in ignored:
            continue
        inner = {key.removeprefix(f"{name}.") for key in ignored if key.startswith(f"{name}.")}
        left[name] = without(value, inner) if inner and isinstance(value, dict) else value
    return left


def run_folder(spec: RunSpec, root: Path, shard: Shard | None = None, *, sequential: bool = False) -> Path:
    """Where a run goes unless --out says: the same command finds the same folder, so it resumes."""
    checkpoint = spec.checkpoint.removeprefix("demo:").rstrip("/").split("/")[-1]
    names = [re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in (spec.benchmark, checkpoint)]
    share = [f"{shard.index}-of-{shard.of}"] if shard else ["sequential"] if sequential else []
    return root / "-".join([*names, spec.digest[:8], *share])


def _speed_options(engine: str) -> tuple[str, ...]:
    """What the engine says of its options, if it is installed here. A file is not run for that."""
    if discover.is_file(engine):
        return ()
    try:
        return tuple(getattr(discover.load("engines", engine), "speed_options", ()))
    except (SarEvalError, ImportError):
        return ()


def _hash(data: Json) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

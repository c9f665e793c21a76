"""Stage: a run's figures as the Hugging Face hub takes them, in the folder of a model's repository.

`.eval_results/BENCHMARK.yaml` has the headline figure, in the form that leaderboards are made of
(https://huggingface.co/docs/hub/eval-results). That form has one number a benchmark: all other figures, and
the intervals, are in the `model-index` of README.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sar_eval import __version__
from sar_eval.errors import BadInput, Incomplete
from sar_eval.spec import RunSpec
from sar_eval.storage.files import storage_errors, write_bytes
from sar_eval.types import Metric, Summary

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", re.ASCII)


def write_eval_results(spec: RunSpec, summary: Summary, folder: Path, dataset: str = "") -> list[Path]:
    """Write both files, and return their paths.

    Args:
        spec: of the run.
        summary: with its figures.
        folder: of the model's repository. What README.md says beside the figures of this benchmark stays.
        dataset: the benchmark's dataset on the hub, as ORG/NAME or ORG/NAME:TASK; "" for the benchmark's
            own name.

    Raises:
        Incomplete: the run is not complete; nothing is written.
        BadInput: the dataset's name is none, or README.md has no block of metadata, or a broken one.
        StorageFailed: a file cannot be written.
    """
    if not summary.complete or not summary.metrics:
        raise Incomplete(f"nothing is written to {folder}: the run is incomplete, and so has no figures")
    dataset_id, _, task = check_dataset(dataset or _file_name(spec.benchmark)).partition(":")
    readme = folder / "README.md"
    with storage_errors(folder):
        card = _card(readme, Path(spec.checkpoint).name, _model_index(spec, summary, dataset_id))
        entries = folder / ".eval_results" / f"{_file_name(spec.benchmark)}.yaml"
        entries.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(entries, _entries(spec, summary, dataset_id, task or "default").encode())
    write_bytes(readme, card.encode())
    return [entries, readme]


def check_dataset(text: str) -> str:
    """The name of a dataset of the hub, and of a task of it if one is named.

    Raises:
        BadInput: it cannot be one.
    """
    if not DATASET.fullmatch(text):
        raise BadInput(f"--eval-dataset is {text!r}: ORG/NAME or ORG/NAME:TASK of a dataset on the hub")
    return text


def _entries(spec: RunSpec, summary: Summary, dataset: str, task: str) -> str:
    import yaml  # type: ignore[import-untyped]
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    headline = summary.metrics[0]
    entry = EvalResultEntry(dataset, task, headline.value, notes=_setup(spec) + _interval(headline))
    return str(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True))


def _setup(spec: RunSpec) -> str:
    """What the figures depend on, besides the checkpoint and the suite."""
    parts = [f"{spec.images_per_prompt} images per prompt", f"judge {spec.judge} {spec.judge_version}"]
    if spec.engine != "none":  # of imported images the protocol is unknown
        protocol = spec.protocol
        words = f"protocol {protocol.name}, {protocol.written_size} pixels, guidance {protocol.guidance:g}"
        parts = [words, f"seed {spec.seed}", *parts]
    return ", ".join([*parts, f"sar-eval {__version__}"])


def _interval(metric: Metric) -> str:
    """For people: the form has no field for it."""
    if metric.low is None or metric.high is None:
        return ""
    return f", 95 % interval {metric.written(metric.low)} to {metric.written(metric.high)}"


def _model_index(spec: RunSpec, summary: Summary, dataset: str) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type=dataset,
            dataset_name=spec.benchmark,
            dataset_args={"suite_digest": spec.suite_digest, "setup": _setup(spec)},
            metric_type=metric.name,
            metric_name=f"{metric.name} (of {metric.scale})" if metric.is_share else metric.name,
            metric_value=metric.value,
            metric_args={"low": metric.low, "high": metric.high, "confidence": 0.95, "n": metric.n},
        )
        for metric in summary.metrics
        if metric.value is not None
    ]


def _card(path: Path, checkpoint: str, results: Sequence[EvalResult]) -> str:
    """README.md with these results in its metadata, in place of those of the same dataset.

    Raises:
        BadInput: it is there and has no metadata, so it may be any text; or its metadata is broken.
    """
    from huggingface_hub import ModelCard

    try:
        text = path.read_bytes().decode() if path.is_file() else "---\n{}\n---\n"
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 ({error}): convert it, or name another folder") from error
    if not text.startswith("---"):
        raise BadInput(f"{path} has no metadata: begin it with two lines of ---, or name another folder")
    try:
        card = ModelCard(text)
    except Exception as error:  # YAML's errors, and the hub's own of a broken model-index
        raise BadInput(f"{path}: its metadata cannot be read: {error}") from error
    data: Any = card.data
    kept = [found for found in data.eval_results or [] if not _same_dataset(found, results[0])]
    data.eval_results, data.model_name = [*kept, *results], data.model_name or checkpoint
    return str(card)


def _same_dataset(one: Any, other: Any) -> bool:
    return bool((one.dataset_type, one.dataset_name) == (other.dataset_type, other.dataset_name))


def _file_name(benchmark: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", benchmark).strip("-.") or "benchmark"

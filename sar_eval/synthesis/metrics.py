"""A synthesis in numbers for a monitoring system: the text format of Prometheus, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/ - a node exporter's textfile collector or any
scraper of files takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sar_eval.synthesis.progress import SynthProgress, Tally

Sample = tuple[Mapping[str, str], float]


def prometheus_text(progress: SynthProgress, now: float) -> str:
    """All metrics, each with help and type.

    Args:
        progress: of this start.
        now: seconds since the epoch, so that a reader can tell how old the file is.
    """
    return "".join(f"{line}\n" for line in _lines(progress, now))


def _lines(progress: SynthProgress, now: float) -> Iterator[str]:
    tallies = {"": progress.overall} if not progress.workers else _by_worker(progress)
    yield from _metric(
        "blocks_expected", "gauge", "Blocks to do, those of earlier starts included.", progress.total
    )
    yield from _metric("blocks_done", "gauge", "Blocks that are committed, by anyone.", progress.done)
    yield from _metric(
        "blocks_committed_total",
        "counter",
        "Blocks that this start has committed.",
        [({"worker": name}, tally.blocks) for name, tally in tallies.items()],
    )
    yield from _metric(
        "draws_total", "counter", "Draws of this start, by what became of them.", _fates(tallies)
    )
    yield from _metric(
        "worker_seconds_total",
        "counter",
        "Seconds that workers took for their blocks.",
        [({"worker": name}, tally.seconds) for name, tally in tallies.items()],
    )
    yield from _metric(
        "pictures_per_second", "gauge", "Draws a second, lately.", progress.rate(progress.overall)
    )
    yield from _metric(
        "kept_share", "gauge", "Share of kept draws, of this start.", progress.overall.share.value
    )
    yield from _metric("seconds_left", "gauge", "At the pace of the last minutes.", progress.seconds_left)
    yield from _metric("updated_timestamp_seconds", "gauge", "When this was written.", now)


def _by_worker(progress: SynthProgress) -> dict[str, Tally]:
    return {str(index): tally for index, tally in sorted(progress.workers.items())}


def _fates(tallies: Mapping[str, Tally]) -> list[Sample]:
    samples: list[Sample] = []
    for worker, tally in tallies.items():
        for name, draws in sorted(tally.fates.items()):
            fate, _, clause = name.partition(": ")
            samples.append(({"worker": worker, "fate": fate, "clause": clause}, draws))
    return samples


def _metric(name: str, kind: str, help_text: str, value: float | Iterable[Sample] | None) -> Iterator[str]:
    """Help, type and samples of one metric; nothing where its value is not known yet."""
    if value is None:
        return
    samples = [({}, value)] if isinstance(value, int | float) else list(value)
    full = f"sar_eval_synth_{name}"
    yield f"# HELP {full} {help_text}"
    yield f"# TYPE {full} {kind}"
    for labels, number in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items() if text)
        yield f"{full}{{{inside}}} {number}" if inside else f"{full} {number}"


def _escaped(text: str) -> str:
    """A label's value: clauses of a filter are anyone's text."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

"""How far a synthesis is: counted from the driver's events, by a clock that the test moves."""

import re

import pytest

from sar_eval.storage.set_rows import BlockRecord
from sar_eval.synthesis.metrics import prometheus_text
from sar_eval.synthesis.monitor import SynthEvent, several
from sar_eval.synthesis.progress import STEP_S, WINDOW_S, Pace, SynthProgress


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(block: int, **fates: int) -> BlockRecord:
    """Of a block of 8 prompts, with these draws."""
    manifest = f"manifest/part-{block:09d}-0.parquet"
    return BlockRecord(block, 0, "", manifest, 8, sum(fates.values()), 0, 100, fates)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def half_done(clock: Clock) -> SynthProgress:
    """10 of 20 blocks were there; two workers have made four more in 20 s, another driver one."""
    progress = SynthProgress(clock)
    progress(SynthEvent("start", 10, 20))
    for n in range(4):
        clock.now += 5
        made = record(10 + n, kept=8, filtered=20, failed=n)
        progress(SynthEvent("block", 11 + n, 20, 10 + n, n % 2, made, seconds=9.0))
    progress(SynthEvent("block", 15, 20, 14, 0))
    return progress


def test_counts_are_of_this_start_alone(half_done: SynthProgress) -> None:
    overall = half_done.overall
    assert (half_done.done, half_done.total, half_done.elsewhere) == (15, 20, 1)
    assert (overall.blocks, overall.share.hits, overall.share.draws, overall.lacking) == (4, 32, 118, 6)
    assert dict(overall.fates) == {"kept": 32, "filtered": 80, "failed": 6}
    assert [half_done.workers[n].share.draws for n in (0, 1)] == [28 + 30, 29 + 31]


def test_rates_and_time_left(half_done: SynthProgress, clock: Clock) -> None:
    assert half_done.rate(half_done.overall) == pytest.approx(118 / 20)
    assert half_done.rate(half_done.workers[1]) == pytest.approx(60 / 20)
    assert half_done.seconds_left == pytest.approx(5 / (5 / 20))  # the other driver's block counts, too
    clock.now += 20  # nothing is finished: slower
    assert half_done.rate(half_done.overall) == pytest.approx(118 / 40)


def test_a_second_start_begins_anew(half_done: SynthProgress) -> None:
    half_done(SynthEvent("start", 15, 20))
    assert half_done.overall.blocks == half_done.elsewhere == 0
    assert half_done.rate(half_done.overall) is half_done.seconds_left is None


def test_a_rate_is_that_of_the_last_minutes(clock: Clock) -> None:
    pace = Pace(clock())
    assert pace.per_second(clock()) is None
    pace.add(clock.now + 600, 600)  # the network's start was slow
    for n in range(1, 301):
        pace.add(clock.now + 600 + n, 7)
    assert pace.per_second(clock.now + 900) == pytest.approx(7)


def test_a_fast_pace_keeps_few_marks(clock: Clock) -> None:
    pace = Pace(clock())
    for n in range(1, 100_001):
        pace.add(clock.now + n / 100, 3)
    assert pace.per_second(clock.now + 1000) == pytest.approx(300, rel=1e-3)
    assert len(pace._marks) <= 1.1 * WINDOW_S / STEP_S


def test_several_monitors_hear_the_same() -> None:
    heard: list[tuple[int, SynthEvent]] = []
    event = SynthEvent("note", 0, 1, note="x")
    several(lambda e: heard.append((1, e)), lambda e: heard.append((2, e)))(event)
    assert heard == [(1, event), (2, event)]


LABEL = r'[a-z]+="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"(sar_eval_synth_[a-z_]+)(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")


def samples(text: str) -> dict[str, float]:
    """What a scraper reads: each sample by name and labels, held against the format's grammar."""
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds  # all lines of a metric are one group
            assert name.removesuffix("_total") not in kinds  # one name to OpenMetrics
            kinds[name] = kind
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert next(reversed(kinds)) == match[1]
        assert (kinds[match[1]] == "counter") == match[1].endswith("_total")
        key = f"{match[1]}{{{match[2] or ''}}}"
        assert key not in found
        found[key] = float(match[3])
    return found


def test_metrics_are_prometheus_text(half_done: SynthProgress) -> None:
    found = samples(prometheus_text(half_done, 1.5e9))
    assert found["sar_eval_synth_blocks_done{}"] == 15
    assert found['sar_eval_synth_blocks_committed_total{worker="1"}'] == 2
    assert found['sar_eval_synth_draws_total{worker="1",fate="failed"}'] == 4
    assert found["sar_eval_synth_pictures_per_second{}"] == pytest.approx(5.9)
    assert found["sar_eval_synth_kept_share{}"] == pytest.approx(32 / 118)
    assert found["sar_eval_synth_updated_timestamp_seconds{}"] == 1.5e9


def test_metrics_of_nothing_leave_out_what_is_not_known(clock: Clock) -> None:
    names = {key.partition("{")[0] for key in samples(prometheus_text(SynthProgress(clock), 0.0))}
    assert "sar_eval_synth_blocks_expected" in names
    assert not names & {"sar_eval_synth_kept_share", "sar_eval_synth_pictures_per_second"}


def test_a_clause_is_no_syntax_of_the_format(clock: Clock) -> None:
    progress = SynthProgress(clock)
    clause = 'a > 1 and "b\\'
    made = record(0, **{"filtered: " + clause + "\n} 7": 3})
    progress(SynthEvent("block", 1, 1, 0, None, made))
    found = samples(prometheus_text(progress, 0.0))
    escaped = r"a > 1 and \"b\\\n} 7"
    assert found[f'sar_eval_synth_draws_total{{fate="filtered",clause="{escaped}"}}'] == 3

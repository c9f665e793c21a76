"""Rewards in processes of their own: right, and whatever a judge does, one verdict a picture."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from sar_eval.errors import BadInput
from sar_eval.images.files import encode_png
from sar_eval.rewards.pool import (
    RewardPool,
    RewardSpec,
    lost_share,
    reward_specs,
    scores,
)
from sar_eval.rewards.process import _environment
from sar_eval.rewards.worker import JudgeCall
from sar_eval.types import Generation, Prompt, Verdict

ROOT = Path(__file__).parents[3]
# A judge whose behaviour is each prompt's text: a number is its score.
FAULTY = (ROOT / "tests" / "faulty_judge.py").read_text()


@pytest.fixture
def judge_file(tmp_path: Path) -> str:
    (tmp_path / "faulty.py").write_text(FAULTY)
    return f"{tmp_path / 'faulty.py'}:JUDGE"


@pytest.fixture
def faulty(judge_file: str, tmp_path: Path) -> RewardSpec:
    return RewardSpec("faulty", judge_file, timeout_s=20.0, options={"folder": str(tmp_path)})


PICTURE = encode_png(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))


def _items(*texts: str) -> list[tuple[Prompt, Generation]]:
    return [
        (Prompt(f"p{n}", text), Generation(f"p{n}/0", n, image=PICTURE)) for n, text in enumerate(texts)
    ]


def _judged(spec: RewardSpec, *texts: str) -> list[Verdict]:
    with RewardPool([spec]) as pool:
        return pool.submit(_items(*texts))[0].result(60)


def _said(verdicts: Sequence[Verdict]) -> list[float | str | None]:
    return [v.score if v.error is None else v.error for v in verdicts]


def _with(spec: RewardSpec, **changes: object) -> RewardSpec:
    return RewardSpec(**{name: getattr(spec, name) for name in spec.__dataclass_fields__} | changes)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_every_item_gets_its_verdict_in_order(faulty: RewardSpec, workers: int) -> None:
    items = _items(*map(str, range(20, 27)))
    with RewardPool([_with(faulty, workers=workers), _with(faulty, name="again")]) as pool:
        first, second = pool.submit(items), pool.submit(items[:2])  # more workers than items
        empty = pool.submit([])
        assert pool.versions == {"faulty": "7", "again": "7"}
        for future in first:
            assert scores(future.result(60)) == [20.0, 21, 22, 23, 24, 25, 26]
            assert [v.key for v in future.result()] == [g.key for _, g in items]
        assert [scores(future.result(60)) for future in second] == [[20.0, 21.0]] * 2
        assert [future.result(60) for future in empty] == [[], []]
    folder = Path(str(faulty.options["folder"]))
    assert len(list(folder.glob("*.closed"))) == len(list(folder.glob("*.started"))) == workers + 1


def test_draws_of_one_key_and_draws_that_failed(faulty: RewardSpec) -> None:
    (one, drawn), (two, _) = _items("1", "3")
    failed = Generation("f/0", 0, error="out of memory")
    with RewardPool([faulty]) as pool:
        found = pool.submit([(one, drawn), (two, drawn), (one, failed)])[0].result(60)
    assert _said(found) == [1.0, 3.0, "not drawn: out of memory"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("die", "was ended by SIGKILL"),
        pytest.param("exit", "ended with exit code 0", marks=pytest.mark.slow),
        pytest.param("lose", "an illegal memory access", marks=pytest.mark.slow),
        ("raise", "ZeroDivisionError: three"),
        ("text", "TypeError: the judge gave a str in place of a verdict"),
        ("other", "a verdict for 'nobody/0', which it was not asked for"),
    ],
)
def test_a_picture_that_breaks_the_judge_costs_one_reward(
    faulty: RewardSpec, fault: str, error: str
) -> None:
    found = _judged(faulty, "1", fault, "0.5", "0.25")
    assert error in (found[1].error or "")
    assert _said([found[0], *found[2:]]) == [1.0, 0.5, 0.25]
    assert (found[1].key, found[1].score) == ("p1/0", None)


def test_a_judge_that_ends_what_is_not_its_own_shows_no_traceback(faulty: RewardSpec, capfd) -> None:
    """An interrupt, the end of a generator, and all descriptors closed, the pipe to the trainer too."""
    found = _said(_judged(faulty, "1", "interrupt", "0.5", "generator", "0.25", "pipes", "0"))
    assert [found[n] for n in (0, 2, 4, 6)] == [1.0, 0.5, 0.25, 0.0]
    for position, error in ((1, "KeyboardInterrupt"), (3, "GeneratorExit: out"), (5, "worker")):
        assert error in str(found[position])
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("score", ["1e308", "-1e31"])
def test_a_score_that_no_sum_can_hold_is_an_error(faulty: RewardSpec, score: str) -> None:
    assert _said(_judged(faulty, "1", score)) == [
        1.0,
        f"the judge's score is {float(score):g}, beyond 1e+30",
    ]


@pytest.mark.parametrize(
    "fault",
    ["die", pytest.param("raise", marks=pytest.mark.slow), pytest.param("lose", marks=pytest.mark.slow)],
)
def test_what_fails_once_is_judged_again(faulty: RewardSpec, fault: str) -> None:
    assert _said(_judged(faulty, "0.5", f"once {fault}", "0.25")) == [0.5, 1.0, 0.25]


def test_a_hanging_judge_is_ended_after_its_time(faulty: RewardSpec) -> None:
    start = time.monotonic()
    found = _judged(_with(faulty, timeout_s=1.0), "1", "hang", "0.5")
    assert _said(found) == [1.0, "the judge said nothing for 1 s (timeout_s)", 0.5]
    assert time.monotonic() - start < 20


@pytest.mark.slow
def test_a_judge_that_always_fails_is_given_up(faulty: RewardSpec) -> None:
    start = time.monotonic()
    with RewardPool([_with(faulty, timeout_s=1.0)]) as pool:
        found = pool.submit(_items(*["hang"] * 50))[0].result(60)
        assert lost_share(found) == 1.0
        assert scores(pool.submit(_items("1", "0.5"))[0].result(60)) == [1.0, 0.5]  # the next ones are
    assert time.monotonic() - start < 20


def test_garbage_is_an_error_of_its_picture(faulty: RewardSpec) -> None:
    found = _said(_judged(faulty, "nan", "inf", "none", "passed", "forget", "unplain", "0.5"))
    assert found[:5] == [
        "the judge's score is nan",
        "the judge's score is inf",
        "the judge gave no score",
        1.0,
        "the judge gave no verdict",
    ]
    assert "not plain" in str(found[5])
    assert found[6] == 0.5


def test_a_second_verdict_is_an_error(faulty: RewardSpec) -> None:
    assert _said(_judged(faulty, "1", "2"))[1] == "the judge gave a second verdict for 'p1/0'"
    assert "not plain: could not convert" in str(_said(_judged(faulty, "word"))[0])


def test_a_worker_killed_while_idle_is_started_again(faulty: RewardSpec) -> None:
    with RewardPool([faulty]) as pool:
        first = pool._rewards[0].workers[0]._process
        assert first is not None
        os.kill(first.pid, signal.SIGINT)  # ignored
        assert scores(pool.submit(_items("1"))[0].result(60)) == [1.0]
        assert pool._rewards[0].workers[0]._process is first
        os.kill(first.pid, signal.SIGKILL)
        assert scores(pool.submit(_items("1", "0.5"))[0].result(60)) == [1.0, 0.5]
        assert pool._rewards[0].workers[0]._process is not first


@pytest.mark.parametrize(("start", "why"), [("bad", "no such weights"), ("die", "ended by SIGKILL")])
def test_a_judge_that_cannot_start_is_refused(faulty: RewardSpec, start: str, why: str) -> None:
    broken = _with(faulty, name="broken", options={**faulty.options, "start": start})
    with (
        pytest.raises(BadInput, match=rf"reward 'broken' cannot start: .*{why}"),
        RewardPool([faulty, broken]),
    ):
        pass
    with pytest.raises(BadInput, match=r"cannot be made with the options.*nonsense"):
        _judged(_with(faulty, options={"nonsense": 1}), "1")


def test_what_a_judge_started_ends_with_it(faulty: RewardSpec, tmp_path: Path) -> None:
    _judged(faulty, "1", "child")
    sleepers = [int(path.stem) for path in tmp_path.glob("*.sleeper")]
    assert len(sleepers) == 2
    assert _still_alive(sleepers) == []


@pytest.mark.slow
def test_a_worker_that_takes_no_items_is_ended(faulty: RewardSpec) -> None:
    large = Generation("p0/0", 0, image=bytes(5_000_000))  # more than a pipe holds
    with RewardPool([_with(faulty, timeout_s=1.0)]) as pool:
        process = pool._rewards[0].workers[0]._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        assert scores(pool.submit([(Prompt("p0", "0.5"), large)])[0].result(60)) == [0.5]


def test_a_package_s_judge_is_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed_judge.py").write_text(FAULTY)
    info = tmp_path / "installed_judge-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-judge\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sar_eval.judges]\ntheir_judge = installed_judge:JUDGE\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"folder": str(tmp_path)}
    for name in ("their_judge", "their-judge"):
        (spec,) = reward_specs({name: {"options": options}}, "mine.toml")
        assert _said(_judged(spec, "0.5")) == [0.5]


@pytest.mark.parametrize(
    ("device", "visible", "rank", "card"),
    [
        ("cuda", None, None, "0"),
        ("cuda", None, "2", "2"),
        ("cuda", "4,5,6", "2", "6"),
        ("cuda:1", "4,5,6", "2", "5"),
        ("cuda:1", None, None, "1"),
        ("cpu", "4,5", "1", "4,5"),
    ],
)
def test_a_worker_sees_its_own_card(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, rank: str | None, card: str
) -> None:
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("LOCAL_RANK", rank)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    found = _environment(JudgeCall("any", device, sharing=3))
    assert found["CUDA_VISIBLE_DEVICES"] == card
    assert "LOCAL_RANK" not in found
    assert found["SAR_EVAL_WORKERS_PER_DEVICE"] == "3"


def test_a_card_that_is_not_there_is_named(faulty: RewardSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(BadInput, match=r"'faulty' cannot start: there is no card 2: CUDA_VIS.* is '4,5'"):
        _judged(_with(faulty, device="cuda:2"), "1")


def test_a_process_that_cannot_be_started_is_an_error(
    faulty: RewardSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RewardPool([faulty]) as pool:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        assert "cannot start again" in str(_said(pool.submit(_items("die"))[0].result(60))[0])
    with pytest.raises(BadInput, match="its process cannot be started"):
        _judged(faulty, "1")


def test_a_worker_has_one_thread_no_torch_and_no_rank(
    faulty: RewardSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("RANK", "3")
    assert _said(_judged(faulty, "threads", "torch", "rank")) == [1.0, 0.0, 0.0]


def test_work_is_left_when_the_pool_closes(faulty: RewardSpec) -> None:
    start = time.monotonic()
    with RewardPool([faulty]) as pool:
        future = pool.submit(_items("hang", "1"))[0]
    assert lost_share(future.result(1)) == 1.0
    assert time.monotonic() - start < 15


TRAINER = """
import sys, time
sys.path.insert(0, {tests!r})
from test_rewards import _items
from sar_eval.rewards.pool import RewardPool, RewardSpec
# No `if __name__ == "__main__"`: a spawn of multiprocessing would run this again.
spec = RewardSpec("faulty", {judge!r}, workers=2, options={{"folder": {folder!r}}})
with RewardPool([spec]) as pool:
    pool.submit(_items({texts}))
    print("ready", *(w._process.pid for w in pool._rewards[0].workers), flush=True)
    time.sleep(600)
"""


def _still_alive(pids: Iterable[int]) -> list[int]:
    """Those that are not gone within ten seconds: a kill takes a moment."""
    left, end = list(pids), time.monotonic() + 10
    while (left := [pid for pid in left if _is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
@pytest.mark.parametrize("texts", ["", pytest.param("'hang', 'hang'", marks=pytest.mark.slow)])
def test_no_worker_outlives_the_trainer(
    judge_file: str, tmp_path: Path, texts: str, end: signal.Signals
) -> None:
    code = TRAINER.format(
        tests=str(Path(__file__).parent), judge=judge_file, folder=str(tmp_path), texts=texts
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as trainer:
        try:
            assert trainer.stdout is not None
            word, *pids = trainer.stdout.readline().split()  # what the judge prints is not here
            os.killpg(trainer.pid, end)  # as a terminal's Ctrl-C does
            errors = trainer.communicate(timeout=20)[1]
        finally:
            trainer.kill()
    assert (word, len(pids)) == ("ready", 2)
    assert _still_alive(map(int, pids)) == []
    assert errors.count("KeyboardInterrupt") == (end == signal.SIGINT)  # the trainer's alone


def test_a_scorer_is_a_reward() -> None:
    (spec,) = reward_specs({"colourfulness": {}}, "mine.toml")
    assert (spec.judge, spec.options) == ("score", {"scorers": ["colourfulness"]})
    (verdict,) = _judged(spec, "whatever")
    assert verdict.error is None
    assert verdict.score == verdict.evidence["scores"]["colourfulness"] > 0

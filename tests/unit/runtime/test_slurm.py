"""The array script and its submission, against commands that really run the tasks."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, Incomplete
from sar_eval.runtime import slurm
from sar_eval.runtime.slurm import ArrayJob
from tests.e2e.slurm_stand_in import SlurmStandIn

# Appends its share to the file; the first time it then waits for the warning, and ends as interrupted.
WORK = """
import os, signal, sys, time
if os.environ["SLURM_RESTART_COUNT"] == "0" and sys.argv[2].startswith(sys.argv[3]):
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
    print("ready", flush=True)
    time.sleep(60)
with open(sys.argv[1], "a") as file:
    file.write(sys.argv[2] + "\\n")
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmStandIn:
    made = SlurmStandIn(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(made.bin), prepend=":")
    return made


def _job(folder: Path, shares: int, waits: str = "none", **more: object) -> ArrayJob:
    program = folder / "it's work.py"
    program.write_text(WORK)
    words = (sys.executable, "-S", str(program), str(folder / "done.txt"))
    return ArrayJob(
        name="work",
        words=words,
        own=f'"$share/$shares" {waits}',
        shares=shares,
        folder=folder / "100% work.slurm",
        workdir=folder,
        stop_signal="USR1",
        **more,
    )


def _done(folder: Path) -> list[str]:
    path = folder / "done.txt"
    return sorted(path.read_text().split()) if path.exists() else []


def test_every_share_runs_once_and_a_warned_one_is_queued_again(
    tmp_path: Path, cluster: SlurmStandIn
) -> None:
    job = _job(tmp_path, 4, waits="3/", at_once=2)
    slurm.submit(job, [1, 2, 3, 4])
    log = job.folder / "logs" / "100_2.log"

    def warn_third() -> None:  # again and again: also while the script is about to end
        third = cluster.tasks[2]
        if third.running and third.restarts == 0 and log.exists() and "ready" in log.read_text():
            cluster.warn(third)

    cluster.run(warn_third)
    assert _done(tmp_path) == ["1/4", "2/4", "3/4", "4/4"], log.read_text()
    assert [task.restarts for task in cluster.tasks] == [0, 0, 1, 0]
    assert "scontrol requeue 100_2" in cluster.calls


def test_a_share_that_ends_badly_without_a_warning_stays_ended(
    tmp_path: Path, cluster: SlurmStandIn
) -> None:
    job = _job(tmp_path, 1)
    job.folder.parent.joinpath("it's work.py").write_text("raise SystemExit(3)")
    slurm.submit(job, [1])
    cluster.run()
    assert cluster.tasks[0].codes == [3]
    assert not [call for call in cluster.calls if call.startswith("scontrol")]


def test_arrays_hold_a_thousand_tasks_and_know_what_is_queued(
    tmp_path: Path, cluster: SlurmStandIn
) -> None:
    job, shares = _job(tmp_path, 2500, at_once=90), [1, 2, 3, 7, 1000, 1001, 2500]
    made = slurm.submit(job, shares)
    assert [(s.first, s.shares) for s in made] == [
        (1, [1, 2, 3, 7, 1000]),
        (1001, [1001]),
        (2001, [2500]),
    ]
    assert slurm.sbatch_lines(job, []) == []
    arrays = [shlex.split(call)[2] for call in cluster.calls]
    assert arrays == ["--array=0-2,6,999%30", "--array=0%30", "--array=499%30"]
    assert slurm.queued_shares(job.folder, 2500) == set(shares)
    assert slurm.queued_shares(job.folder, 2400) == set()
    cluster.step()  # starts them: `kill` needs a process
    for task in cluster.tasks[:2]:
        cluster.kill(task)
    assert slurm.queued_shares(job.folder, 2500) == set(shares) - {1, 2}
    for task in cluster.running:
        cluster.kill(task)


def test_a_refused_submission_says_what_is_submitted(tmp_path: Path, cluster: SlurmStandIn) -> None:
    job = _job(tmp_path, 2000)
    (cluster.folder / "down").touch()
    with pytest.raises(BadInput, match="Unable to contact slurm controller"):
        slurm.submit(job, [1, 2])
    (cluster.folder / "down").unlink()
    sbatch = (cluster.bin / "sbatch").read_text()
    second_is_too_many = (
        f"[ $(ls {cluster.folder}/jobs 2>/dev/null | wc -l) = 1 ] && echo limit >&2 && exit 1\n"
    )
    (cluster.bin / "sbatch").write_text(sbatch.replace("exec", f"{second_is_too_many}exec"))
    with pytest.raises(Incomplete, match=r"2 of 3 tasks are submitted, then .*limit"):
        slurm.submit(job, [1, 2, 1001])
    assert slurm.queued_shares(job.folder, 2000) == {1, 2}


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="no sbatch here: start this on a login node"):
        slurm.submit(_job(tmp_path, 1), [1])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["partition=gpu", "--gres=gpu:1", "exclusive"],
            {"partition": "gpu", "gres": "gpu:1", "exclusive": ""},
        ),
        (["signal=B:USR1@300"], {"signal": "B:USR1@300"}),
        (["array=0-3"], "the array script sets this itself"),
        (["signal=TERM@10"], "the array script sets this itself"),
        (["comment=a\n#SBATCH --uid=0"], "NAME=VALUE"),
        (["Partition=gpu"], "NAME=VALUE"),
        (["=gpu"], "NAME=VALUE"),
    ],
)
def test_options_of_sbatch(words: Sequence[str], expected: dict[str, str] | str) -> None:
    if isinstance(expected, dict):
        assert slurm.parse_sbatch_options(words) == expected
        return
    with pytest.raises(BadInput, match=expected):
        slurm.parse_sbatch_options(words)


def test_the_script_is_valid_and_quotes_what_it_is_given(tmp_path: Path) -> None:
    options = {"comment": 'a "b" $(touch x)', "signal": "B:USR1@60"}
    job = _job(tmp_path, 9, options=options, setup="module load cuda\n")
    text = slurm.write_script(job).read_text()
    subprocess.run(["bash", "-n", job.script_path], check=True)
    lines = text.splitlines()
    assert "#SBATCH --comment='a \"b\" $(touch x)'" in lines
    assert "#SBATCH --signal=B:USR1@60" in lines
    assert "module load cuda" in lines
    assert f"#SBATCH --output='{tmp_path}/100%% work.slurm/logs/%A_%a.log'" in lines

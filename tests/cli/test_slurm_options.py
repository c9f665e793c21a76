"""`--runtime slurm` on the command line: what is submitted, what is left out, what is refused."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run, refused

from sar_eval.cli.slurm import job_folder
from sar_eval.stages.shards import is_finished
from sar_eval.storage.image_set import record_name
from sar_eval.types import Prompt
from tests.e2e.slurm_stand_in import SlurmStandIn
from tests.stored_runs import begin_run, store_generations, store_verdicts

ENGINE = f"{Path(__file__).parents[2] / 'benchmarks' / 'speed' / 'null_engine.py'}:ENGINE"
SET = (
    "synth",
    "prompts.txt",
    "--ckpt",
    "demo:sft",
    "--engine",
    ENGINE,
    "--block-prompts",
    "1",
    "--out",
    "set",
)
ON_SLURM = ("--runtime", "slurm", "--tasks", "3")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmStandIn:
    made = SlurmStandIn(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(made.bin), prepend=":")
    (tmp_path / "prompts.txt").write_text("".join(f"a ring {n}\n" for n in range(7)))
    return made


def _task_command(script: str) -> str:
    return script[script.index(f"{shlex.quote(sys.executable)} -m sar_eval ") :].splitlines()[0]


def _valid(script: str) -> bool:
    return subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_dry_run_prints_what_would_be_submitted(
    in_this_process: Run, cluster: SlurmStandIn, tmp_path: Path
) -> None:
    (tmp_path / "setup.sh").write_text("module load cuda\n")
    more = ("--at-once", "2", "--sbatch-option", "gres=gpu:1", "--setup", "setup.sh", "--devices", "cpu")
    done = in_this_process([*SET, *ON_SLURM, *more, "--dry-run"])
    assert done.returncode == 0, done.stderr
    assert _valid(done.stdout)
    assert "#SBATCH --gres=gpu:1\n" in done.stdout
    assert "\nmodule load cuda\n" in done.stdout
    command = _task_command(done.stdout)
    named = f"--threads=1 --devices=cpu --code={ENGINE}"  # as the command that submits has named it
    assert command.endswith(f'/set {named} --share "$share/$shares"')
    assert f"# sbatch --parsable --array=0-2%2 {tmp_path}/set.slurm/array.sbatch 1" in done.stdout
    assert not (tmp_path / "set.slurm").exists()


def test_shares_that_are_complete_or_queued_are_left_out(
    in_this_process: Run, cluster: SlurmStandIn, tmp_path: Path
) -> None:
    done = in_this_process([*SET, *ON_SLURM])
    assert "submitted job 100: shares 1-3 of 3" in done.stdout, done.stderr
    done = in_this_process([*SET, *ON_SLURM])
    assert "nothing to submit" in done.stdout
    assert "3 shares are in SLURM's queue already" in done.stderr
    for task in (0, 1):
        (cluster.folder / "jobs" / "100" / f"ended-{task}").touch()
    record = {"attempt": 0, "data": "", "prompts": 1, "draws": 1, "data_bytes": 0, "manifest_bytes": 0}
    for block in (0, 3, 6):
        name = f"manifest/part-{block:09d}-{'0' * 16}.parquet"
        _write(tmp_path / "set", block, {**record, "block": block, "manifest": name, "fates": {"kept": 1}})
    done = in_this_process([*SET, *ON_SLURM])
    assert "submitted job 110: share 2 of 3" in done.stdout, done.stderr
    assert "1 shares are in SLURM's queue already" in done.stderr


def _write(folder: Path, block: int, record: dict[str, object]) -> None:
    path = folder / record_name(block, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("command", "more"),
    [(("run", "shapes"), ("-n", "2", "--scorer-option", "clip.x=a b")), (("generate", "prompts.txt"), ())],
)
def test_a_run_is_one_array_over_its_shards(
    in_this_process: Run,
    cluster: SlurmStandIn,
    tmp_path: Path,
    command: tuple[str, str],
    more: tuple[str, ...],
) -> None:
    scored = ("--scorers", "clip") if more else ()
    words = [
        *command,
        "--ckpt",
        "demo:sft",
        *more,
        *scored,
        *ON_SLURM,
        "--speculate",
        "--out",
        "runs/it is",
    ]
    done = in_this_process([*words, "--dry-run"])
    assert done.returncode == 0, done.stderr
    task = _task_command(done.stdout)
    shown = subprocess.run(
        ["bash", "-c", f"share=2 shares=3; printf '%s\\n' {task}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert shown[:5] == [sys.executable, "-m", "sar_eval", *command] or set(command) < set(shown)
    assert shown[-4:] == ["--shard", "2/3", "--out", "runs/it is-2-of-3"]
    assert "--speculate" in shown
    assert not any("slurm" in word or "tasks" in word for word in shown)
    assert ("--scorer-option=clip.x=a b" in shown) == bool(more)
    assert "sar-eval join 'runs/it is-'*-of-3 --out 'runs/it is'" in done.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((*SET, "--runtime", "slurm"), "--runtime slurm needs --tasks"),
        ((*SET, "--tasks", "3"), "--tasks is for --runtime slurm"),
        ((*SET, *ON_SLURM, "--sbatch-option", "array=1"), "the array script sets this itself"),
        ((*SET, *ON_SLURM, "--setup", "missing.sh"), "no file missing.sh"),
        (
            ("generate", "prompts.txt", "--ckpt", "demo:sft", *ON_SLURM, "--shard", "1/2"),
            "--shard is for one task",
        ),
        (("synth", "work", "set", "--share", "0/2"), "--share is '0/2'"),
        (("synth", "work", "nowhere", "--share", "1/2"), "nowhere is no set"),
    ],
)
def test_what_cannot_be_is_refused(
    in_this_process: Run, cluster: SlurmStandIn, words: tuple[str, ...], error: str
) -> None:
    refused(in_this_process(words), error)


def test_a_shard_is_finished_with_all_its_images_and_verdicts(tmp_path: Path) -> None:
    prompts = [Prompt(f"p{n}", f"ring {n}") for n in range(4)]
    keys = [f"{prompt.id}/0" for prompt in prompts]
    spec, folder = begin_run(tmp_path / "run", prompts, batch_size=2, images_per_prompt=1)
    assert not is_finished(folder)
    store_generations(spec, folder, {key: key.encode() for key in keys})
    assert not is_finished(folder)
    store_verdicts(spec, folder, dict.fromkeys(keys, 1.0))
    assert is_finished(folder)
    next(iter(folder.verdicts(spec.verdict_table).parts().values())).path.unlink()
    assert not is_finished(folder)


def test_scripts_lie_beside_folders_and_here_for_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert job_folder("sets/a/") == tmp_path / "sets" / "a.slurm"
    first, second = job_folder("s3://bucket/x/my set"), job_folder("s3://bucket/y/my set")
    assert first.parent == second.parent == tmp_path
    assert first.name.startswith("my-set-")
    assert first != second

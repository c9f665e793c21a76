"""The run's lock, and the folders that it lets a run write in."""

import os
from pathlib import Path

import pytest

from sar_eval.errors import BadInput, RunLocked
from sar_eval.storage.files import remove_own_temporaries
from sar_eval.storage.lock import run_lock, training_lock
from sar_eval.storage.run_folder import PART_NAME

PART = "part-000009-0123456789abcdef.parquet"


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "thesis.tmp",
        "notes.txt",
        "run.json.bak",
        "prompts.parquet",
        "generations/",
        "x.tmp/",
    ],
)
def test_a_folder_with_other_things_is_refused_untouched(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_text("mine")
    before = _tree(tmp_path)
    with pytest.raises(BadInput, match="is not empty and no run folder") as refused, run_lock(tmp_path):
        pass
    assert repr(name.rstrip("/")) in str(refused.value)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("names", [[], [".DS_Store"], ["lost+found"], ["run.lock", "prompts.parquet"]])
def test_an_empty_folder_or_one_of_a_start_that_died_is_taken(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with run_lock(tmp_path):
        assert (tmp_path / "run.lock").exists()


@pytest.mark.parametrize("kind", ["a link", "a dangling link", "a pipe", "a folder"])
def test_a_lock_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A run folder from elsewhere: the owner's name would be written over what the link leads to."""
    path, victim = tmp_path / "run" / "run.lock", tmp_path / "victim"
    path.parent.mkdir()
    (path.parent / "run.json").touch()
    if kind == "a link":
        victim.write_text("mine")
    make = {"a pipe": os.mkfifo, "a folder": os.mkdir}.get(kind, lambda path: path.symlink_to(victim))
    make(path)
    with pytest.raises(BadInput, match="is no regular file"), run_lock(path.parent):
        pass
    assert (victim.read_text() if kind == "a link" else victim.exists()) == (
        "mine" if kind == "a link" else False
    )


def test_only_our_own_temporary_files_are_removed(tmp_path: Path) -> None:
    target = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    target.write_text("mine")
    for name in ("run.json", "thesis.tmp", "thesis.12.tmp", "summary.json.tmp", "summary.json.12.tmp"):
        (tmp_path / name).write_text("x")
    (tmp_path / "report.html.13.tmp").mkdir()
    (tmp_path / "prompts.parquet.14.tmp").symlink_to(target)
    with run_lock(tmp_path):
        assert not (tmp_path / "summary.json.12.tmp").exists()
    kept = {
        "thesis.tmp",
        "thesis.12.tmp",
        "summary.json.tmp",
        "report.html.13.tmp",
        "prompts.parquet.14.tmp",
    }
    assert {path.name for path in tmp_path.iterdir()} == kept | {"run.json", "run.lock"}
    assert target.read_text() == "mine"


def test_a_table_loses_only_temporary_parts(tmp_path: Path) -> None:
    names = [f"{PART}.7.tmp", f"{PART}.tmp", f"{PART}.x.tmp", "part-9-0.parquet.7.tmp", "mine.tmp"]
    for name in names:
        (tmp_path / name).touch()
    remove_own_temporaries(tmp_path, PART_NAME)
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
    remove_own_temporaries(tmp_path / "absent", PART_NAME)


@pytest.mark.parametrize("out", ["f/run", "f", "x" * 300, "a\0b", "loop", "loop/run", "dangling"])
def test_a_path_that_cannot_be_a_folder_is_bad_input(tmp_path: Path, out: str) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("absent")
    with (
        pytest.raises(BadInput, match=r"cannot be a run folder .*--out"),
        run_lock(Path(f"{tmp_path}/{out}")),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_bad_input(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="cannot be a run folder"), run_lock(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "run.json", "best/x", "samples/x", "state/x", "state"]
)
def test_a_folder_with_other_things_is_no_trainings(tmp_path: Path, name: str) -> None:
    """Training would replace a checkpoint of the same file names, and remove folders called so."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = _tree(tmp_path)
    refused = pytest.raises(BadInput, match=r"--out .*(no training's folder|Not a directory)")
    with refused, training_lock(tmp_path):
        pass
    assert _tree(tmp_path) == before
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "names",
    [[], [".DS_Store"], ["settings.json.77.tmp"], ["state/lock"], ["settings.json", "model.safetensors"]],
)
def test_a_new_folder_or_a_trainings_own_is_trained_in_by_one_process(
    tmp_path: Path, names: list[str]
) -> None:
    out = tmp_path / "new" / "out"
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    refused = pytest.raises(RunLocked, match=f"another process works in {out}")
    with training_lock(out), refused, training_lock(out):
        pass
    with training_lock(out):
        pass


@pytest.mark.parametrize("kind", ["a file", "below a file", "a loop"])
def test_what_can_be_no_folder_is_named_as_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    path.symlink_to(path) if kind == "a loop" else path.write_text("mine")
    refused = pytest.raises(BadInput, match="cannot be the folder to write")
    with refused, training_lock(path / "within" if kind == "below a file" else path):
        pass

"""A folder that is replaced is the old one or the new one, wherever the process dies."""

from pathlib import Path

import pytest

from sar_eval.errors import StorageFailed
from sar_eval.storage.replaced_folders import recover_folder, replace_folder


class Killed(Exception):
    """The process is no more."""


def _write(text: str):
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)

    return write


def _content(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.iterdir())]


def _beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


@pytest.mark.parametrize("deadly", range(1, 7))
def test_a_crash_at_any_moment_leaves_one_whole_folder(tmp_path, monkeypatch, deadly) -> None:
    best, calls = tmp_path / "best", 0
    replace_folder(best, _write("old"))

    def dying(function):
        def called(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == deadly:
                raise Killed
            return function(*args, **kwargs)

        return called

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", dying(__import__("shutil").rmtree))
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(Path, "write_text", dying(Path.write_text))
        with pytest.raises(Killed):
            replace_folder(best, _write("new"))
    recover_folder(best)
    assert _content(best) in (["old", "old"], ["new", "new"])
    assert _beside(best) == ["best"]


def test_a_folder_that_cannot_be_written_leaves_the_old_one(tmp_path) -> None:
    best = tmp_path / "best"
    replace_folder(best, _write("old"))

    def full(folder: Path) -> None:
        folder.mkdir()
        (folder / "a").write_text("new")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageFailed, match="disk is full"):
        replace_folder(best, full)
    assert _content(best) == ["old", "old"]
    recover_folder(best)
    assert _beside(best) == ["best"]


def test_there_may_be_nothing_to_recover(tmp_path) -> None:
    recover_folder(tmp_path / "best")
    assert list(tmp_path.iterdir()) == []

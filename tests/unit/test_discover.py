"""Names, files and entry points lead to objects; wrong ones to a helpful error."""

from pathlib import Path

import pytest

from sar_eval import discover
from sar_eval.errors import BadInput, MissingExtra, UnknownName


def test_built_in_names_are_listed_with_their_headline() -> None:
    assert discover.names("engines")["native"].startswith("Batched decoding")
    assert "shapes" in discover.names("judges")
    assert set(discover.names("answerers")) >= {"server", "transformers"}
    assert set(discover.names("benchmarks")) >= {"geneval", "shapes"}


def test_a_file_names_an_object(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text('"""Mine."""\nJUDGE = "here"\n')
    assert discover.load("judges", f"{path}:JUDGE") == "here"
    with pytest.raises(BadInput, match="defines no OTHER"):
        discover.load("judges", f"{path}:OTHER")
    with pytest.raises(BadInput, match="no file"):
        discover.load("judges", f"{tmp_path}/none.py:JUDGE")


@pytest.mark.parametrize(("name", "hint"), [("shape", "did you mean 'shapes'"), ("zzz", "known: ")])
def test_unknown_names_are_reported(name: str, hint: str) -> None:
    with pytest.raises(UnknownName, match=hint):
        discover.load("judges", name)


def test_no_name_escapes_the_folder() -> None:
    with pytest.raises(UnknownName):
        discover.load("judges", "../types")


def test_a_missing_extra_says_how_to_install_it() -> None:
    with pytest.raises(MissingExtra, match=r"engine 'vllm' needs: pip install 'sar-eval\[vllm\]'"):
        discover.need("no_such_package", extra="vllm", what="engine 'vllm'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "cannot be imported: SyntaxError"),
        ("raise TypeError('at import')\n", "cannot be imported: TypeError: at import"),
        ("import no_such_package_of_mine\n", "cannot be imported: ModuleNotFoundError"),
        ("OTHER = 1\n", "defines no JUDGE"),
    ],
)
def test_a_file_that_is_no_addition_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(BadInput, match=rf"mine\.py {message}"):
        discover.load("judges", f"{tmp_path / 'mine.py'}:JUDGE")


def test_an_addition_says_itself_which_extra_it_needs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from sar_eval.discover import need\nneed('no_such_package', extra='mine', what='judge mine')\n"
    )
    with pytest.raises(MissingExtra, match=r"judge mine needs: pip install 'sar-eval\[mine\]'"):
        discover.load("judges", f"{tmp_path / 'mine.py'}:JUDGE")


def test_dash_and_underscore_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "added.py").write_text("ONE, TWO = 'one', 'two'\n")
    info = tmp_path / "added-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[sar_eval.judges]\nmy_judge = added:ONE\n[sar_eval.trackers]\na_b = added:ONE\na-b = added:TWO\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert {discover.load("judges", name) for name in ("my_judge", "my-judge")} == {"one"}
    assert [discover.load("trackers", name) for name in ("a_b", "a-b")] == [
        "one",
        "two",
    ]  # as written first
    assert discover.listed("judges", "my-judge") == "my_judge"
    assert discover.listed("judges", "shapes_soft") == "shapes-soft"
    assert discover.listed("judges", "nobody") is None
    fold = discover.load("benchmarks", "wise_legacy")
    assert fold is discover.load("benchmarks", "wise-legacy")
    assert {"wise-legacy", "oneig-text"} <= set(discover.names("benchmarks"))

"""What `python -m build` makes, installed where there is no other sar-eval."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*words: object, **options: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution and the wheel made from it."""
    folder = tmp_path_factory.mktemp("built")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with the wheel, which sees the dependencies of this one.

    They are gigabytes, so a path file lends them. Path files in a folder that is lent so are not read:
    the finder of an editable sar-eval does not come along.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    lent = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "lent.pth").write_text("\n".join(lent) + "\n")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    _run(*pip, "install", "--quiet", "--no-deps", "--no-index", next(built.glob("*.whl")))
    return folder / "bin"


@pytest.mark.slow
def test_the_package_comes_from_the_wheel(bare: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys, sar_eval\n"
        "from importlib.metadata import distribution\n"
        "package = distribution('sar-eval')\n"
        "where = [sar_eval.__file__, str(package.locate_file(''))]\n"
        "print(json.dumps([where, sys.path, [str(f) for f in sys.meta_path], package.version]))"
    )
    where, path, finders, version = json.loads(_run(bare / "python", "-c", code, cwd=tmp_path))
    assert all(Path(location).is_relative_to(bare.parent) for location in where)
    assert str(ROOT) not in path
    assert not any("editable" in finder for finder in finders)
    assert _run(bare / "sar-eval", "--version", cwd=tmp_path) == f"sar-eval {version}\n"


@pytest.mark.slow
def test_the_wheel_runs_a_benchmark_in_an_empty_folder(bare: Path, suite: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ("run", "shapes", "--ckpt", "demo:sft", "--suite", suite, "-n", 1, "--json")
    summary = json.loads(_run(bare / "sar-eval", *words, cwd=empty))
    assert summary["generated"] == summary["judged"] == 12
    assert next(m["value"] for m in summary["metrics"] if m["name"] == "overall") > 0.5
    assert (empty / summary["report"]).is_file()
    listed = json.loads(_run(bare / "sar-eval", "list", "--json", cwd=empty))
    assert listed["benchmarks"].keys() == {path.stem for path in ROOT.glob("benchmarks/*.toml")}


@pytest.mark.slow
def test_the_wheel_has_the_training_recipes_and_their_prompts(bare: Path, tmp_path: Path) -> None:
    code = (
        "import json\n"
        "from sar_eval.recipe import decoder_recipes, training_recipes\n"
        "from sar_eval.rl.grpo_recipe import load_grpo_recipe\n"
        "suites = {name: load_grpo_recipe(name).suite.is_file() for name in training_recipes()}\n"
        "print(json.dumps([suites, sorted(decoder_recipes())]))"
    )
    suites, decoders = json.loads(_run(bare / "python", "-c", code, cwd=tmp_path))
    assert suites == {path.stem: True for path in ROOT.glob("benchmarks/grpo/*.toml")}
    assert decoders == sorted(path.stem for path in ROOT.glob("benchmarks/train/*.toml"))

"""The shape of a release: one version, complete packages, declared dependencies, a Dockerfile that fits."""

import ast
import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sar_eval import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules that are called otherwise than the distribution that brings them.
BROUGHT_BY = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "mlflow": "mlflow-skinny",
    "mmdet": "onedl-mmdetection",
    "open_clip": "open-clip-torch",
    "yaml": "pyyaml",
}


def test_the_version_is_the_same_everywhere(sar_eval) -> None:
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    assert ProjectMetadata(str(ROOT), PluginManager()).version == __version__
    assert sar_eval("--version").stdout == f"sar-eval {__version__}\n"
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_citation_tells_what_the_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors"}  # the format's required keys
    assert citation["license"] == PROJECT["license"]
    assert citation["abstract"] == PROJECT["description"]


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name and contents of every file in a wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


@pytest.mark.parametrize(
    ("pattern", "inside"),
    [
        ("benchmarks/*.toml", "sar_eval/recipes"),
        ("benchmarks/grpo/*.toml", "sar_eval/recipes/grpo"),
        ("prompts/*", "sar_eval/prompt_files"),
        ("reports/published.json", "sar_eval/suites"),
    ],
)
def test_the_wheel_brings_what_lies_beside_the_package(
    wheel_files: dict[str, bytes], pattern: str, inside: str
) -> None:
    paths = list(ROOT.glob(pattern))
    assert paths
    for path in paths:
        assert wheel_files.get(f"{inside}/{path.name}") == path.read_bytes(), path


def test_the_wheel_has_the_whole_package(wheel_files: dict[str, bytes]) -> None:
    command = ["git", "ls-files", "sar_eval"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("no git checkout")
    assert set(tracked.stdout.split()) - wheel_files.keys() == set()
    kinds = {"py.typed", "report.html.j2", "model.safetensors", "tokenizer.json", "decoder.jit"}
    assert kinds <= {Path(name).name for name in wheel_files}


def test_the_wheel_has_nothing_else(wheel_files: dict[str, bytes]) -> None:
    folders = {Path(name).parts[0] for name in wheel_files}
    assert folders == {"sar_eval", f"sar_eval-{__version__}.dist-info"}
    strange = [name for name in wheel_files if re.search(r"(^|/)(tests?|speed|__pycache__)/", name)]
    assert strange == []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(requirements: list[str]) -> set[str]:
    return {_normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Top-level modules that code imports, each with the extra that its `need` names ("" for none)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], ""
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
            extra = next(k.value.value for k in node.keywords if k.arg == "extra")
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value.split(".")[0], extra


def _requirements(extra: str) -> list[str]:
    """Of an extra, and of the extras that it names."""
    found = PROJECT["optional-dependencies"][extra]
    named = [re.fullmatch(r"sar-eval\[([\w,]+)\]", requirement) for requirement in found]
    return found + [
        r for match in named if match for inner in match[1].split(",") for r in _requirements(inner)
    ]


def test_every_import_is_a_declared_dependency() -> None:
    always = _names(PROJECT["dependencies"])
    extras = {name: _names(_requirements(name)) for name in PROJECT["optional-dependencies"]}
    users = set().union(*(names for name, names in extras.items() if name not in ("dev", "docs")))
    ours = {"sar_eval", *sys.stdlib_module_names}
    for path in sorted((ROOT / "sar_eval").rglob("*.py")):
        for module, extra in set(_imported(ast.parse(path.read_text()))):
            if module not in ours:
                name = _normal(BROUGHT_BY.get(module, module))
                declared = always | (extras[extra] if extra else users)
                assert name in declared, f"{path}: {module} (of {name}) is in no dependency"


def test_every_extra_is_pinned() -> None:
    """What `make test` and the Dockerfile install has a version in constraints.txt."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    pinned = {_normal(line.split("==")[0]) for line in pins}
    trackers = ("wandb", "trackio", "mlflow", "tensorboard")
    requirements = PROJECT["dependencies"] + [
        r
        for name in ("scorers", "dpg", "train", "trl", *trackers, "dev", "docs")
        for r in _requirements(name)
    ]
    assert _names(requirements) - {"sar-eval"} - pinned == set()


def _dockerfile() -> list[list[str]]:
    """The instructions as words, continued lines joined, without flags of COPY and RUN."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [line.split() for line in lines]


def _instructions(name: str) -> list[list[str]]:
    return [words[1:] for words in _dockerfile() if words[0] == name]


def _copied() -> list[str]:
    here = [words for words in _instructions("COPY") if not words[0].startswith("--from")]
    return [source for words in here for source in words[:-1]]


def test_the_dockerfile_copies_what_is_there() -> None:
    ignored = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"
    ]
    for source in _copied():
        assert (ROOT / source).exists(), source
        left_out = [fnmatch.fnmatch(source, line) for line in ignored if not line.startswith("!")]
        assert not any(left_out) or f"!{source}" in ignored, f"{source} is ignored by .dockerignore"


def test_the_image_runs_sar_eval_as_an_ordinary_user() -> None:
    assert _instructions("ENTRYPOINT") == [['["sar-eval"]']]
    users = [words[0] for words in _instructions("USER")]
    assert users[-1] == "sar-eval"
    assert any("useradd" in words and users[-1] in words for words in _instructions("RUN"))


def test_the_base_image_is_pinned_and_fits_torch() -> None:
    base = next(words[0] for words in _instructions("ARG") if words[0].startswith("BASE="))
    tag = base.partition(":")[2]
    toolkit = re.search(r"^cuda-toolkit==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert toolkit is not None
    assert tag.startswith(f"{toolkit[1]}.")
    assert {words[0] for words in _instructions("FROM")} == {"${BASE}"}


def _default_extras() -> str:
    found = next(words[0] for words in _instructions("ARG") if words[0].startswith("EXTRAS="))
    return shlex.split(found)[0].removeprefix("EXTRAS=")


@pytest.mark.parametrize("extras", ["", _default_extras()])
def test_the_image_installs_what_the_readme_says(extras: str) -> None:
    run = next(" ".join(words) for words in _instructions("RUN") if "pip" in words)
    shell = run[run.index("pip install") :].replace("pip install", "printf '%s\\n' pip install", 1)
    done = subprocess.run(["sh", "-c", shell], env={"EXTRAS": extras}, capture_output=True, check=True)
    lines = (ROOT / "README.md").read_text().splitlines()
    documented = [shlex.split(line, comments=True) for line in lines if " pip install -c " in line]
    assert done.stdout.decode().split() in documented


def test_the_copied_files_make_the_package(tmp_path: Path, wheel_files: dict[str, bytes]) -> None:
    for source in _copied():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        tmp_path / "dist",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        assert set(wheel.namelist()) == wheel_files.keys()

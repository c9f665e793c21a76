"""Rules of the house that a machine can watch: who imports whom, what is documented, what is heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sar_eval import discover
from scripts.draw_house import ROWS, document

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sar_eval"
GROUND = {
    *(
        "types",
        "protocols",
        "errors",
        "documents",
        "encodings",
        "tables",
        "discover",
        "provenance",
        "stats",
    ),
    "options",
    "machine",
    "checkpoint_steps",
    "answers",
    "measures",
    "comparisons",
    "histories",
    "tracked_runs",
    "resume_rules",
    "draw_protocol",
}
# Rooms from the ground up; a room may import the ground, and of the other rooms those named here.
ALLOWED = {
    "tensors": set(),
    "clients": set(),
    "images": set(),
    "storage": set(),
    "suites": {"images", "storage", "tensors"},
    "networks": {"clients", "images", "tensors"},
    "families": {"tensors"},
    "decoding": {"families", "tensors"},
    "vllm_guided": {"decoding", "tensors"},
    "engines": {"clients", "decoding", "families", "images", "vllm_guided"},
    "scorers": {"images", "networks", "tensors"},
    "scoring": {"images"},
    "judges": {"images", "networks", "scoring", "suites", "tensors"},
    "answerers": {"clients", "images", "networks", "suites", "tensors"},
    "benchmarks": {"suites"},
    "trackers": {"images"},
    "spec": set(),
    "recipe": {"suites"},
    "runtime": {"spec"},
    "stages": {
        *("clients", "decoding", "families", "images", "networks", "recipe", "runtime", "scoring", "spec"),
        *("storage", "suites", "tensors", "vllm_guided"),
    },
    "report": {"runtime", "spec", "storage", "suites"},
    "rewards": {"decoding", "recipe", "scoring", "storage", "suites"},
    "train": {
        *("decoding", "engines", "families", "images", "recipe", "report", "rewards", "storage", "suites"),
        "tensors",
    },
    "rl": {
        *("decoding", "engines", "families", "images", "judges", "recipe", "report", "rewards", "scoring"),
        *("storage", "suites", "tensors", "train"),
    },
    "tokenization": {"families", "images", "report", "runtime", "storage", "tensors"},
    "synthesis": {
        *("decoding", "families", "images", "networks", "recipe", "report", "runtime", "scoring"),
        *("spec", "stages"),
        *("storage", "suites", "tensors"),
    },
}
# What lies on the ground is free of heavy imports, and knows the ground alone.
ALLOWED |= {name: set() for name in GROUND}
ALLOWED |= {"protocols": {"images"}}  # the type of what scorers take
ALLOWED |= {"__main__": {"cli"}, "__init__": set()}


def test_the_layer_diagram_matches_the_imports() -> None:
    """docs/images/house.svg has every room, and each room above all that it may import."""
    row = {name.removesuffix(".py"): n for n, row in enumerate(ROWS[:-1]) for name, _ in row}
    assert set(row) == set(ALLOWED) - GROUND - {"__main__", "__init__"} | {"cli"}
    above = {(room, used) for room, rooms in ALLOWED.items() if room in row for used in rooms}
    assert [(room, used) for room, used in above if row[room] >= row[used]] == []
    assert set(ROWS[-1][0][0].split(" · ")) == GROUND
    assert (ROOT / "docs" / "images" / "house.svg").read_text() == document()


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _rooms(path: Path) -> set[str]:
    names = [
        name.split(".")[1] for name in _imports(path) if name.startswith("sar_eval.") and name.count(".")
    ]
    return {name for name in names if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "cli":
        return
    allowed = ALLOWED[room] | GROUND | {room}
    assert _rooms(path) <= allowed, f"{room} may import {sorted(allowed)}"


@pytest.mark.parametrize(
    ("package", "rooms"), [("typer", {"cli"}), ("rich", {"cli"}), ("pyarrow", {"storage"})]
)
def test_libraries_keep_to_their_rooms(package: str, rooms: set[str]) -> None:
    for path in PACKAGE.rglob("*.py"):
        if any(name.split(".")[0] == package for name in _imports(path)):
            assert path.relative_to(PACKAGE).parts[0].removesuffix(".py") in rooms, path


def test_files_stay_readable() -> None:
    folders = (PACKAGE, *(ROOT / name for name in ("tests", "benchmarks", "scripts", "docs")))
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        assert len(path.read_text().splitlines()) <= 400, path


def test_help_needs_no_heavy_package() -> None:
    code = (
        "import sys; sys.argv = ['sar-eval', '--help']\n"
        "from sar_eval.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "names = 'torch transformers vllm pyarrow pandas cv2 numpy'.split()\n"
        "heavy = set(names) & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("kind", list(discover.KINDS))
def test_every_module_has_a_listing_and_keeps_its_seam(kind: str) -> None:
    methods = {
        "engines": ("generate", "__enter__"),
        "judges": ("judge", "__enter__"),
        "answerers": ("answer", "__enter__"),
        "scorers": ("score", "__enter__"),
        "benchmarks": ("fold",),
        "trackers": ("log",),
        "families": ("recognises", "find"),
    }
    for name, headline in discover.names(kind).items():
        assert headline, name
        found = discover.load(kind, name)
        assert all(callable(getattr(found, method)) for method in methods[kind]), name


def _commands(group: typer.core.TyperGroup, words: tuple[str, ...] = ()) -> list[str]:
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += _commands(command, (*words, name))
        else:
            found.append(" ".join((*words, name)))
    return found


def test_every_command_and_option_is_documented() -> None:
    from sar_eval.cli import app

    reference = (ROOT / "docs" / "commands.md").read_text()
    group = typer.main.get_command(app)
    for words in _commands(group):
        assert f"## `sar-eval {words}`" in reference, f"docs/commands.md says nothing of {words}"
        command = group
        for word in words.split():
            command = command.commands[word]
        section = reference.split(f"## `sar-eval {words}`")[1].split("\n## ")[0]
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}`" in section, f"{words}: {option}"

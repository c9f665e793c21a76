"""Find an engine, judge, family, scorer and so on by its name, importing nothing else.

`judges/clipscore.py` is the judge `clipscore`: its file name is the name, the first line of its
docstring the listing, `JUDGE` in it the class. `shapes_soft.py` is listed as `shapes-soft`, as words of
the command line are written; `-` and `_` find the same, whatever the kind. Third-party packages come
through the entry-point groups `sar_eval.engines`, `sar_eval.judges`, `sar_eval.answerers`,
`sar_eval.scorers`, `sar_eval.benchmarks`, `sar_eval.trackers` and `sar_eval.families`;
`path/to/file.py:NAME` names an object in any file.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from sar_eval.errors import BadInput, MissingExtra, SarEvalError, UnknownName
from sar_eval.options import check_name

KINDS = {
    "engines": "ENGINE",
    "judges": "JUDGE",
    "answerers": "ANSWERER",
    "scorers": "SCORER",
    "benchmarks": "BENCHMARK",
    "trackers": "TRACKER",
    "families": "FAMILY",
}
PACKAGE = Path(__file__).parent
FILE_PREFIX = "sar_eval file "  # of the module's name of a `path.py:NAME`


def need(module: str, *, extra: str, what: str) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingExtra: it is not installed; the message gives the command that installs it.
    """
    way_on = f"{what} needs: pip install 'sar-eval[{extra}]'"
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{way_on} ({error})") from error
    if (
        getattr(found, "__path__", None) and found.__spec__ and found.__spec__.origin is None
    ):  # say ./wandb, where wandb keeps its runs
        raise MissingExtra(f"{way_on} (what is here is a folder of the name {module})")
    return found


def names(kind: str) -> dict[str, str]:
    """Every addition of a kind with the first line of its docstring, nothing imported."""
    return _built_in(kind) | {entry.name: f"from {entry.value}" for entry in _entries(kind)}


def listed(kind: str, name: str) -> str | None:
    """How `names` spells a name that may be written with `-` or `_`; None if nothing is called so."""
    known = names(kind)
    alike = (other for other in known if _dashed(other) == _dashed(name))
    return name if name in known else next(alike, None)


def load(kind: str, name: str) -> Any:
    """The class behind a name of this kind.

    Raises:
        UnknownName: nothing is called so.
        BadInput: a `path.py:NAME` that does not exist, a name that no file can have, or somebody's code
            that cannot be imported.
    """
    check_name(name, f"name of {kind}")
    if is_file(name):
        return _from_file(name)
    if _dashed(name) in _built_in(kind):
        module = importlib.import_module(f"sar_eval.{kind}.{_dashed(name).replace('-', '_')}")
        return getattr(module, KINDS[kind])
    spelt = listed(kind, name)
    for entry in _entries(kind):
        if entry.name == spelt:
            with guarded(f"{singular(kind)} {name!r} ({entry.value}) cannot be imported"):
                return entry.load()
    raise unknown(singular(kind), name, list(names(kind)))


def is_file(name: str) -> bool:
    """Whether a name is a file's: `path/to/file.py:NAME`, which is code."""
    return ".py:" in name


@contextmanager
def guarded(failure: str) -> Iterator[None]:
    """Call code of an addition: what it prints goes to standard error, what it raises becomes `BadInput`.

    Also a SystemExit: an addition does not end sar-eval, least of all with exit code 0.

    Args:
        failure: what then failed, in words.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (SarEvalError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(f"{failure}: {why}") from error


def singular(kind: str) -> str:
    """One of a kind, for messages."""
    return "family" if kind == "families" else kind.removesuffix("s")


def unknown(what: str, name: str, known: list[str]) -> UnknownName:
    """The error for a name that is not known, with the nearest that is."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
    return UnknownName(f"unknown {what} {name!r}; {hint}")


@cache
def _built_in(kind: str) -> dict[str, str]:
    """Headlines by name, read once in a process: parsing all files of a kind takes a tenth of a second."""
    paths = [path for path in sorted((PACKAGE / kind).glob("*.py")) if not path.stem.startswith("_")]
    texts = {_dashed(path.stem): path.read_text() for path in paths}
    modules = {name: ast.parse(text) for name, text in texts.items() if KINDS[kind] in text}
    return {name: _headline(module) for name, module in modules.items() if _defines(module, KINDS[kind])}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _entries(kind: str) -> list[Any]:
    return sorted(entry_points(group=f"sar_eval.{kind}"), key=lambda e: e.name)


def _headline(module: ast.Module) -> str:
    docstring = ast.get_docstring(module)
    return docstring.splitlines()[0] if docstring else ""


def _defines(module: ast.Module, name: str) -> bool:
    targets = [t for node in module.body for t in _targets(node)]
    return any(isinstance(t, ast.Name) and t.id == name for t in targets)


def _targets(node: ast.stmt) -> list[ast.expr]:
    """What an assignment, with a type or without, assigns to."""
    if isinstance(node, ast.AnnAssign):
        return [node.target]
    return node.targets if isinstance(node, ast.Assign) else []


def _from_file(name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    try:
        found = Path(path).is_file()
    except (OSError, ValueError):  # too long, or a NUL byte in it
        found = False
    if not found:
        raise BadInput(f"no file {path} (named by {name!r})")
    # The name is one that no import finds, so that the file hides no module of its own name.
    spec = importlib.util.spec_from_file_location(f"{FILE_PREFIX}{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with guarded(f"{path} cannot be imported"):
        spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise BadInput(f"{path} defines no {attribute}")
    return getattr(module, attribute)

"""What every declared source of a suite must say, whoever adds it."""

import hashlib
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from sar_eval.suites import source as sources
from tests.parity_data import ROOT


@pytest.mark.parametrize("name", sources.names())
def test_a_source_is_complete(name: str) -> None:
    source = sources.load(name)
    assert source.title
    assert source.takes
    assert source.licence
    assert source.files
    for file in source.files:
        assert file.url.startswith("https://"), file
        assert file.purpose, file
        # Each suite's files lie in a folder of its own (DPG-Bench's one file is older than that).
        assert file.name.startswith(f"sources/{name}/") or name == "dpg", file


@pytest.mark.parametrize("name", sources.names())
def test_templates_come_from_the_official_files(name: str) -> None:
    source = sources.load(name)
    official = {file.name.removeprefix(f"sources/{name}/") for file in source.files}
    assert len({template.name for template in source.templates}) == len(source.templates)
    for template in source.templates:
        assert template.file in official, template
        assert len(bytes.fromhex(template.sha256)) == 32, template


def test_the_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from sar_eval.suites import source\n"
        "for name in source.names(): source.load(name)\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _templates() -> Iterator[sources.Template]:
    """Those that are stored beside a suite, and those that its questions are made with."""
    for name in sources.names():
        yield from sources.load(name).templates
        for module in (f"sar_eval.suites.{name}.source", f"sar_eval.suites.{name}.suite"):
            if find_spec(module):
                values = vars(importlib.import_module(module)).values()
                yield from (value for value in values if isinstance(value, sources.Template))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        yield from re.split(r"\{\w+\}", value)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "benchmarks").glob("*.toml")))
def test_no_recipe_ships_a_text_that_is_fetched(recipe: str) -> None:
    fetched = {template.sha256 for template in _templates()}
    assert len(fetched) >= 9
    content = tomllib.loads((ROOT / "benchmarks" / recipe).read_text(encoding="utf-8"))
    shipped = {hashlib.sha256(text.encode()).hexdigest() for text in _texts(content)}
    assert not shipped & fetched

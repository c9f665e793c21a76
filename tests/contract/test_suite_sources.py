"""What every declared source of a suite must say, whoever adds it."""

import subprocess
import sys

import pytest

from sar_eval.suites import source as sources


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
